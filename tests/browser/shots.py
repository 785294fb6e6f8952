"""Take the documentation's screenshots of console and report: ``python -m tests.browser.shots FOLDER``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from dnp_guard.audit import previews
from dnp_guard.cli import run
from tests.browser.seed import seed
from tests.browser.site import NARROW, WIDE, Visit, chromium, site_in

KINDS = {"": ("light", WIDE), "-narrow": ("dark", NARROW)}


def pages(visit) -> dict[str, str]:
    """Return the paths of the console's pages by the names of their screenshots."""
    visit.open("/console?decision=blocked")
    image = visit.page.locator("a.row").nth(2).get_attribute("href")
    visit.open(image)
    return {
        "queue": "/console",
        "image": image,
        "thresholds": "/console/thresholds?category=gore&at=0.7&pictures=1",
        "overview": "/console/overview",
        "changes": "/console/changes",
        "sign-in": "/console/sign-in",
        "appeal": visit.page.get_by_role("link", name="for the person it was made for").get_attribute("href"),
    }


def shoot(browser, site, folder: Path) -> None:
    """Take screenshots of every page of the console: wide with light colours, and narrow with dark ones."""
    for suffix, (scheme, size) in KINDS.items():
        visit = Visit(browser, site, scheme=scheme, size=size)
        for name, path in pages(visit).items():
            page = visit.open(path)
            if name == "image":
                page.locator("details.picture summary").first.click()
                page.locator("details.picture img").first.evaluate("image => image.decode()")
            page.wait_for_load_state("networkidle")
            page.screenshot(path=folder / f"console-{name}{suffix}.png")
        visit.context.close()


def shoot_report(browser, folder: Path) -> None:
    """Take a screenshot of an audit report, as `dnp-guard audit report --out` writes it."""
    with TemporaryDirectory() as name:
        log, page = Path(name) / "audit.jsonl", Path(name) / "report.html"
        seed(log, hostile=False)
        run(["audit", "report", str(log), "--out", str(page)])
        opened = browser.new_context(viewport=WIDE).new_page()
        opened.goto(page.as_uri())
        opened.screenshot(path=folder / "report.png")


def main() -> None:
    """Take all screenshots into the folder that the command line names."""
    with TemporaryDirectory() as name:
        previews.make_key(Path(name) / "picture.key")
        os.environ[previews.KEY_VARIABLE] = str(Path(name) / "picture.key")
        with site_in(Path(name), hostile=False) as site, chromium() as browser:
            shoot(browser, site, Path(sys.argv[1]))
            shoot_report(browser, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
