from __future__ import annotations

import pytest

HEAD = "format: 1\nname: example\n"


def category(text, more=""):
    return f"{HEAD}{more}categories:\n  - {{{text}}}\n"


BROKEN = {
    "a category steers without words": ("steer-without-negative", category("id: a")),
    "a rule steers without words": (
        "steer-without-negative",
        category("id: a, action: monitor", "rules: [{all: [a], action: steer}]\n"),
    ),
    "critical is compared with the input": (
        "input-not-permitted",
        category("id: a, negative: [a], severity: critical, more_than_input: 0.2"),
    ),
    "sensitive is compared with the input": (
        "input-not-permitted",
        category("id: a, sensitive: true, more_than_input: 0.2"),
    ),
    "an input is compared with and not asked about": (
        "inputs-unasked",
        category("id: a, negative: [a], more_than_input: 0.2", "inputs: {query: false}\n"),
    ),
    "an input is blocked and not asked about": (
        "inputs-unasked",
        category("id: a, negative: [a]", "inputs: {query: false, action: block}\n"),
    ),
    "noise levels rise": ("sigma-order", category("id: a, negative: [a]", "queries: {sigmas: [0.5, 0.9]}\n")),
    "a rule names no category": (
        "unknown-category",
        category("id: a, negative: [a]", "rules: [{all: [b], action: block}]\n"),
    ),
    "a rule names one twice": (
        "duplicate-term",
        category("id: a, negative: [a]", "rules: [{all: [a, a], action: block}]\n"),
    ),
    "an id is there twice": (
        "duplicate-category",
        category("id: a, negative: [a]}\n  - {id: a, negative: [b]"),
    ),
    "critical only blurs": (
        "critical-must-block",
        category("id: a, negative: [a], severity: critical, still_present: blur"),
    ),
    "critical without a final look": (
        "critical-must-block",
        category("id: a, negative: [a], severity: critical", "queries: {final: false}\n"),
    ),
    "still_present without a final look": (
        "still-present-without-final",
        category("id: a, negative: [a], still_present: blur", "queries: {final: false}\n"),
    ),
    "scale in replace": (
        "replace-with-scale",
        category("id: a, negative: [a]", "guidance: {mode: replace, scale: 3}\n"),
    ),
    "strength in replace": (
        "replace-with-scale",
        category("id: a, negative: [a]", "guidance: {mode: replace, strength: constant}\n"),
    ),
    "a category's scale in replace": (
        "replace-with-scale",
        category("id: a, negative: [a], guidance: {scale: 3}", "guidance: {mode: replace}\n"),
    ),
    "attention beside separate": (
        "attention-without-mode",
        category("id: a, negative: [a]", "guidance: {attention: {phi: 3}}\n"),
    ),
    "scale in attention": (
        "attention-with-branch",
        category("id: a, negative: [a]", "guidance: {mode: attention, scale: 3}\n"),
    ),
    "escalate beside separate": (
        "attention-without-mode",
        category("id: a, negative: [a]", "guidance: {escalate: 1}\n"),
    ),
    "batched in attention that escalates": (
        "attention-with-branch",
        category("id: a, negative: [a]", "guidance: {mode: attention, escalate: 1, batched: true}\n"),
    ),
    "mask in attention": (
        "attention-with-branch",
        category("id: a, negative: [a]", "guidance: {mode: attention, mask: 0.5}\n"),
    ),
    "a category's scale in attention": (
        "attention-with-branch",
        category("id: a, negative: [a], guidance: {scale: 3}", "guidance: {mode: attention}\n"),
    ),
    "critical is excused": (
        "allowed-not-permitted",
        category("id: a, negative: [a], severity: critical, allowed: [x]"),
    ),
    "sensitive is excused": ("allowed-not-permitted", category("id: a, sensitive: true, allowed: [x]")),
    "sensitive steers": ("sensitive", category("id: a, negative: [a], sensitive: true, action: steer")),
    "sensitive only blurs at the end": ("sensitive", category("id: a, sensitive: true, still_present: blur")),
    "sensitive fails open": ("sensitive", category("id: a, sensitive: true", "on_failure: open\n")),
    "sensitive in a shadow policy": ("sensitive", category("id: a, sensitive: true", "mode: shadow\n")),
    "sensitive in shadow": ("sensitive", category("id: a, sensitive: true, mode: shadow")),
    "sensitive with plain prompts": ("sensitive", category("id: a, sensitive: true", "audit: {prompt: plain}\n")),
    "sensitive without a final look": ("sensitive", category("id: a, sensitive: true", "queries: {final: false}\n")),
    "steps fall": ("step-order", category("id: a, negative: [a]", "queries: {steps: [0.5, 0.4]}\n")),
    "a step is there twice": ("step-order", category("id: a, negative: [a]", "queries: {steps: [0.5, 0.5]}\n")),
    "a fraction is over 1": ("step-out-of-range", category("id: a, negative: [a]", "queries: {steps: [0.5, 5]}\n")),
    "a whole step is not whole": (
        "step-out-of-range",
        category("id: a, negative: [a]", "queries: {steps: [5.5], of: 50}\n"),
    ),
    "a whole step is past the end": (
        "step-out-of-range",
        category("id: a, negative: [a]", "queries: {steps: [50], of: 50}\n"),
    ),
    "nothing is ever looked at": (
        "never-looks",
        category("id: a, negative: [a]", "queries: {steps: [], final: false}\n"),
    ),
    "rests without a final look": (
        "skip-without-final",
        category("id: a, negative: [a]", "queries: {final: false, back_off: {factor: 3, below: 0.2}}\n"),
    ),
    "a budget without a final look": (
        "skip-without-final",
        category("id: a, negative: [a]", "queries: {final: false, budget_ms: 100}\n"),
    ),
    "template: another's placeholder": (
        "unknown-placeholder",
        category("id: a, negative: [a]", "question: {template: 'Is ${term} ${prompt}?'}\n"),
    ),
    "template: a dollar sign": (
        "unknown-placeholder",
        category("id: a, negative: [a]", "question: {template: '${term} for $term?'}\n"),
    ),
    "template: no placeholder": (
        "missing-placeholder",
        category("id: a, negative: [a]", "question: {template: 'Is it bad?'}\n"),
    ),
    "allowed_template: another's placeholder": (
        "unknown-placeholder",
        category("id: a, negative: [a]", "question: {allowed_template: 'Is it ${allowed} ${term}?'}\n"),
    ),
    "negative: another's placeholder": ("unknown-placeholder", category("id: a, negative: ['${term}']")),
    "look_for: a placeholder": ("unknown-placeholder", category("id: a, negative: [a], look_for: ['${term}']")),
    "look_for: a term twice": ("duplicate-term", category("id: a, negative: [a], look_for: [x, y, x]")),
}


@pytest.mark.parametrize(("code", "text"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_rule_is_reported_alone_in_the_file(the_problem, code, text):
    problem = the_problem(text)
    assert problem.code == code
    assert problem.line >= 3
    assert problem.hint


@pytest.mark.parametrize(
    ("guidance", "message", "hint"),
    [
        ("scale: 3", "`mode: attention` without `escalate`", "Leave it out, add `escalate`, or use `mode: auto`"),
        ("mask: 0.5", "`mode: attention` without `escalate`", "Leave it out, add `escalate`, or use `mode: auto`"),
        ("batched: true", "`mode: attention`", "Leave it out, or use `mode: auto`"),
    ],
)
def test_keys_without_meaning_in_attention_are_reported_with_the_remedy(the_problem, guidance, message, hint):
    problem = the_problem(category("id: a, negative: [a]", f"guidance: {{mode: attention, {guidance}}}\n"))
    assert problem.message.endswith(f" has no meaning in {message}.")
    assert problem.hint.startswith(hint)


KEPT = {
    "block needs no words": category("id: a, action: block"),
    "blur needs no words": category("id: a, action: blur"),
    "monitor needs no words": category("id: a, action: monitor, still_present: monitor"),
    "sensitive needs only its name": category("id: a, sensitive: true"),
    "critical steers and blocks": category("id: a, negative: [a], severity: critical, still_present: block"),
    "without a final look nothing is said of it": category("id: a, negative: [a]", "queries: {final: false}\n"),
    "looking only at the end": category("id: a, negative: [a]", "queries: {steps: []}\n"),
    "replace": category("id: a, negative: [a]", "guidance: {mode: replace}\n"),
    "whole steps": category("id: a, negative: [a]", "queries: {steps: [0, 5, 49], of: 50}\n"),
    "the ends of a run": category("id: a, negative: [a]", "queries: {steps: [0, 1]}\n"),
    "a written dollar sign": category("id: a, negative: ['$$100 note']"),
    "a rule steers with the words of one": category(
        "id: a, action: monitor}\n  - {id: b, negative: [b]", "rules: [{all: [a, b], action: steer}]\n"
    ),
    "other categories in shadow": category("id: a, negative: [a], mode: shadow"),
}


@pytest.mark.parametrize("text", KEPT.values(), ids=list(KEPT))
def test_a_policy_that_keeps_the_rules_is_accepted(parse, text):
    assert parse(text).category("a").id == "a"


def test_a_categorys_own_steps_follow_the_same_rules(problems):
    text = "format: 1\nname: a\ncategories:\n  - {id: a, negative: [a], queries: {steps: [0.5, 0.2]}}\n"
    assert problems(text) == [(4, 51, "step-order")]


def test_a_categorys_own_steps_need_the_final_look(problems):
    text = "format: 1\nname: a\nqueries: {final: false}\n"
    text += "categories:\n  - {id: a, negative: [a], queries: {steps: [0.5]}}\n"
    assert problems(text) == [(5, 37, "own-steps-without-final")]
