from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from dnp_guard.audit.read.changes import changes
from dnp_guard.audit.read.embedded import MOST
from dnp_guard.audit.read.plots import COLOURS, colours_of
from dnp_guard.audit.read.report import document, html, markdown
from dnp_guard.audit.read.summary import Summary, summarise
from dnp_guard.audit.read.verify import Verification
from dnp_guard.audit.record import build

EVIL = "<script>alert(1)</script>|x"
LOADED = build("policy.loaded", policy={"name": EVIL}, loaded={"approver": EVIL, "reason": EVIL})


def summary(name: str = "default") -> Summary:
    policy = {"name": name, "revision": "1", "digest": "d" * 64, "mode": "enforce"}
    finding = {"category": name, "term": "t", "probability": 0.9, "threshold": 0.5}
    common = {"request": "r1", "policy": policy, "image": 0}
    return summarise(
        [
            build("request.started", **common),
            build("query", **common, step=3, findings=[finding], latency_ms=123.4),
            build("negative.injected", **common, findings=[finding]),
            build("query", **common, findings=[finding], latency_ms=130.1),
            build("degraded", **common, reason=f"{name}: x"),
            build("request.finished", **common, decision="blocked"),
        ]
    )


class Tags(HTMLParser):
    """The tags of an HTML page.

    Attributes:
        open: tags that are not closed yet.
        seen: all tags in order.
        wrong: closing tags that do not match the tag opened last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag not in {"meta", "input", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def tags(page: str) -> Tags:
    parser = Tags()
    parser.feed(page)
    return parser


@pytest.mark.parametrize("of", [summary(), Summary()])
def test_the_page_is_well_formed(of: Summary) -> None:
    page_tags = tags(html(of, "audit.jsonl"))
    assert page_tags.wrong == []
    assert page_tags.open == []


def test_the_page_loads_nothing() -> None:
    assert re.findall(r"(?:src|href)=|url\(|@import", html(summary(), "audit.jsonl")) == []


def test_the_page_runs_its_own_script_alone() -> None:
    page = html(summary(EVIL), EVIL, changes=list(changes([LOADED])))
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in page
    assert re.findall(r"<[^>]* on[a-z]+=", page) == []


def test_text_from_the_log_is_never_markup() -> None:
    pages = html(summary(EVIL), EVIL, changes=list(changes([LOADED]))) + markdown(summary(EVIL), EVIL)
    assert "<script>alert" not in pages


@pytest.mark.parametrize("page", [html, markdown])
def test_the_report_lists_what_was_withheld_and_why(page) -> None:  # type: ignore[no-untyped-def]
    text = page(summary(), "audit.jsonl")
    assert "r1/0" in text
    assert "default (t) 0.90 of 0.50" in text


@pytest.mark.parametrize("page", [html, markdown])
def test_the_report_says_who_changed_what(page) -> None:  # type: ignore[no-untyped-def]
    text = page(summary(), "audit.jsonl", changes=list(changes([{**LOADED, "loaded": {"approver": "bob"}}])))
    assert "approved by bob" in text


@pytest.mark.parametrize(("count", "expected"), [(MOST - 1, False), (MOST, True)])
def test_a_page_that_holds_no_more_pictures_says_so(count: int, expected: bool) -> None:
    page = html(summary(), "audit.jsonl", pictures={f"{number}.png": "data:" for number in range(count)})
    assert ("The latest 200 pictures are included." in page) is expected


def test_a_loosening_that_is_no_truth_value_is_left_out() -> None:
    (change,) = changes([{**LOADED, "loaded": {"loosened": []}}])
    assert change.what == "loaded"
    assert change.loosened is None


def test_the_report_has_a_table_of_outcomes_by_day_for_programs() -> None:
    (whole, seen) = document(summary())["by_day"]
    assert whole["category"] == ""
    assert seen["category"] == "default"
    assert seen["outcome"] == "blocked"
    assert seen["images"] == 1


@pytest.mark.parametrize("page", [html, markdown])
@pytest.mark.parametrize("what", ["default 1", "blocked", "dddddddddddd", "100.0 %", "ms", "enforce"])
def test_the_report_says_what_happened(page, what: str) -> None:  # type: ignore[no-untyped-def]
    assert what in page(summary(), "audit.jsonl")


def test_the_plot_has_a_bar_for_each_category() -> None:
    assert "default: 1</title>" in html(summary(), "audit.jsonl")


@pytest.mark.parametrize("page", [html, markdown])
def test_a_log_that_does_not_verify_is_said_to(page) -> None:  # type: ignore[no-untyped-def]
    broken = Verification(ok=False, records=3, problems=(), head_hash="0" * 64)
    assert "does not verify" in page(summary(), "audit.jsonl", broken)


def test_every_markdown_table_has_as_many_cells_in_each_row() -> None:
    tables = re.findall(r"(?:^\|.*\n)+", markdown(summary(EVIL), "audit.jsonl"), flags=re.MULTILINE)
    widths = [{len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()} for table in tables]
    assert len(tables) >= 7
    assert all(len(width) == 1 for width in widths)


def test_an_outcome_has_one_colour_in_every_plot():
    assert colours_of(["clean", "blocked"]) == colours_of(["blocked", "clean"])[::-1]


def test_an_outcome_missed_in_shadow_has_a_tint_of_the_outcomes_colour():
    blocked, missed = colours_of(["blocked", "would be blocked"])
    assert missed == f"{blocked}80"


def test_categories_have_the_colours_in_turn():
    assert colours_of(["gore", "weapon"]) == list(COLOURS[:2])
