"""Every block of the README and the documentation is checked by its language; Python is run by `test_examples`."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from dnp_guard.audit.schema import FIELDS
from dnp_guard.cli import build
from dnp_guard.hosts import protocol
from dnp_guard.policy import parse_policy
from tests.docs.shell import RUN

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if path.name not in {"CHANGELOG.md", "cli.md"} and "_build" not in path.parts  # one is past, the other generated
)
BLOCK = re.compile(
    r"(?P<why><!-- not run: .+ -->\n)?^ *```(?P<language>\S*)(?: [^\n]*)?\n(?P<text>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)
CHECKED = {"python", "console", "sh", "yaml", "json", "toml", "text", "{eval-rst}", "{toctree}", "{include}"}
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
MESSAGE = TypeAdapter(
    protocol.Open
    | protocol.InputsMessage
    | protocol.InputVerdicts
    | protocol.QueryMessage
    | protocol.AnswerMessage
    | protocol.Steer
    | protocol.Verdicts
    | protocol.PolicyInForce
)
COMMANDS = typer.main.get_command(build())


def blocks(page, *languages):
    """Return the code blocks of a page that are in one of these languages."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [match["text"] for match in BLOCK.finditer(text) if match["language"] in languages]


def commands(page):
    """Yield the command lines that a page tells its reader to type, without comments, redirections and pipes."""
    for language in ("console", "sh"):
        for text in blocks(page, language):
            for line in text.replace("\\\n", " ").splitlines():
                typed = line.removeprefix("$ ")
                if language == "sh" or typed != line:
                    yield re.split(r" [|&>]|\s+#", typed.strip())[0]


@pytest.mark.parametrize("page", PAGES)
def test_a_command_of_a_page_is_run_or_says_why_not(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    typed = (match for match in BLOCK.finditer(text) if match["language"] in {"console", "sh"})
    assert page in RUN or [match["text"] for match in typed if not match["why"]] == []


def unknown(words):
    """Return the words of a `dnp-guard` command line that are in the place of a command or option but name none."""
    command, wrong = COMMANDS, []
    for word in words:
        children = getattr(command, "commands", {})
        if word in children:
            command = children[word]
        elif children and not word.startswith("-"):
            wrong.append(word)
        elif word.startswith("--"):
            options = {
                option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
            }
            wrong += {word.partition("=")[0]} - options - {"--help"}
    return wrong


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_is_in_a_language_that_is_checked(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert {match["language"] for match in BLOCK.finditer(text)} <= CHECKED


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_commands_and_options_that_there_are(page):
    lines = [shlex.split(line)[1:] for line in commands(page) if line.startswith("dnp-guard ")]
    assert [words for words in lines if unknown(words)] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_targets_of_make_that_there_are(page):
    typed = [word for line in commands(page) if line.startswith("make ") for word in line.split()[1:]]
    assert [word for word in typed if "=" not in word and word not in TARGETS] == []


@pytest.mark.parametrize("page", PAGES)
def test_the_data_of_a_page_can_be_read(page):
    for text in blocks(page, "yaml"):
        YAML(typ="safe").load(text)
    for text in blocks(page, "json"):
        json.loads(text)
    for text in blocks(page, "toml"):
        tomllib.loads(text)


def test_the_policy_of_the_readme_checks():
    (text,) = blocks("README.md", "yaml")
    assert parse_policy(text.encode(), "README.md").name == "swimwear-shop"


def test_the_record_of_the_readme_has_fields_that_records_have():
    (text,) = blocks("README.md", "json")
    assert set(json.loads(text)) <= {*FIELDS, "v", "seq", "time", "event", "prev", "hash"}


@pytest.mark.parametrize("text", [text for text in blocks("docs/reference/protocol.md", "json") if "iat" not in text])
def test_a_message_on_the_page_of_the_protocol_is_one_of_the_protocol(text):
    assert MESSAGE.validate_json(text)


def test_an_option_that_there_is_not_is_noticed():
    assert unknown(["policy", "check", "--no-such-option"]) == ["--no-such-option"]


def test_a_command_that_there_is_not_is_noticed():
    assert unknown(["policies", "check"])[:1] == ["policies"]
