"""The policy that ``policy init`` writes: commented, checked, and with tests that touch all of it."""

from __future__ import annotations

from string import Template

POLICY = Template("""\
# yaml-language-server: $$schema=schema/policy.v1.json
#
# A policy says what is looked for in an image while it is made, and what is done about it. Edit it, then run
#   dnp-guard policy check $file
#   dnp-guard policy test $file
format: 1
name: $name
revision: "0.1.0"
summary: Says in one line what this policy is for.

# `shadow` records what would be done and changes no image. Begin with it; write `enforce` when the record looks right.
mode: shadow

# What becomes of an image when the guard cannot do its job: closed (withheld), open (passed), last (as last decided).
on_failure: closed

queries:
  # When to look, as fractions of the run. Early looks steer best; late ones see best.
  steps: [0.10, 0.12, 0.14, 0.18, 0.24, 0.32, 0.42, 0.54, 0.68, 0.84]
  final: true                   # also look at the finished image

guidance:
  scale: 15                     # how hard a negative pushes; weighed by each category's severity
  hold: 2                       # it stays through this many looks that no longer see its category

categories:
  - id: weapons
    title: Weapons
    # The definition is part of every question. Say what is meant, so that two people would agree.
    definition: Firearms and other things made to hurt people.
    # Each of these is asked about on its own.
    look_for: [a firearm, a knife held as a weapon]
    # These excuse a term that was found, and no other. They are asked about only after one.
    allowed:
      a firearm: [a museum piece]
      a knife held as a weapon: [a museum piece, a kitchen scene]
    # The only words that may be injected; $${found} stands for what was seen.
    negative: [weapon, "$${found}"]
    threshold: 0.5              # how sure the model must be
    allowed_threshold: 0.8      # how sure it must be of an excuse
    severity: medium            # low | medium | high | critical
    action: steer               # monitor | steer | blur | block
    still_present: block        # when the finished image shows it all the same
""")

TESTS = Template("""\
# yaml-language-server: $$schema=../schema/policy-test.v1.json
#
# What the policy must do. Each look gives the probabilities that a model might answer with; what is left out is 0.
format: 1
policy: ../$file
cases:
  - name: Nothing is seen, and nothing happens
    looks: [{}, {}]
    expect: {decision: clean, negatives: [[], []], action: none}

  # `would` is what happens once the policy says `mode: enforce`; then move it up beside `decision`.
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
    """The text of a policy to begin with, and of its tests.

    Args:
        name: of the policy.
        file: the name of its file.
    """
    return POLICY.substitute(name=name, file=file), TESTS.substitute(file=file)
