"""Check the prose of code and pages for the patterns that a machine can find: ``python -m docs.prose``.

- ``python -m docs.prose`` checks the places in `EVERYWHERE`, as ``make lint`` does; it ends with 1 on a finding.
- ``python -m docs.prose dnp_guard/vlm docs/tutorial.md`` checks the named places only.
- ``python -m docs.prose --count [PLACE…]`` prints how often each directory breaks each rule.
- ``python -m docs.prose --metrics`` prints the figures of `docs.prose_metrics`.

A sentence that must stay as it is goes into `EXCUSED` with the reason.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from docs import prose_metrics
from docs.prose_text import Passage, passages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT: Final = Path(__file__).parents[1]
EVERYWHERE: Final = ("dnp_guard", "integrations", "docs", "tests", "README.md", "SECURITY.md", "CONTRIBUTING.md")
"""Directories and files that ``make lint`` holds to the rules."""

EXCUSED: Final = {
    "`AltDiffusionImg2ImgPipeline`, `AltDiffusionPipeline`": "a list of names",
    "`euler`, `euler_cfg_pp`": "a list of names",
    'ith Service("http': "a block of code",
}
"""Parts of sentences that stay as they are, and why."""

MOST_WORDS: Final = 45
NOUNLESS: Final = frozenset({"each", "said", "told", "wanted"})
"""Names that say nothing: a variable is a ``query``, a ``finding``, a ``reason``."""

_UNIT = (
    "(?:attempt|batch|call|category|chunk|column|command|connection|day|directory|entry|evaluation|event|file|frame|"
    "generation|head|host|hour|image|item|key|label|layer|line|look|method|metric|minute|model|module|month|"
    "operation|page|picture|pixel|policy|process|prompt|query|question|record|request|row|run|second|seed|segment|"
    "session|side|step|tenant|term|test|thread|token|week|worker|year)"
)
_CLAUSE = r"(?! (?:chance|had|has|is|may|must|need|of|that|was|which|\w+ed)\b)"
_LINK = r"(?!(?:and|as|for|if|in|is|of|on|than|that|to|when|where|which|with)\b)"

PHRASES: Final = {
    "headless": re.compile(r"^(?:What\b(?!.*\?)|That (?:it|they|there|is|was)\b)"),
    "per": re.compile(
        rf"\b(?:once|one|several|times|twice|(?:one|two|three|four|\d+) {_LINK}[\w-]+) an? {_UNIT}\b{_CLAUSE}",
        re.IGNORECASE,
    ),
    "distributive": re.compile(rf"\b(?<!such )an? {_LINK}[\w-]+ an? {_UNIT}\b{_CLAUSE}", re.IGNORECASE),
    "each": re.compile(r"\beach(?=[.;:)]|,? and\b|$)"),
    "counts": re.compile(r"(?<!and )(?<!the )\bcounts(?=[.,;]|$| (?:where|when|only|if|until|too|alone|most)\b)"),
}
ADVICE: Final = {
    "headless": "start with a verb or a noun, not with a 'what' or 'that' of no noun",
    "per": "write rates with 'per': 'once per call'",
    "distributive": "write 'one … per …', in place of 'a … a …'",
    "each": "say whose: 'every image has one of its own', in place of 'one each'",
    "counts": "write 'applies', 'weighs' or 'is used'",
    "verb": "start the docstring of a function with a verb: 'Return …'",
    "long": f"a sentence of more than {MOST_WORDS} words is two",
    "name": "name the variable with a noun",
}
_NO_VERB = re.compile(
    r"^(?:What|That|Whether|How|Why|Where|When|Who|Which|The|An?|Its|It|Every|Each|All|One|Those|These|None|Of|As|In|"
    r"Fraction|Ids|Names|Number|Path|Pixels|Probability|Ratio|Seconds|SHA-256|Text|x0)\b"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A place where a rule is broken.

    Attributes:
        path: of the file, from the root of the project.
        line: in the file, from 1.
        rule: a key of `ADVICE`.
        text: the sentence, or the name.
    """

    path: str
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        """Show the finding as compilers do."""
        return f"{self.path}:{self.line}: {self.rule}: {self.text[:160]} ({ADVICE[self.rule]})"


def rules_broken(passage: Passage) -> Iterator[tuple[str, str]]:
    """Yield the rules that a passage breaks, each with the sentence that breaks it."""
    for at, sentence in enumerate(passage.sentences()):
        if any(part in sentence for part in EXCUSED):
            continue
        for rule, pattern in PHRASES.items():
            if pattern.search(sentence):
                yield rule, sentence
        if passage.kind == "summary" and at == 0 and _NO_VERB.match(sentence):
            yield "verb", sentence
        if passage.kind != "message" and len(sentence.split()) > MOST_WORDS:
            yield "long", sentence


def check(path: Path) -> Iterator[Finding]:
    """Yield the findings of one file."""
    name = path.relative_to(ROOT).as_posix()
    for passage in passages(path):
        if passage.kind == "message" and name.startswith("tests/"):
            continue  # a test's texts are its data
        for rule, sentence in rules_broken(passage):
            yield Finding(name, passage.line, rule, sentence)
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in NOUNLESS:
                yield Finding(name, node.lineno, "name", node.id)


def files(places: Iterable[str]) -> Iterator[Path]:
    """Yield the Python and Markdown files of directories, and files as they are."""
    for place in places:
        path = ROOT / place
        paths = sorted(path.rglob("*")) if path.is_dir() else [path] if path.exists() else []
        yield from (
            file for file in paths if file.suffix in {".py", ".md"} and not {"_build", "templates"} & {*file.parts}
        )


def table(findings: Iterable[Finding]) -> str:
    """Return how often each directory breaks each rule, as lines of text."""
    counts = Counter(
        (place, finding.rule) for finding in findings for place in (finding.path.rpartition("/")[0] or ".", "~ all")
    )
    places = sorted({place for place, _ in counts})
    width = max(map(len, places), default=0)
    rows = [[f"{place:{width}}", *(f"{counts[place, rule]:>12}" for rule in ADVICE)] for place in places]
    return "\n".join(" ".join(row) for row in ([" " * width, *(f"{rule:>12}" for rule in ADVICE)], *rows))


def main() -> int:
    """Check, count or measure, as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m docs.prose", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("places", nargs="*", help="directories and files to check in place of all")
    parser.add_argument("--count", action="store_true", help="print how often each directory breaks each rule")
    parser.add_argument("--metrics", action="store_true", help="print the figures that the prose is followed by")
    asked = parser.parse_args()
    if asked.metrics:
        print(prose_metrics.metrics(ROOT))
        return 0
    places = asked.places or EVERYWHERE
    findings = [finding for path in files(places) for finding in check(path)]
    if asked.count:
        print(table(findings))
        return 0
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
