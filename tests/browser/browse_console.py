"""The console in a real browser: ``make browser`` runs this, where Debian's chromium and playwright are."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from dnp_guard.audit.read.show import Log
from dnp_guard.server import tokens
from tests.browser.seed import EVIL, seed
from tests.server.processes import serving

SHOTS = os.environ.get("DNP_GUARD_SHOTS")
"""A folder for screenshots of every page; none are taken where it is not set."""

WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Site:
    """A service with the console, and the tokens of its people."""

    def __init__(self, url: str, log: Path, people: dict[str, str]) -> None:
        self.url, self.log, self.people = url, log, people


@pytest.fixture
def site(tmp_path):
    log, file = tmp_path / "audit.jsonl", tmp_path / "tokens.json"
    seed(log)
    (tmp_path / "looks.json").write_text("{}")
    people = {role: tokens.add(file, name=role, role=role) for role in ("moderator", "policy_owner", "auditor")}
    options = ["--policy", "glyphs", "--vlm", f"scripted:{tmp_path / 'looks.json'}", "--audit", log]
    with serving(*options, "--token-file", file, "--console") as service:
        yield Site(service.url, log, people)


class Visit:
    """One person's browser; an error on a page fails the test."""

    def __init__(self, browser, site, *, role="policy_owner", scheme="light", size=WIDE) -> None:
        self.site = site
        self.context = browser.new_context(color_scheme=scheme, viewport=size)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"{site.url}/console")
        self.page.get_by_label("Your token").fill(site.people[role])
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_selector("table.queue")

    def open(self, path: str):
        self.page.goto(f"{self.site.url}{path}")
        return self.page

    def shot(self, name: str) -> None:
        if SHOTS is not None:
            self.page.screenshot(path=Path(SHOTS) / f"console-{name}.png", full_page=False)

    def problems(self) -> list[str]:
        found = Axe().run(self.page).response["violations"]
        return [f"{each['id']}: {each['nodes'][0]['html'][:120]}" for each in found]


@pytest.fixture
def visit(browser, site):
    visits = []

    def begin(**how):
        visits.append(Visit(browser, site, **how))
        return visits[-1]

    yield begin
    for each in visits:
        assert each.errors == []
        each.context.close()


def test_a_person_filters_opens_unblurs_and_judges_by_keyboard(visit, site):
    at = visit(role="moderator")
    page = at.page
    at.shot("queue")
    page.get_by_label("Decision").select_option("blocked")
    page.get_by_role("button", name="Show", exact=True).click()
    assert page.locator(".outcome.steered").count() == 0
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector("#verdict")
    at.shot("image")
    page.keyboard.press("2")
    assert page.get_by_label("a false alarm").is_checked()
    with page.expect_navigation():
        page.keyboard.press("s")
    assert [record["verdict"] for record in Log(site.log) if record["event"] == "verdict"] == ["false_alarm"]


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
    at.page.wait_for_function("document.querySelector('details.picture img').naturalWidth > 0")
    assert (before, len(loaded)) == ([], 1)


def test_an_appeal_goes_to_and_fro(visit, browser, site):
    at = visit(role="moderator")
    at.open("/console?decision=blocked")
    at.page.locator("a.row").first.click()
    link = at.page.get_by_role("link", name="for the person whom it was made for").get_attribute("href")
    image = at.page.url
    stranger = browser.new_context()
    page = stranger.new_page()
    page.goto(site.url + link)
    page.get_by_label("Why should the decision be another?").fill("It is a statue in a museum.")
    if SHOTS is not None:
        page.screenshot(path=Path(SHOTS) / "console-appeal.png")
    page.get_by_role("button", name="Send").click()
    assert "has arrived" in page.content()
    at.page.goto(image)
    at.page.get_by_label("is overturned").check()
    at.page.get_by_role("button", name="Answer").click()
    page.reload()
    assert "is overturned" in page.content()
    stranger.close()


def test_the_threshold_is_moved_and_says_what_would_change(visit):
    at = visit()
    page = at.open("/console/thresholds?category=weapon")
    before = page.locator("#left").inner_text()
    page.locator("#at").evaluate("(slider) => { slider.value = 0.9; slider.dispatchEvent(new Event('input')); }")
    at.shot("thresholds")
    assert int(page.locator("#left").inner_text()) > int(before)
    assert page.locator("#at-shown").inner_text() == "0.90"


def test_changes_and_overview_are_shown(visit):
    at = visit(role="auditor")
    assert "approved by bob" in at.open("/console/changes").content()
    at.shot("changes")
    assert "Images by day" in at.open("/console/overview").content()
    at.shot("overview")


PAGES = ("/console?show=all", "/console/overview", "/console/thresholds", "/console/changes")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_pages_are_accessible_and_fit(scheme, size, visit):
    at = visit(scheme=scheme, size=size)
    at.open("/console?show=all")
    paths = [*PAGES, at.page.locator("a.row").first.get_attribute("href")]
    problems = []
    for path in paths:
        page = at.open(path)
        problems += [f"{path}: {problem}" for problem in at.problems()]
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            problems.append(f"{path}: wider than the window")
        if scheme == "dark" and size is NARROW:
            at.shot(f"narrow-{paths.index(path)}")
    assert problems == []


def test_hostile_text_runs_no_script(visit):
    at = visit()
    for path in (*PAGES, "/console?show=all&request=" + "e" * 32, "/console/image/" + "e" * 32 + "/0"):
        page = at.open(path)
        page.wait_for_load_state("networkidle")
        assert page.title() != "owned", path
    assert EVIL in at.page.inner_text("main")


def test_pages_are_read_without_scripts(browser, site):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.url}/console")
    page.get_by_label("Your token").fill(site.people["moderator"])
    page.get_by_role("button", name="Sign in").click()
    page.locator("a.row").first.click()
    page.get_by_label("a false alarm").check()
    page.get_by_role("button", name="Save").click()
    assert [record["verdict"] for record in Log(site.log) if record["event"] == "verdict"] == ["false_alarm"]
    context.close()
