"""The command line: one module per command or group of commands, imported only when needed."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from dataclasses import asdict
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import TyperException

from dnp_guard._version import __version__
from dnp_guard.cli.console import print_json, print_problem, problems_of
from dnp_guard.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COMMANDS = (
    "demo",
    "distill",
    "generate",
    "evaluate",
    "bench",
    "policy",
    "preview",
    "audit",
    "vlm",
    "doctor",
    "override",
    "serve",
    "token",
    "receipt",
    "install",
    "uninstall",
)
"""Modules of this package; a module has a function of its own name, or a group of commands as ``app``."""

_QUIET = {
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Environment variables that silence the notices and progress bars of libraries while a model loads."""

_USAGE = 2


def main() -> None:
    """Run ``dnp-guard`` and exit."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # warnings of libraries hide the one line that matters
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # if the terminal's encoding lacks a sign, ? is better than an error
    try:
        code = run(sys.argv[1:])
    except BrokenPipeError:
        # The reader of the pipe has gone; without this, Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def run(args: Sequence[str]) -> int:
    """Run one command.

    Args:
        args: arguments after ``dnp-guard``.

    Returns:
        The exit code: 0 for success, 1 if a check failed, 2 for wrong usage or unreadable input, 130 if aborted.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    named = [command for command in args[:1] if command in COMMANDS]
    try:
        return build(named or COMMANDS)(args=list(args), prog_name="dnp-guard", standalone_mode=False) or 0
    except typer.Abort:
        return 130
    except TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # typer does not export it, and has printed the help
            return _USAGE
        return _refuse([_usage(error)], args)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 (the edge of the program: show a traceback only on request)
        if os.environ.get("DNP_GUARD_TRACEBACK"):
            traceback.print_exc()
        return _refuse(problems_of(error), args)


def build(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """Build the command-line application with some of its commands.

    Args:
        commands: names from :data:`COMMANDS`; only their modules are imported.
    """
    app = typer.Typer(
        help="A safety guard for image generation: dynamic VLM-guided negative prompting while an image is denoised.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for name in commands:
        module = import_module(f"dnp_guard.cli.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(getattr(module, name))
    return app


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"dnp-guard {__version__}")
        raise typer.Exit


def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def _usage(error: TyperException) -> Problem:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "dnp-guard"
    message = error.format_message().replace("Value error, ", "")  # a prefix of pydantic
    return Problem("", 0, 0, "usage", message, f"Try '{command} --help'.")


def _refuse(problems: Iterable[Problem], args: Sequence[str]) -> int:
    problems = list(problems)
    if "--json" in args:
        print_json({"ok": False, "errors": [asdict(problem) for problem in problems]})
    for problem in problems:
        print_problem(problem)
    return _USAGE
