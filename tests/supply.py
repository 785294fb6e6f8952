"""Check the installed packages for known vulnerabilities, and name packages that could not be checked.

Run it as a script with the path of pip-audit. It exits with 1 for a vulnerability, and with 2 for a failed check::

    python -m tests.supply .venv-tools/bin/pip-audit
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig

OWN = {"dnp-guard"}
"""The project's own packages, which are in no database of vulnerabilities."""


def summary(report: str) -> tuple[list[str], int]:
    """Summarise pip-audit's JSON report: return lines to print, and the exit code.

    Args:
        report: the output of pip-audit; empty if it could not reach the database.
    """
    try:
        packages = [package for package in json.loads(report)["dependencies"] if package["name"] not in OWN]
    except (ValueError, KeyError, TypeError):
        return ["Nothing was looked up: the database of vulnerabilities cannot be reached."], 2
    missed = [entry["name"] for entry in packages if "skip_reason" in entry]
    problems = [
        f"{entry['name']} {entry['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'no version'}"
        for entry in packages
        for flaw in entry.get("vulns", ())
    ]
    lines = [f"{len(packages) - len(missed)} packages looked up, {len(problems)} vulnerabilities known.", *problems]
    if missed:
        lines.append(f"{len(missed)} packages could not be looked up: {', '.join(missed)}.")
    return lines, 1 if problems else 2 if missed else 0


def main(tool: str) -> int:
    """Run pip-audit on the packages of the running Python, print the summary, and return the exit code."""
    command = [tool, "--path", sysconfig.get_path("purelib"), "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    lines, code = summary(done.stdout)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
