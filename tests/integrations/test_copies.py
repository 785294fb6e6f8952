"""Modules that both extensions have contain the same code; they are copies, because neither may import the other."""

import pytest

from tests.hosts.a1111_host import EXTENSION
from tests.hosts.comfyui_host import INTEGRATION
from tests.same_code import code

A1111 = EXTENSION / "dnp_guard_extension"
OF_A_HOST = {"__init__", "attending", "guarding", "host", "settings"}
"""Modules that each extension has for its host; they share a name and no more."""

COPIED = sorted({file.stem for file in A1111.glob("*.py") if (INTEGRATION / file.name).exists()} - OF_A_HOST)


def test_nine_modules_are_copied():
    assert len(COPIED) == 9


@pytest.mark.parametrize("name", COPIED)
def test_a_copied_module_is_the_same_code_in_both_extensions(name):
    assert code(INTEGRATION / f"{name}.py") == code(A1111 / f"{name}.py")
