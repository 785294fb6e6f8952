"""The locked versions of dependencies are the tested ones, and the check for vulnerabilities reports its findings."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.supply import summary

ROOT = Path(__file__).parents[1]
LOCKED = {
    canonicalize_name(name): (version, hashes)
    for name, version, hashes in re.findall(
        r"^([a-z0-9.-]+)==(\S+)[^\n]*\\\n((?: +--hash=sha256:[0-9a-f]{64}[^\n]*\n)+)",
        (ROOT / "requirements.lock").read_text(),
        re.MULTILINE,
    )
}
PINNED = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}


def test_every_locked_package_has_the_hashes_of_its_files():
    names = re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert {canonicalize_name(name) for name in names} == set(LOCKED)
    assert len(names) > 100


def test_the_lock_has_the_versions_that_are_tested():
    assert {name: version for name, (version, _) in LOCKED.items() if PINNED.get(name, version) != version} == {}


def declared(project, texts):
    """Yield the names of required packages, including those of the project's own extras."""
    for requirement in map(Requirement, texts):
        if requirement.name == project["name"]:
            for extra in requirement.extras:
                yield from declared(project, project["optional-dependencies"][extra])
        else:
            yield canonicalize_name(requirement.name)


@pytest.mark.parametrize("extra", [None, "dev", "docs"])
def test_every_dependency_is_locked(extra):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = project["optional-dependencies"][extra] if extra else project["dependencies"]
    assert set(declared(project, texts)) - set(LOCKED) - {"torch"} == set()


def test_torch_is_the_machines_to_choose():
    assert "torch" not in LOCKED


def report(*packages):
    return json.dumps({"dependencies": list(packages)})


GOOD = {"name": "rich", "version": "14.0", "vulns": []}
BAD = {"name": "jinja2", "version": "3.1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.1.6"]}]}
OWN = {"name": "dnp-guard", "skip_reason": "local"}
MISSED = {"name": "pillow", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("printed", "code", "expected"),
    [
        (report(GOOD), 0, "1 packages looked up, 0 vulnerabilities known."),
        (report(GOOD, BAD), 1, "jinja2 3.1.0: PYSEC-1, fixed in 3.1.6"),
        (report(GOOD, MISSED), 2, "1 packages could not be looked up: pillow."),
        (report(BAD, MISSED), 1, "1 packages could not be looked up: pillow."),
        ("", 2, "Nothing was looked up: the database of vulnerabilities cannot be reached."),
        ("Traceback", 2, "Nothing was looked up: the database of vulnerabilities cannot be reached."),
        (
            report(GOOD, {"name": "dnp-guard", "skip_reason": "local"}),
            0,
            "1 packages looked up, 0 vulnerabilities known.",
        ),
    ],
)
def test_the_look_for_vulnerabilities_says_what_it_found_and_what_it_could_not_reach(printed, code, expected):
    lines, exit_code = summary(printed)
    assert exit_code == code
    assert expected in lines
