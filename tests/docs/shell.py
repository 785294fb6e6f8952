"""Read the commands that pages have their readers type, run them, and compare what they print."""

from __future__ import annotations

import re
import shlex
import subprocess

from dnp_guard import cli

RUN = {"docs/how-to/deploy.md", "docs/how-to/policy.md", "docs/tutorial.md", "examples/store/README.md"}
"""Pages whose commands the tests run, but for the blocks that say why not; every block of other pages says why not."""
_BLOCK = re.compile(r"(<!-- not run: .+ -->\n)?```(?:console|sh)\n(.*?)```", re.DOTALL)


def commands(page):
    """Yield every command of a page with the lines that it prints; leave out blocks that say why they are not run."""
    for excused, block in _BLOCK.findall(page):
        for step in re.split(r"^\$ ", block.replace("\\\n", " "), flags=re.MULTILINE)[1:] if not excused else ():
            command, *printed = step.splitlines()
            yield command, printed


def output_of(command, capsys):
    """Run a command as the shell would, and return its output."""
    if not command.startswith("dnp-guard "):
        return subprocess.run(["/bin/sh", "-c", command], check=True, capture_output=True, text=True).stdout
    capsys.readouterr()
    cli.run(shlex.split(command, comments=True)[1:])
    captured = capsys.readouterr()
    return captured.out + captured.err


def shows(output, printed):
    """Return whether lines are printed in this order; `…` stands for the rest of a line, or for any lines."""
    text = " ".join(output.split())
    parts = [" ".join(part.split()) for line in printed for part in line.split("…")]
    at = 0
    for part in filter(None, parts):
        place = text.find(part, at)
        if place < 0:
            return False
        at = place + len(part)
    return True
