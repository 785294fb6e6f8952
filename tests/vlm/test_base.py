from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.vlm import BackendInfo, describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image


class Bare:
    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> list[list[float]]:
        return []


class Named(Bare):
    name, revision, local = "judge", "abc123", False


def test_a_backend_that_says_nothing_is_described_by_its_class_as_local() -> None:
    assert describe(Bare()) == BackendInfo("Bare", "unknown", local=True)


def test_a_backend_is_described_by_what_it_says() -> None:
    assert describe(Named()) == BackendInfo("judge", "abc123", local=False)
