"""Check running web UIs in which an integration is installed: ``make host-check A1111=URL COMFYUI=URL``.

Every host has a module of checks, ``host_check_a1111`` or ``host_check_comfyui``, whose function ``check`` yields
results. This module runs the checks and prints the results.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL.Image import Image

HOSTS = ("a1111", "comfyui")
SERVICE = "http://127.0.0.1:8777"


@dataclass(frozen=True)
class Found:
    """The result of one check; ``ok`` is None if the check was not possible, and ``detail`` then says why."""

    check: str
    ok: bool | None
    detail: str = ""

    def __str__(self) -> str:
        word = {True: "ok  ", False: "FAIL", None: "skip"}[self.ok]
        return f"{word}  {self.check}{': ' if self.detail else ''}{self.detail}"


def is_withheld(picture: Image) -> bool:
    """Return whether a picture is a placeholder for a withheld one: grey, with only shades of grey on it."""
    shown = picture.convert("RGB")
    colours = shown.getcolors(shown.width * shown.height)
    return shown.getpixel((0, 0)) == (128, 128, 128) and all(len(set(colour)) == 1 for _, colour in colours)


def findings(arguments: argparse.Namespace) -> Iterator[Found]:
    for name in HOSTS:
        url = getattr(arguments, name)
        if url:
            yield from import_module(f"tests.hosts.host_check_{name}").check(url.rstrip("/"), arguments)


def main(args: Sequence[str] | None = None) -> int:
    """Run the checks; return 0 if none failed, 1 if any did, and 2 if no host was named or one does not answer."""
    parser = argparse.ArgumentParser(prog="host_check", description=__doc__)
    for name in HOSTS:
        parser.add_argument(f"--{name}", metavar="URL", help="Address of a running host.")
    parser.add_argument("--service", default=SERVICE, help="Address at which the integrations expect the service.")
    parser.add_argument(
        "--plain", type=Path, help="File of unguarded images' hashes: written without extension, then read."
    )
    parser.add_argument("--size", type=int, default=512, help="Side of the images, in pixels.")
    parser.add_argument("--steps", type=int, default=10, help="Sampler steps; below 8, two looks may fall on one step.")
    arguments = parser.parse_args(args)
    if not any(getattr(arguments, name) for name in HOSTS):
        parser.print_usage(sys.stderr)
        return 2
    failed = 0
    try:
        for finding in findings(arguments):
            sys.stdout.write(f"{finding}\n")
            sys.stdout.flush()
            failed += finding.ok is False
    except (OSError, RuntimeError) as error:  # the host or the service does not answer at its address
        sys.stderr.write(f"host_check: {error}\n")
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
