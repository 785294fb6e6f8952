"""Looks the installed packages up among known vulnerabilities, and says which of them could not be looked up.

As a script, with the path of pip-audit; exits 1 for a vulnerability, and 2 where something was not looked up::

    python -m tests.supply .venv-tools/bin/pip-audit
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig

OWN = {"dnp-guard"}
"""Packages of this tree, which no database knows."""


def summary(report: str) -> tuple[list[str], int]:
    """What pip-audit's JSON comes to: lines for a person, and the exit code.

    Args:
        report: what it printed; empty where it reached nothing at all.
    """
    try:
        packages = [each for each in json.loads(report)["dependencies"] if each["name"] not in OWN]
    except (ValueError, KeyError, TypeError):
        return ["Nothing was looked up: the database of vulnerabilities cannot be reached."], 2
    missed = [each["name"] for each in packages if "skip_reason" in each]
    found = [
        f"{each['name']} {each['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'no version'}"
        for each in packages
        for flaw in each.get("vulns", ())
    ]
    lines = [f"{len(packages) - len(missed)} packages looked up, {len(found)} vulnerabilities known.", *found]
    if missed:
        lines.append(f"{len(missed)} packages could not be looked up: {', '.join(missed)}.")
    return lines, 1 if found else 2 if missed else 0


def main(tool: str) -> int:
    """Run pip-audit on the packages beside this Python, and print what it comes to."""
    command = [tool, "--path", sysconfig.get_path("purelib"), "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    lines, code = summary(done.stdout)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
