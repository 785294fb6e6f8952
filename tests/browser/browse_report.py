"""Test the audit report in a real browser: its list can be searched and filtered, and hostile text runs no script."""

from __future__ import annotations

import pytest

from dnp_guard.cli import run
from tests.browser.seed import seed
from tests.browser.site import NARROW, WIDE, axe_problems, chromium


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    seed(folder / "audit.jsonl", hostile=True)
    run(["audit", "report", str(folder / "audit.jsonl"), "--pictures", "--out", str(folder / "report.html")])
    return (folder / "report.html").as_uri()


@pytest.fixture
def page(browser, report):
    context = browser.new_context()
    page = context.new_page()
    page.goto(report)
    yield page
    context.close()


def shown(page):
    return page.locator("#withheld tbody tr:visible").count()


def test_the_list_is_searched(page):
    whole = shown(page)
    page.get_by_label("Search").fill("weapon globex")
    none = shown(page)
    page.get_by_label("Search").fill("weapon acme")
    assert none == 0
    assert 0 < shown(page) < whole
    assert page.locator("#shown").inner_text() == str(shown(page))


def test_the_list_is_filtered_by_outcome(page):
    page.locator("#outcome").select_option("would be blocked")
    assert set(page.locator("#withheld tbody tr:visible td:nth-child(3)").all_inner_texts()) == {"would be blocked"}


def test_a_picture_is_shown_when_it_is_asked_for(page):
    picture = page.locator("#withheld img").first
    before = picture.is_visible()
    page.locator("#withheld summary").first.click()
    assert not before
    assert picture.is_visible()


def test_hostile_text_runs_no_script(page):
    assert page.title() == "Guard report: audit.jsonl"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_the_page_is_accessible_and_fits(scheme, size, browser, report):
    context = browser.new_context(color_scheme=scheme, viewport=size)
    page = context.new_page()
    page.goto(report)
    assert axe_problems(page) == []
    context.close()
