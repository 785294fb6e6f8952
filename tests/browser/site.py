"""Run a guard service with its web console, and visit it in a browser as one of its users."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from dnp_guard.server import tokens
from tests.browser.seed import seed
from tests.server.processes import serving

if TYPE_CHECKING:
    from pathlib import Path

WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
PEOPLE = {"moderator": "Ann Lee", "policy_owner": "Olga Ruiz", "auditor": "Ines Costa"}
PAGES = ("/console?show=all", "/console/overview", "/console/thresholds", "/console/thresholds?pictures=1")


class Site:
    """A running service with the console.

    Args:
        url: address of the service.
        log: path of its audit log.
        people: the users' sign-in tokens by role.
    """

    def __init__(self, url: str, log: Path, people: dict[str, str]) -> None:
        self.url, self.log, self.people = url, log, people


@contextmanager
def site_in(folder: Path, *, hostile: bool):
    """Run a service whose console shows the log of :func:`seed`, in a folder; yield the site."""
    log, file = folder / "audit.jsonl", folder / "tokens.json"
    seed(log, hostile=hostile)
    (folder / "looks.json").write_text("{}")
    people = {role: tokens.add(file, name=name, role=role) for role, name in PEOPLE.items()}
    options = ["--policy", "glyphs", "--vlm", f"scripted:{folder / 'looks.json'}", "--audit", log]
    with serving(*options, "--token-file", file, "--console") as service:
        yield Site(service.url, log, people)


@contextmanager
def chromium():
    """Run Debian's chromium, or the one that the variable `CHROMIUM` names; yield playwright's browser."""
    path = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A browser session of one user, who is signed in to the console.

    Attributes:
        page: playwright's page.
        errors: errors of scripts and of the browser's console on the pages so far.
    """

    def __init__(self, browser, site, *, role="policy_owner", scheme="light", size=WIDE) -> None:
        self.site = site
        self.context = browser.new_context(color_scheme=scheme, viewport=size)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.goto(f"{site.url}/console/sign-in")
        self.page.get_by_label("Your token").fill(site.people[role])
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_selector("table.cards")

    def open(self, path: str):
        self.page.goto(f"{self.site.url}{path}")
        return self.page


def axe_problems(page) -> list[str]:
    """List the accessibility problems that axe finds, and whether the page is wider than the window."""
    violations = Axe().run(page).response["violations"]
    problems = [f"{violation['id']}: {violation['nodes'][0]['html'][:120]}" for violation in violations]
    if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
        problems.append("wider than the window")
    return problems
