"""``make matrix``: every pipeline class of the installed diffusers, steered where it can be; writes ``matrix.json``."""

import json
import sys
from pathlib import Path

import diffusers
import numpy as np
import transformers

from dnp_guard import CannotSteer, Guard
from dnp_guard.audit import MemorySink
from dnp_guard.hosts.diffusers.families import classes, row_of
from tests.hosts.tiny import draw, footprint, tiny
from tests.hosts.tiny.looks import SeesAStarOnce
from tests.policies import policy

MODE = "separate"
MOVED = 1e-4
"""More than another order of the same sums makes of a pixel, 0…1."""


def row(name):
    """What happens to one class when a scripted model sees something in the second of three images."""
    try:
        row_of(name)
    except CannotSteer as error:
        return {"class": name, "steerable": False, "reason": error.reason}
    pipe, sink = tiny(name), MemorySink()
    pipe.callback_on_step_end = None
    plain, before = np.asarray(draw(pipe)), footprint(pipe)
    with Guard(policy(guidance={"mode": MODE, "hold": 9}), vlm=SeesAStarOnce(), audit=sink).attached(pipe):
        steered = np.asarray(draw(pipe))
    left = footprint(pipe) != before
    with Guard(policy(), vlm=SeesNothing()).attached(pipe):
        idle = np.asarray(draw(pipe))
    moved = [float(np.abs(a - b).max()) for a, b in zip(plain, steered, strict=True)]
    events = [record["event"] for record in sink.records]
    return {
        "class": name,
        "steerable": True,
        "mode": MODE,
        "images_changed": [index for index, each in enumerate(moved) if each > MOVED],
        "others_identical": moved[0] == 0 and moved[2] == 0,
        "leftovers": left,
        "idle_identical": bool((plain == idle).all()),
        "injections": events.count("negative.injected"),
        "degraded": events.count("degraded"),
        "reason": "",
    }


class SeesNothing:
    """Answers no to everything."""

    def ask(self, images, questions):
        return [[0.0] * len(questions) for _ in images]


def as_it_should(each):
    """Whether a class is steered as it should be, or refused with a reason."""
    if not each["steerable"]:
        return bool(each["reason"])
    kept = each["others_identical"] and each["idle_identical"] and not each["leftovers"]
    return kept and each["images_changed"] == [1] and each["injections"] == 1 and not each["degraded"]


def main(names):
    """Run some classes, or all."""
    diffusers.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    rows = []
    for name in names or classes():
        rows.append(row(name))
        each = rows[-1]
        told = f"changed {each['images_changed']}" if each["steerable"] else each["reason"]
        print(f"{'  ' if as_it_should(each) else '! '}{name:50} {told}", flush=True)  # noqa: T201 (the table)
    Path("matrix.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    steered = sum(each["steerable"] for each in rows)
    print(f"{steered} of {len(rows)} classes are steered")  # noqa: T201 (as above)
    wrong = [each["class"] for each in rows if not as_it_should(each)]
    if wrong:
        raise SystemExit(f"not steered as it should be: {', '.join(wrong)}")


if __name__ == "__main__":
    main(sys.argv[1:])
