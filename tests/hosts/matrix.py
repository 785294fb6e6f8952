"""``make matrix``: every pipeline class of the installed diffusers, steered where it can be; writes ``matrix.json``."""

import json
import sys
import warnings
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers

from dnp_guard import CannotSteer, Guard
from dnp_guard.audit import MemorySink
from tests.hosts.tiny import everything, footprint
from tests.policies import policy

FILE = Path("docs/reference/matrix.json")
MODE = "separate"
SCALE = 40
STEPS = 4


def row(name):
    """What happens to one class when a scripted model sees something in one image."""
    told = {"class": name, "steerable": False, "mode": MODE}
    try:
        subject = everything.subject(name)
    except everything.NotBuiltError as error:
        return told | {"reason": str(error), "tried": False}
    pipe, images, draw = subject.pipe, subject.images, subject.draw
    seen = min(1, images - 1)
    plain, before, sink = draw(), footprint(pipe), MemorySink()
    of = policy(
        queries={"steps": [0, 1], "of": STEPS, "final": True}, guidance={"mode": MODE, "hold": 9, "scale": SCALE}
    )
    try:
        with Guard(of, vlm=SeesOnce(images, seen), audit=sink).attached(pipe):
            steered = draw()
        with Guard(of, vlm=SeesOnce(images, None)).attached(pipe):
            idle = draw()
    except CannotSteer as error:
        return told | {"reason": error.reason, "tried": True}
    moved = [float(np.abs(a - b).max()) for a, b in zip(plain, steered, strict=True)]
    events = [record["event"] for record in sink.records]
    return told | {
        "steerable": True,
        "tried": True,
        "images": images,
        "images_changed": [index for index, each in enumerate(moved) if each],
        "others_identical": not any(each for index, each in enumerate(moved) if index != seen),
        "idle_identical": all((a == b).all() for a, b in zip(plain, idle, strict=True)),
        "leftovers": footprint(pipe) != before,
        "injections": events.count("negative.injected"),
        "degraded": events.count("degraded"),
        "reason": "",
    }


class SeesOnce:
    """Sees a star at its first look, in the last picture of one item, and then nothing more."""

    def __init__(self, items, item):
        self.items, self.item, self.looks = items, item, 0

    def ask(self, images, questions):
        self.looks += 1
        last = None if self.item is None else (self.item + 1) * (len(images) // self.items) - 1
        seen = last if self.looks == 1 else None
        return [[0.9 if row == seen and "star" in each else 0.0 for each in questions] for row in range(len(images))]


def as_it_should(each):
    """Whether a class is steered as it should be, or refused with a reason."""
    if not each["steerable"]:
        return bool(each["reason"])
    kept = each["others_identical"] and each["idle_identical"] and not each["leftovers"]
    return kept and len(each["images_changed"]) == 1 and each["injections"] == 1 and not each["degraded"]


def main(names):
    """Run some classes, or all."""
    warnings.simplefilter("ignore")
    diffusers.logging.set_verbosity(50)
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    known = {} if not names or not FILE.exists() else {each["class"]: each for each in json.loads(FILE.read_text())}
    for name in names or everything.classes():
        try:
            known[name] = row(name)
        except Exception as error:  # noqa: BLE001 (the others are run)
            known[name] = {
                "class": name,
                "steerable": False,
                "reason": "",
                "failed": f"{type(error).__name__}: {error}",
            }
        each = known[name]
        told = f"changed {each['images_changed']}" if each["steerable"] else each["reason"] or each["failed"]
        print(f"{'  ' if as_it_should(each) else '! '}{name:50} {told[:160]}", flush=True)  # noqa: T201 (the table)
    rows = [known[name] for name in sorted(known)]
    FILE.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"{sum(each['steerable'] for each in rows)} of {len(rows)} classes are steered")  # noqa: T201 (as above)
    wrong = [each["class"] for each in rows if not as_it_should(each)]
    if wrong:
        raise SystemExit(f"not steered as it should be: {', '.join(wrong)}")


if __name__ == "__main__":
    main(sys.argv[1:])
