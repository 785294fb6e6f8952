"""The format of a policy's test file, and its reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from dnp_guard.errors import PolicyError, did_you_mean
from dnp_guard.policy.model.scalars import Identifier, PolicyModel, Scale, Text
from dnp_guard.policy.model.scope import Time  # noqa: TC001 (pydantic reads it when it runs)
from dnp_guard.policy.read.loading import load, read_file
from dnp_guard.policy.read.scan import scan
from dnp_guard.policy.read.validate import read_as
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dnp_guard.errors import Problem
    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.policy.read.document import Document

ENDING = ".test.yaml"
MISSED: Literal["missed"] = "missed"
"""A query without an answer."""

Look = Mapping[str, float] | Literal["missed"]

_OUTCOMES = tuple(str(outcome) for outcome in Outcome)
_PROBABILITIES = {"type": "object", "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1}}


def _look(value: Any) -> Look:
    if value == MISSED:
        return MISSED
    if isinstance(value, Mapping) and all(map(_probability, value.values())):
        return value
    raise PydanticCustomError("look", "Input should be probabilities 0 to 1 by term, or `missed`")


def _probability(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


AnyLook = Annotated[
    Look, PlainValidator(_look), WithJsonSchema({"anyOf": [_PROBABILITIES, {"enum": [MISSED], "type": "string"}]})
]
Decided = Literal["failed_open", "unasked", "clean", "monitored", "steered", "blurred", "blocked", "failed_closed"]
AtTheEnd = Literal["none", "monitor", "steer", "blur", "block"]


class Steering(PolicyModel):
    """The negative prompts that a case expects after its queries, and the action that it expects at the end."""

    negatives: tuple[tuple[Text, ...], ...] | None = Field(
        default=None,
        description="Words injected after a query, one list per query, empty for none. Omitted: not compared.",
        examples=[[[], ["nudity", "exposed breasts"]]],
    )
    scale: Scale | None = Field(
        default=None, description="Highest scale of a negative. Omitted: not compared.", examples=[7.5]
    )
    action: AtTheEnd | None = Field(
        default=None,
        description="Action after the final look, or after the last query if there is none. Omitted: not compared.",
        examples=["block"],
    )


class Expect(Steering):
    """The expected result of a case."""

    decision: Decided = Field(description="Decision about the image.", examples=["steered"])
    waived: tuple[Identifier, ...] | None = Field(
        default=None,
        description="Categories that an `allowed` case excuses in any query. Omitted: not compared.",
        examples=[["nudity"]],
    )
    would: Steering | None = Field(
        default=None,
        description="Result if nothing were in shadow. Omitted: not compared.",
        examples=[{"negatives": [["nudity"]], "action": "block"}],
    )


class Case(PolicyModel):
    """One image: the answers to its queries, or an image file to query, and the expected result."""

    name: Text = Field(description="Claim of the case, as a sentence.", examples=["A bare breast is steered away"])
    looks: tuple[AnyLook, ...] = Field(
        default=(),
        max_length=1_000,
        description="Answers to the queries during denoising: per query, the probabilities by term or allowed case, 0 "
        "for one left out; or `missed` for a query without an answer.",
        examples=[[{"exposed breasts": 0.5}, "missed"]],
    )
    final: AnyLook | None = Field(
        default=None,
        description="The same for the finished image. Omitted: nothing is found in it.",
        examples=[{"exposed breasts": 0.2}],
    )
    image: Text | None = Field(
        default=None,
        description="Image file beside this one, in place of `looks` and `final`: it is queried once as a preview and "
        "once as the finished image.",
        examples=["star.png"],
    )
    vlm: Text | None = Field(default=None, description="Backend that queries `image`.", examples=["glyphs"])
    at: Time | None = Field(
        default=None,
        description="Time, in UTC, at which the policy's `exceptions` apply. Omitted: no exception applies.",
        examples=["2026-12-24T00:00:00Z"],
    )
    tenant: Text | None = Field(
        default=None, description="With `at`: tenant whose exceptions apply.", examples=["acme"]
    )
    expect: Expect = Field(description="Expected result of the case.", examples=[{"decision": "clean"}])


class TestFile(PolicyModel):
    """A file of test cases for one policy: each has answers or pictures, and the decision that they should lead to."""

    __test__ = False  # pytest must not collect it

    format: Literal[1] = Field(description="Version of the format of test files.", examples=[1])
    policy: Text = Field(description="Policy under test, relative to this file's folder.", examples=["../default.yaml"])
    cases: tuple[Case, ...] = Field(
        min_length=1,
        max_length=10_000,
        description="The cases.",
        examples=[[{"name": "Nothing is seen", "expect": {"decision": "clean"}}]],
    )


@dataclass(frozen=True, slots=True)
class PolicyTests:
    """A test file and its policy.

    Attributes:
        file: path of the test file, as given.
        policy: the policy under test.
        cases: the cases.
        lines: line where each case begins.
        source: path of the policy.
    """

    file: str
    policy: Policy
    cases: tuple[Case, ...]
    lines: tuple[int, ...]
    source: str


def load_tests(path: str | Path, policy: Policy | None = None) -> PolicyTests:
    """Read a test file and the policy that it names.

    Args:
        path: path of a file that ends in ``.test.yaml``.
        policy: policy to test in place of the one that the file names.

    Raises:
        PolicyError: the file or the policy is invalid; carries all problems.
    """
    document = scan(read_file(Path(path), str(path)), str(path))
    tests = read_as(TestFile, document)
    source = Path(path).parent / tests.policy
    if policy is None:
        policy = load(source).policy
    if problems := [*_unknown_terms(document, tests, policy), *_halves(document, tests)]:
        raise PolicyError(problems)
    lines = tuple(document.place(("cases", index)).line for index in range(len(tests.cases)))
    return PolicyTests(str(path), policy, tests.cases, lines, str(source))


def _unknown_terms(document: Document, tests: TestFile, policy: Policy) -> Iterator[Problem]:
    known = [term for category in policy.categories for term in (*category.terms, *category.cases)]
    for index, case in enumerate(tests.cases):
        ways = [(("cases", index, "looks", number), look) for number, look in enumerate(case.looks)]
        for way, look in [*ways, (("cases", index, "final"), case.final or {})]:
            for term in look if isinstance(look, Mapping) else ():
                if term not in known:
                    message = f"`{term}` is neither a term nor an allowed case of policy `{policy.name}`"
                    yield document.problem((*way, term), "unknown-term", message, did_you_mean(term, known), key=True)


def _halves(document: Document, tests: TestFile) -> Iterator[Problem]:
    for index, case in enumerate(tests.cases):
        loc = ("cases", index)
        if (case.image is None) != (case.vlm is None):
            yield document.problem(loc, "missing-key", "`image` and `vlm` go together", "Give both, or neither.")
        elif case.image is not None and (case.looks or case.final is not None):
            yield document.problem(
                loc, "image-and-looks", "a case has either `image`, or `looks` and `final`", "Choose one."
            )
