"""Check every page of the built documentation in a browser: ``python -m tests.browser.pages HTML [SHOTS]``.

Every page is opened in a wide and in a narrow window. The command prints pages that scroll sideways, parts that are cut
off, pictures that do not load and internal links that lead nowhere, and exits with 1 if there are any. Screenshots go
to the folder ``SHOTS``.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

from tests.browser.site import NARROW, WIDE, chromium

CUT_OFF = r"""() => {
    const frames = element => {
        for (let up = element.parentElement; up && up.tagName !== 'ARTICLE'; up = up.parentElement)
            if (['auto', 'scroll'].includes(getComputedStyle(up).overflowX)) return true;
        return false;
    };
    const width = document.documentElement.clientWidth;
    return [...document.querySelectorAll('article *')]
        .filter(element => element.getBoundingClientRect().right > width + 1 && !frames(element))
        .filter(element => !['auto', 'scroll'].includes(getComputedStyle(element).overflowX))
        .map(element => [element.tagName.toLowerCase(), element.textContent.trim().replace(/\s+/g, ' ').slice(0, 60)])
        .map(([tag, text]) => `${tag}: ${text}`);
}"""
WIDER = "[document.documentElement, document.querySelector('.content')].some(e => e.scrollWidth > e.clientWidth)"
BROKEN = "[...document.images].filter(image => !image.naturalWidth).map(image => image.getAttribute('src'))"


class Links(HTMLParser):
    """The links and the anchors of an HTML page.

    Args:
        text: the HTML.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        values = dict(attrs)
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        self.anchors.update(values[key] for key in ("id", "name") if values.get(key))


def dead_links(root: Path) -> list[str]:
    """List the internal links of all pages under a folder that lead to a missing page or a missing anchor."""
    pages = {path.resolve(): Links(path.read_text(encoding="utf-8")) for path in root.rglob("*.html")}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            address, anchor = urldefrag(link)
            if "://" in address or address.startswith("mailto:"):
                continue
            target = (path.parent / unquote(address)).resolve() if address else path
            known = pages.get(target)
            if not target.exists() or (known is not None and anchor and unquote(anchor) not in known.anchors):
                dead.append(f"{path.relative_to(root.resolve())}: the link {link} leads nowhere")
    return dead


def problems(page, name: str, width: int) -> list[str]:
    """List the defects of an open page: parts cut off, pictures that do not load, sideways scrolling.

    Args:
        page: playwright's page.
        name: path of the page, for the messages.
        width: width of the window, for the messages.
    """
    wrong = [f"is cut off: {part}" for part in page.evaluate(CUT_OFF)]
    wrong += [f"the picture {source} does not load" for source in page.evaluate(BROKEN)]
    if page.evaluate(WIDER):
        wrong.append("scrolls sideways")
    return [f"{name} at {width}: {problem}" for problem in wrong]


def look(root: Path, shots: Path | None) -> list[str]:
    """Open every page in both widths, and list all defects and dead links; save screenshots if a folder is given."""
    wrong = dead_links(root)
    with chromium() as browser:
        for size in (WIDE, NARROW):
            page = browser.new_context(viewport=size).new_page()
            for path in sorted(root.rglob("*.html")):
                name = path.relative_to(root).as_posix()
                page.goto(path.resolve().as_uri())
                wrong += problems(page, name, size["width"])
                if shots is not None:
                    shot = f"{name.replace('/', '-').removesuffix('.html')}-{size['width']}.png"
                    page.screenshot(path=shots / shot, full_page=size is WIDE)
    return wrong


def main() -> int:
    """Check the pages of the folder that the command line names; return the exit code."""
    root, *shots = map(Path, sys.argv[1:])
    for folder in shots:
        folder.mkdir(parents=True, exist_ok=True)
    wrong = look(root, shots[0] if shots else None)
    lines = wrong or ["nothing is cut off, and every internal link leads somewhere"]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
