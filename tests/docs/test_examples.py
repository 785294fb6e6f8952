"""Every Python example of the README and the documentation is run, page by page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    if "```python" in path.read_text(encoding="utf-8") and path.name != "tutorial.md"  # run by test_tutorial
)
NOT_RUN = re.compile(r"<!-- not run: .+ -->\n```python\n")
"""An example that cannot run says why just before it."""

EXCUSED = {"docs/how-to/attach.md": 1, "docs/how-to/kdiffusion.md": 1}
"""How many examples a page may have that are not run; a new one has to be written down here too."""


def runnable(document: str) -> str:
    return NOT_RUN.sub("```not-run\n", document)


@pytest.mark.models
@pytest.mark.parametrize("page", PAGES)
def test_the_python_examples_of_a_page_run(page, tmp_path, monkeypatch):
    text = runnable((ROOT / page).read_text(encoding="utf-8"))
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    document = Sybil([PythonCodeBlockParser()]).parse(tmp_path / "page.md")
    examples = list(document.examples())
    assert len(examples) == text.count("```python\n")
    for example in examples:
        example.evaluate()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_all_but_the_examples_it_is_excused(page):
    assert len(NOT_RUN.findall((ROOT / page).read_text(encoding="utf-8"))) == EXCUSED.get(page, 0)


def test_a_page_on_adding_something_has_an_example_that_is_run():
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "contributing").glob("*.md")}
    assert pages - set(PAGES) == {"docs/contributing/index.md"}


def test_an_example_that_fails_fails_its_page(tmp_path):
    (tmp_path / "page.md").write_text("```python\nassert 1 == 2\n```\n", encoding="utf-8")
    (example,) = Sybil([PythonCodeBlockParser()]).parse(tmp_path / "page.md").examples()
    with pytest.raises(AssertionError):
        example.evaluate()


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md"))]
)
def test_a_relative_link_leads_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    missing = [target for target in targets if not ((ROOT / page).parent / target).exists()]
    assert missing == []
