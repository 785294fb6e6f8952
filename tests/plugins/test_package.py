"""A backend from a third-party package works when the package is installed as users install it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dnp_guard import Guard
from dnp_guard.audit import MemorySink
from dnp_guard.errors import PluginError, VlmUnavailable
from dnp_guard.testing import BackendContract
from tests.policies import policy

PACKAGE = Path(__file__).parent / "brightness"
FILES = "src/dnp_guard_brightness"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Install the package with pip into a separate folder, and put the folder on ``sys.path``."""
    folder = tmp_path_factory.mktemp("site")
    wheel = folder / "wheel"
    wheel.mkdir()
    _build(wheel)
    (built,) = wheel.glob("*.whl")
    target = folder / "packages"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run(
        [*command, "--disable-pip-version-check", str(built)], check=True, env=os.environ | {"PIP_NO_INPUT": "1"}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(target)
        yield target


def _build(wheel: Path) -> None:
    """Write the wheel that the package's ``pyproject.toml`` describes, because pip would download a build backend."""
    import tomllib
    import zipfile

    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    name = project["name"].replace("-", "_")
    info = f"{name}-{project['version']}.dist-info"
    points = project["entry-points"]["dnp_guard"]
    meta = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    members = {
        f"{info}/METADATA": meta,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[dnp_guard]\n" + "".join(f"{key} = {at}\n" for key, at in points.items()),
    }
    sources = sorted((PACKAGE / FILES).glob("*.py"))
    members |= {f"dnp_guard_brightness/{path.name}": path.read_text() for path in sources}
    members[f"{info}/RECORD"] = "".join(f"{member},,\n" for member in (*members, f"{info}/RECORD"))
    with zipfile.ZipFile(wheel / f"{name}-{project['version']}-py3-none-any.whl", "w") as archive:
        for member, text in members.items():
            archive.writestr(member, text)


def test_it_is_found_by_its_entry_point_when_it_is_allowed(installed):
    with Guard(policy(), vlm="brightness:0.1", plugins=["brightness"], audit=(sink := MemorySink())) as guard:
        backend = guard.desk.backend
        assert type(backend).__name__ == "Brightness"
        assert backend.floor == 0.1
    assert sink.records[0]["reason"].startswith("plugins: brightness (dnp-guard-brightness 1.0.0 sha256:")


def test_the_record_says_which_files_it_was(installed):
    files = sorted((installed / "dnp_guard_brightness").glob("*.py"))
    listed = "".join(
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  dnp_guard_brightness/{file.name}\n" for file in files
    )
    sink = MemorySink()
    Guard(policy(), vlm="brightness:0.1", plugins=["brightness"], audit=sink).close()
    sha256 = hashlib.sha256(listed.encode()).hexdigest()
    assert sink.records[0]["reason"] == f"plugins: brightness (dnp-guard-brightness 1.0.0 sha256:{sha256})"


def test_it_is_not_loaded_unless_it_is_allowed(installed):
    sys.modules.pop("dnp_guard_brightness", None)
    with pytest.raises(VlmUnavailable, match="no backend knows the spec"):
        Guard(policy(), vlm="brightness:0.1")
    assert "dnp_guard_brightness" not in sys.modules


def test_it_is_unknown_where_it_is_not_installed():
    with pytest.raises(PluginError, match="no installed package offers"):
        Guard(policy(), vlm="brightness:0.1", plugins=["not-there"])


def test_its_own_refusal_reaches_the_user(installed):
    with pytest.raises(VlmUnavailable, match="no number"):
        Guard(policy(), vlm="brightness:much", plugins=["brightness"])


class TestContract(BackendContract):
    @pytest.fixture
    def backend(self, installed):
        with Guard(policy(), vlm="brightness:0.0", plugins=["brightness"]) as guard:
            return guard.desk.backend
