"""Test the web console in a real browser, with ``make browser``; this needs Debian's chromium and playwright."""

from __future__ import annotations

import pytest

from dnp_guard.audit.read.show import Log
from tests.browser.seed import EVIL, HOSTILE
from tests.browser.site import NARROW, PAGES, WIDE, Visit, axe_problems, chromium, site_in


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture
def site(tmp_path):
    with site_in(tmp_path, hostile=True) as served:
        yield served


@pytest.fixture
def visit(browser, site):
    visits = []

    def begin(**how):
        visits.append(Visit(browser, site, **how))
        return visits[-1]

    yield begin
    for visit in visits:
        assert visit.errors == []
        visit.context.close()


def given(site):
    return [(record["verdict"], record["by"]) for record in Log(site.log) if record["event"] == "verdict"]


def test_a_person_filters_opens_unblurs_and_judges_by_keyboard(visit, site):
    at = visit(role="moderator")
    page = at.page
    page.get_by_label("Decision").select_option("blocked")
    page.get_by_role("button", name="Show", exact=True).click()
    assert page.locator(".outcome.steered").count() == 0
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector("#verdict")
    page.keyboard.press("2")
    assert page.get_by_label("a false alarm").is_checked()
    with page.expect_navigation():
        page.keyboard.press("s")
    assert given(site)[-1] == ("false_alarm", "Ann Lee")


def test_a_picture_is_loaded_when_it_is_asked_for(visit):
    at = visit()
    loaded: list[str] = []
    at.page.on("request", lambda request: loaded.append(request.url) if "/picture/" in request.url else None)
    at.open("/console?show=all&category=weapon")
    at.page.locator("a.row").first.click()
    at.page.wait_for_load_state("networkidle")
    before = list(loaded)
    details = at.page.locator("details.picture summary")
    if details.count() == 0:
        pytest.fail("no picture is kept of this image")
    details.first.click()
    at.page.locator("details.picture img").first.evaluate("image => image.decode()")
    assert before == []
    assert len(loaded) == 1


def test_an_appeal_goes_to_and_fro(visit, browser, site):
    at = visit(role="moderator")
    at.open("/console?decision=blocked")
    at.page.locator("a.row").first.click()
    link = at.page.get_by_role("link", name="for the person it was made for").get_attribute("href")
    image = at.page.url
    stranger = browser.new_context()
    page = stranger.new_page()
    page.goto(site.url + link)
    page.get_by_label("Why should the decision be changed?").fill("It is a statue in a museum.")
    page.get_by_role("button", name="Send").click()
    assert "has arrived" in page.content()
    at.page.goto(image)
    at.page.get_by_label("is overturned").check()
    at.page.get_by_role("button", name="Answer").click()
    page.reload()
    assert "is overturned" in page.content()
    stranger.close()


def test_the_threshold_is_moved_over_pictures_and_says_what_would_change(visit):
    at = visit()
    page = at.open("/console/thresholds?category=weapon")
    assert page.locator("img").count() == 0
    page.get_by_label("Show the pictures").check()
    with page.expect_navigation():
        page.get_by_role("button", name="Show the nearest").click()
    for number in range(5):
        page.locator("img.shown").nth(number).evaluate("image => image.decode()")
    before, gone = page.locator("#left").inner_text(), page.locator(".grid .gone").count()
    page.locator("#at").focus()
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    assert page.locator("#at-shown").inner_text() == "0.80"
    assert int(page.locator("#left").inner_text()) > int(before)
    assert page.locator(".grid .gone").count() > gone
    assert page.locator(".grid .gone .effect").first.is_visible()


def test_an_auditor_moves_a_threshold_without_pictures(visit):
    page = visit(role="auditor").open("/console/thresholds?category=weapon&pictures=1")
    assert page.locator("img").count() == 0
    assert page.get_by_label("Show the pictures").count() == 0


def test_changes_and_overview_are_shown(visit):
    at = visit(role="auditor")
    assert "approved by Bob Hall" in at.open("/console/changes").content()
    at.open("/console/overview").locator("select[name=category]").select_option("weapon")
    with at.page.expect_navigation():
        at.page.get_by_role("button", name="Show").click()
    assert "By tenant" in at.page.content()
    assert at.page.locator(".plot rect").count() > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_pages_are_accessible_and_fit(scheme, size, visit):
    at = visit(scheme=scheme, size=size)
    at.open("/console?show=all")
    image = at.page.locator("a.row").first.get_attribute("href")
    appeal = at.open(image).get_by_role("link", name="for the person it was made for").get_attribute("href")
    paths = [*PAGES, "/console/changes", image, appeal, "/console/sign-in"]
    problems = []
    for path in paths:
        at.open(path)
        problems += [f"{path}: {problem}" for problem in axe_problems(at.page)]
    assert problems == []


def test_hostile_text_runs_no_script(visit):
    at = visit()
    image = f"/console/image/{HOSTILE}/0"
    for path in (*PAGES, "/console/changes", f"/console?show=all&request={HOSTILE}", image):
        page = at.open(path)
        page.wait_for_load_state("networkidle")
        assert page.title() != "owned", path
    assert at.page.inner_text("main").count(EVIL) > 3  # as words: what was seen, the policy, a note, an appeal


def test_pages_are_read_without_scripts(browser, site):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.url}/console")
    page.get_by_label("Your token").fill(site.people["moderator"])
    page.get_by_role("button", name="Sign in").click()
    page.locator("a.row").first.click()
    page.get_by_label("a false alarm").check()
    page.get_by_role("button", name="Save").click()
    assert given(site)[-1] == ("false_alarm", "Ann Lee")
    context.close()
