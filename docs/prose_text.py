"""Take the prose out of Python and Markdown: docstrings, comments, messages, paragraphs."""

from __future__ import annotations

import ast
import io
import re
import textwrap
import tokenize
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DIRECTIVE = re.compile(r"#!|#:|# (?:noqa|type:|mypy:|ruff:|pragma|fmt:|/// |\W*$)")
_SENTENCE = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!vs\.)[)\"'`*]*\s+(?=[\"'`(*\[]*[A-Z0-9]|`)")
_MARK = re.compile(r"^(?:[-*+] |\d+\. |> |:\w+(?: \w+)?: (?=\S))")
_ENTRY = re.compile(r"^[`*]*[\w.*]+(?: \(.*?\))?[`*]*: (?=\S)")
_WORDS_OF_A_MESSAGE = 4


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of prose.

    Attributes:
        line: its first, from 1.
        kind: ``summary`` (the first line of a function's docstring), ``docstring``, ``comment``, ``message`` or
            ``page``.
        text: one paragraph on one line.
    """

    line: int
    kind: str
    text: str

    def sentences(self) -> list[str]:
        """Split the text at the ends of its sentences."""
        return [sentence.strip() for sentence in _SENTENCE.split(self.text) if sentence.strip()]


def passages(path: Path) -> Iterator[Passage]:
    """Yield the prose of a file, by its suffix."""
    text = path.read_text(encoding="utf-8")
    yield from _of_page(text) if path.suffix == ".md" else _of_code(text)


def _of_page(text: str) -> Iterator[Passage]:
    bare = re.sub(r"^( *)(```+|:::+|~~~+).*?^\1\2$", _blank, text, flags=re.MULTILINE | re.DOTALL)
    for line, part in _paragraphs(re.sub(r"<!--.*?-->", _blank, bare, flags=re.DOTALL)):
        if part.startswith("| "):
            yield from (Passage(line, "page", cell.strip()) for cell in part.strip("|").split(" | "))
        elif not part.startswith(("#", "|", "<", "![", "(", "$$")):
            yield Passage(line, "page", part)


def _blank(match: re.Match[str]) -> str:
    return "\n" * match[0].count("\n")


def _paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Yield paragraphs and items of lists, joined into one line, with the number of their first line."""
    held: list[str] = []
    start = 0
    for at, line in enumerate((*text.splitlines(), "")):
        bare = line.strip()
        begins = bool(_MARK.match(bare)) or bare.startswith(("|", "#")) or bool(_ENTRY.match(bare) and _indent(line))
        if held and (not bare or begins):
            yield start, " ".join(held)
            held = []
        if bare:
            if not held:
                start = at + 1
            held.append(_MARK.sub("", bare))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _of_code(text: str) -> Iterator[Passage]:
    tree = ast.parse(text)
    docstrings: set[int] = set()
    for node, constant in _docstrings(tree):
        docstrings.add(id(constant))
        yield from _of_docstring(constant, summary=_is_order(node))
    yield from _comments(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            docstrings.update(id(part) for part in node.values)
            words = "".join(str(part.value) if isinstance(part, ast.Constant) else "{…}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            words = node.value
        else:
            continue
        if len(words.split()) >= _WORDS_OF_A_MESSAGE:
            yield Passage(node.lineno, "message", " ".join(words.split()))


def _docstrings(tree: ast.Module) -> Iterator[tuple[ast.AST | None, ast.Constant]]:
    """Yield docstrings with what they belong to; those of attributes with None."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for at, child in enumerate(body if isinstance(body, list) else ()):
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant) and type(child.value.value) is str:
                first = at == 0 and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                yield node if first else None, child.value


def _is_order(node: ast.AST | None) -> bool:
    """Return whether a docstring belongs to a function that is called, and so should begin with a verb."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    marks = {ast.unparse(mark).rsplit(".", maxsplit=1)[-1] for mark in node.decorator_list}
    return not any("property" in mark or mark == "setter" for mark in marks)


def _of_docstring(constant: ast.Constant, *, summary: bool) -> Iterator[Passage]:
    head, _, rest = str(constant.value).partition("\n")
    text = re.sub(
        r"^ *>>> .*?(?=\n *\n|\Z)", _blank, f"{head}\n{textwrap.dedent(rest)}", flags=re.MULTILINE | re.DOTALL
    )
    for at, (line, part) in enumerate(_paragraphs(text)):
        kind = "summary" if summary and at == 0 else "docstring"
        if not re.fullmatch(r"\w+:", part):
            body = _ENTRY.sub("", part) if at else part
            yield Passage(constant.lineno + line - 1, kind, body[:1].upper() + body[1:])


def _comments(text: str) -> Iterator[Passage]:
    held: list[str] = []
    start = last = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT or _DIRECTIVE.match(token.string):
            continue
        alone = token.line.strip().startswith("#")
        if held and (token.start[0] != last + 1 or not alone):
            yield Passage(start, "comment", " ".join(held))
            held = []
        start = start if held else token.start[0]
        held.append(token.string.lstrip("# ").strip())
        last = token.start[0] if alone else -1
    if held:
        yield Passage(start, "comment", " ".join(held))
