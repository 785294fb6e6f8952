from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Annotated

import pytest
import typer

from dnp_guard import __version__, cli
from dnp_guard.errors import CannotSteer, PolicyError, Problem


@pytest.fixture
def failing(monkeypatch):
    """Return a function that makes ``dnp-guard fail`` raise an error."""

    def register(error):
        def fail(*, as_json: Annotated[bool, typer.Option("--json")] = False):
            raise error

        def build(commands=()):
            app = typer.Typer(pretty_exceptions_enable=False)
            app.callback()(lambda: None)
            app.command("fail")(fail)
            return app

        monkeypatch.setattr(cli, "build", build)

    return register


def test_the_version_is_printed(capsys):
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"dnp-guard {__version__}\n"


def test_an_error_is_a_line_and_its_remedy_a_second(failing, capsys):
    failing(CannotSteer("no negative branch", hint="Use another pipeline."))
    assert cli.run(["fail"]) == 2
    assert capsys.readouterr() == ("", "dnp-guard: no negative branch\n  Use another pipeline.\n")


def test_an_error_is_one_document_under_json(failing, capsys):
    failing(PolicyError([Problem("p.yaml", 3, 5, "unknown-key", "no such key", "Did you mean `mode`?")]))
    assert cli.run(["fail", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document == {
        "ok": False,
        "errors": [
            {
                "file": "p.yaml",
                "line": 3,
                "column": 5,
                "code": "unknown-key",
                "message": "no such key",
                "hint": "Did you mean `mode`?",
            }
        ],
    }


def test_every_problem_of_a_policy_is_printed_with_its_place(failing, capsys):
    failing(PolicyError([Problem("p.yaml", 3, 5, "a", "first"), Problem("p.yaml", 4, 1, "b", "second")]))
    cli.run(["fail"])
    assert capsys.readouterr().err == "dnp-guard: p.yaml:3:5: first\ndnp-guard: p.yaml:4:1: second\n"


def test_a_missing_file_is_named(failing, capsys):
    failing(FileNotFoundError(2, "No such file or directory", "absent.yaml"))
    assert cli.run(["fail"]) == 2
    assert capsys.readouterr().err.startswith("dnp-guard: absent.yaml: No such file or directory\n")


def test_a_file_in_place_of_a_folder_is_said_to_be_one(failing, capsys):
    failing(FileExistsError(17, "File exists", "out"))
    assert cli.run(["fail"]) == 2
    assert capsys.readouterr().err == "dnp-guard: out: a file of this name exists\n  Give another path.\n"


def test_a_defect_shows_no_traceback(failing, capsys):
    failing(ZeroDivisionError("division by zero"))
    assert cli.run(["fail"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dnp-guard: unexpected ZeroDivisionError: division by zero\n")
    assert "Traceback" not in error


def test_a_defect_shows_its_traceback_when_asked(failing, capsys, monkeypatch):
    monkeypatch.setenv("DNP_GUARD_TRACEBACK", "1")
    failing(ZeroDivisionError("division by zero"))
    cli.run(["fail"])
    assert "Traceback" in capsys.readouterr().err


def test_what_is_quoted_cannot_move_the_terminal(failing, capsys):
    failing(CannotSteer("pipeline \x1b[2J\nnamed \u202eevil"))
    cli.run(["fail"])
    assert capsys.readouterr().err == "dnp-guard: pipeline \ufffd[2J named \ufffdevil\n"


def test_an_unknown_option_is_two_lines(capsys):
    assert cli.run(["doctor", "--bogus"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["dnp-guard: No such option: --bogus", "  Try 'dnp-guard doctor --help'."]


def test_a_value_that_is_not_one_of_a_few_is_answered_with_them(capsys):
    assert cli.run(["install", "a111", "."]) == 2
    assert capsys.readouterr().err.splitlines()[0] == (
        "dnp-guard: Invalid value for 'HOST': 'a111' is not one of 'a1111', 'comfyui'."
    )


def test_an_unknown_command_names_the_near_one(capsys):
    assert cli.run(["docter"]) == 2
    error = capsys.readouterr().err
    assert "Did you mean 'doctor'" in error
    assert len(error.splitlines()) == 2


def test_no_command_at_all_shows_the_help_and_is_a_usage_error(capsys):
    assert cli.run([]) == 2
    assert "doctor" in capsys.readouterr().out


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_is_in_the_help(command, capsys):
    assert cli.run(["--help"]) == 0
    assert f" {command} " in capsys.readouterr().out


def test_only_the_module_of_the_named_command_is_imported():
    program = (
        "import sys; from dnp_guard.cli import run; run(['doctor', '--help']); "
        "sys.exit('dnp_guard.cli.policy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0


def test_the_module_runs_as_the_command():
    done = subprocess.run([sys.executable, "-m", "dnp_guard", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"dnp-guard {__version__}\n"


def test_warnings_of_libraries_are_not_printed():
    program = (
        "import sys, warnings; from dnp_guard import cli; "
        "cli.run = lambda args: warnings.warn('noise', stacklevel=1) or 0; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [["--version"], ["no-such-command", "--json"]])
def test_a_reader_that_leaves_the_pipe_causes_no_traceback(arguments):
    with subprocess.Popen(
        [sys.executable, "-m", "dnp_guard", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        running.stdout.close()
        assert "Error" not in running.stderr.read()
        assert running.wait() == 1


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "ascii"])
@pytest.mark.parametrize("args", [["--help"], ["policy", "check", "none\u2014\u5f62.yaml"], ["policy", "schema"]])
def test_a_terminal_that_lacks_a_sign_is_answered(encoding, args):
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-m", "dnp_guard", *args], env=environment, capture_output=True, check=False)
    assert b"UnicodeEncodeError" not in done.stdout + done.stderr
    assert done.returncode in {0, 2}
