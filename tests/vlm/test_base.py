from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image

from dnp_guard.errors import VlmUnavailable
from dnp_guard.vlm import Backend, BackendInfo, Query, as_backend
from dnp_guard.vlm.base import Wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

PICTURE = Image.new("RGB", (4, 4))


class Bare:
    def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[list[float]]:
        return [[0.5] * len(questions) for _ in images]


class Named(Bare):
    name, revision, local, batches, at_once, mode = "judge", "abc123", False, True, 4, "text"
    addresses, answers = ("https://judge.example/v1",), "text"
    closed = False

    def states(self) -> dict[str, str]:
        return {self.addresses[0]: "open"}

    def close(self) -> None:
        self.closed = True


class Own(Backend):
    def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[list[float]]:
        return Bare().ask(images, questions)


@pytest.mark.parametrize("bare", [Bare(), Own()], ids=["any object", "a subclass"])
def test_a_backend_that_says_nothing_is_named_by_its_class_and_local(bare: Bare | Own) -> None:
    assert as_backend(bare).info == BackendInfo(type(bare).__name__, "unknown", local=True)


@pytest.mark.parametrize("bare", [Bare(), Own()], ids=["any object", "a subclass"])
def test_a_backend_that_says_nothing_takes_one_call_at_a_time(bare: Bare | Own) -> None:
    backend = as_backend(bare)
    assert not backend.batches
    assert backend.at_once == 1
    assert backend.mode == ""
    assert backend.states() == {}
    backend.close()


def test_an_object_is_described_by_what_it_says() -> None:
    backend = as_backend(Named())
    assert backend.info == BackendInfo("judge", "abc123", False, ("https://judge.example/v1",), "text")
    assert backend.batches
    assert backend.at_once == 4
    assert backend.mode == "text"
    assert backend.states() == {"https://judge.example/v1": "open"}


def test_what_an_object_says_is_read_each_time() -> None:
    named = Named()
    backend = as_backend(named)
    named.revision = "def456"
    assert backend.info.revision == "def456"


def test_an_object_that_can_be_closed_is_closed() -> None:
    named = Named()
    as_backend(named).close()
    assert named.closed


@pytest.mark.parametrize("vlm", [Bare(), Own(), Wrapped(Own())], ids=["any object", "a subclass", "one over another"])
def test_a_query_is_asked_unless_a_backend_knows_better(vlm: Bare | Backend) -> None:
    assert as_backend(vlm).put(Query((PICTURE,), ("q", "r"), final=True)) == [[0.5, 0.5]]


def test_a_backend_over_another_hands_it_the_whole_query() -> None:
    class Deciding(Own):
        def put(self, query: Query) -> list[list[float]]:
            return [[float(query.final)]]

    assert Wrapped(Deciding()).put(Query((PICTURE,), ("q",), final=True)) == [[1.0]]


def test_a_backend_is_adapted_once() -> None:
    backend = as_backend(Bare())
    assert as_backend(backend) is backend


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(VlmUnavailable, match=r"has no ask\(images, questions\)"):
        as_backend(object())  # type: ignore[arg-type]
