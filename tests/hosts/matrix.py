"""``make matrix``: every pipeline class of the installed diffusers, steered where it can be; writes ``matrix.json``."""

import json
import os
import signal
import sys
import time
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
SCALE = 15
STEPS = 4
CHANGED = 1e-4
"""The difference of a pixel, in [0, 1], from which an image is another one."""
LIMIT = 60
"""Seconds of processor time, whatever else the machine does, after which the tiny one of a class is too slow to try."""
DONE = Path("build/matrix.jsonl")
"""The rows of a run that has not ended; the next one goes on with them."""


def row(name):
    """What happens to one class when a scripted model sees something in one image, of three where it takes them."""
    told = {"class": name, "steerable": False, "mode": MODE}
    try:
        subject = everything.subject(name)
    except everything.NotBuiltError as error:
        return told | {"reason": str(error), "tried": False}
    try:
        return told | steered(subject)
    except CannotSteer as error:
        refused = told | {"reason": error.reason, "tried": True}
    if subject.alone is not None:
        try:
            alone = told | steered(subject.alone)
            return alone | {"of_several": refused["reason"]} if alone["steerable"] else refused
        except Exception:  # noqa: BLE001, S110 (what several were refused for is the reason)
            pass
    return refused


def steered(subject):
    """What happens in one call that is steered and in one in which nothing is seen.

    Raises:
        CannotSteer: it is refused.
    """
    pipe, images, draw = subject.pipe, subject.images, subject.draw
    seen = min(1, images - 1)
    plain, before, sink = draw(), footprint(pipe), MemorySink()
    of = policy(
        queries={"steps": [0, 1], "of": STEPS, "final": True}, guidance={"mode": MODE, "hold": 9, "scale": SCALE}
    )
    with Guard(of, vlm=SeesOnce(images, seen), audit=sink).attached(pipe):
        drawn = draw()
    with Guard(of, vlm=SeesOnce(images, None)).attached(pipe):
        idle = draw()
    moved = [float(np.abs(a - b).max()) for a, b in zip(plain, drawn, strict=True)]
    trouble = next((record["reason"] for record in sink.records if record["event"] == "degraded"), "")
    if trouble:
        return {"tried": True, "steerable": False, "reason": f"it is not steered and fails closed ({trouble})"}
    if not moved[seen] >= CHANGED:
        return {
            "tried": True,
            "steerable": False,
            "reason": f"its tiny one hardly listens to words: a pixel moves by {moved[seen]:.0e}",
        }
    events = [record["event"] for record in sink.records]
    return {
        "steerable": True,
        "tried": True,
        "images": images,
        "images_changed": [index for index, each in enumerate(moved) if each >= CHANGED],
        "changed_by": float(f"{moved[seen]:.1e}"),
        "others_identical": not any(each for index, each in enumerate(moved) if index != seen),
        "idle_identical": all((a == b).all() for a, b in zip(plain, idle, strict=True)),
        "leftovers": footprint(pipe) != before,
        "injections": events.count("negative.injected"),
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
    return kept and len(each["images_changed"]) == 1 and each["injections"] == 1


def tried(name):
    """The row of a class, whatever happens to it."""
    signal.setitimer(signal.ITIMER_PROF, LIMIT, LIMIT)
    try:
        return row(name)
    except TimeoutError as error:
        return {
            "class": name,
            "steerable": False,
            "mode": MODE,
            "reason": f"not tried: it takes {error}",
            "tried": False,
        }
    except Exception as error:  # noqa: BLE001 (the others are run)
        return {
            "class": name,
            "steerable": False,
            "reason": "",
            "tried": True,
            "failed": f"{type(error).__name__}: {error}"[:300],
        }
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def too_slow(*_):
    """What ends a class that takes too long."""
    raise TimeoutError(f"more than {LIMIT} s of processor time")


def rows_in(file):
    """The rows that a run which was cut short left behind, by class."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {each["class"]: each for each in map(json.loads, lines)}


def main(names):
    """Run some classes, or all; a run of all that was cut short goes on."""
    warnings.simplefilter("ignore")
    diffusers.logging.set_verbosity(50)
    diffusers.utils.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, too_slow)
    began = time.monotonic()
    done = {} if names else rows_in(DONE)
    DONE.parent.mkdir(exist_ok=True)
    with (DONE if not names else Path(os.devnull)).open("a", encoding="utf-8") as kept:
        for name in names or everything.classes():
            if name in done:
                continue
            each = done[name] = tried(name)
            kept.write(json.dumps(each) + "\n")
            kept.flush()
            told = f"changed {each['images_changed']} by {each['changed_by']}" if each["steerable"] else each["reason"]
            print(  # noqa: T201 (the table)
                f"{'  ' if as_it_should(each) else '! '}{name:50} {(told or each['failed'])[:160]}", flush=True
            )
    known = {each["class"]: each for each in json.loads(FILE.read_text(encoding="utf-8"))} if names else {}
    rows = [each for _, each in sorted({**known, **done}.items())]
    FILE.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if not names:
        DONE.unlink()
    steered, seconds = sum(each["steerable"] for each in rows), time.monotonic() - began
    print(f"{steered} of {len(rows)} classes are steered; {seconds:.0f} s")  # noqa: T201 (as above)
    wrong = [each["class"] for each in rows if not as_it_should(each)]
    if wrong:
        raise SystemExit(f"not steered as it should be: {', '.join(wrong)}")


if __name__ == "__main__":
    main(sys.argv[1:])
