"""The policy that ``policy init`` writes: commented, valid, and with tests that cover all of it."""

from __future__ import annotations

from string import Template

POLICY = Template("""\
# yaml-language-server: $$schema=schema/policy.v1.json
#
# A policy says what to look for in an image during its generation, and what to do about it. Edit it, then run
#   dnp-guard policy check $file
#   dnp-guard policy test $file
format: 1
name: $name
revision: "0.1.0"
summary: Says in one line what this policy is for.

# `shadow` records what the policy would do, and changes no image. Write `enforce` when the record looks right.
mode: shadow

# If the guard cannot do its job: closed (withhold the image), open (pass it), last (apply the last decision).
on_failure: closed

queries:
  # When to query, as fractions of the run. Early queries steer best; late ones see best.
  steps: [0.10, 0.12, 0.14, 0.18, 0.24, 0.32, 0.42, 0.54, 0.68, 0.84]
  final: true                   # also query the finished image

guidance:
  scale: 15                     # how strongly a negative pushes; weighted by severity
  hold: 2                       # it stays for this many queries that no longer find its category

categories:
  - id: weapons
    title: Weapons
    # The definition is part of every question. Write it so that two people would agree.
    definition: Firearms and other things made to hurt people.
    # One question per term.
    look_for: [a firearm, a knife held as a weapon]
    # Cases that excuse a term. The model is asked about them only after the term was found.
    allowed:
      a firearm: [a museum piece]
      a knife held as a weapon: [a museum piece, a kitchen scene]
    # The only words that may be injected; $${found} is replaced by the terms found.
    negative: [weapon, "$${found}"]
    threshold: 0.5              # how sure the model must be
    allowed_threshold: 0.8      # how sure it must be of an excuse
    severity: medium            # low | medium | high | critical
    action: steer               # monitor | steer | blur | block
    still_present: block        # if the finished image still shows it
""")

TESTS = Template("""\
# yaml-language-server: $$schema=../schema/policy-test.v1.json
#
# What the policy must do. `looks` has the probabilities that a model might answer per query, 0 for a term left out.
format: 1
policy: ../$file
cases:
  - name: Nothing is seen, and nothing happens
    looks: [{}, {}]
    expect: {decision: clean, negatives: [[], []], action: none}

  # `would` is the result once the policy says `mode: enforce`; then move it up beside `decision`.
  - name: A firearm would be steered away from the threshold on, not under it
    looks: [{a firearm: 0.49}, {a firearm: 0.5}]
    final: {a firearm: 0.49}
    expect:
      decision: clean
      would: {negatives: [[], [weapon, a firearm]], scale: 7.5, action: none}

  - name: A firearm in the finished image would be blocked
    looks: [{}]
    final: {a firearm: 0.5}
    expect: {decision: clean, would: {action: block}}

  - name: A museum piece is excused
    looks: [{a firearm: 0.9, a museum piece: 0.8}]
    final: {a firearm: 0.9, a museum piece: 0.8}
    expect: {decision: clean, waived: [weapons], would: {negatives: [[]], action: none}}

  - name: A kitchen scene excuses the knife and not the firearm
    looks: [{a firearm: 0.9, a knife held as a weapon: 0.9, a kitchen scene: 0.9}]
    expect: {decision: clean, waived: [weapons], would: {negatives: [[weapon, a firearm]]}}

  - name: What is hardly a museum piece is not excused
    looks: [{a firearm: 0.9, a museum piece: 0.79}]
    expect: {decision: clean, waived: [], would: {negatives: [[weapon, a firearm]]}}
""")


def starter(name: str, file: str) -> tuple[str, str]:
    """Return the text of a starter policy, and of its tests.

    Args:
        name: name of the policy.
        file: name of its file.
    """
    return POLICY.substitute(name=name, file=file), TESTS.substitute(file=file)
