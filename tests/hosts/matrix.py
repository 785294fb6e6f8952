"""Try to steer every pipeline class of the installed diffusers (``make matrix``), and write ``matrix.json``."""

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
"""Smallest difference of a pixel, in [0, 1], that makes an image count as changed."""
LIMIT = 60
"""Seconds of processor time after which the attempt with one class is given up."""
DONE = Path("build/matrix.jsonl")
"""File of the rows of an unfinished run, from which the next run continues."""


def row(name):
    """Try to steer one pipeline class, with a scripted model that sees a star in one image; return the class's row.

    The call makes three images if the class allows it. If the guard refuses that, a single image is tried.
    """
    outcome = {"class": name, "steerable": False, "mode": MODE}
    try:
        subject = everything.subject(name)
    except everything.NotBuiltError as error:
        return outcome | {"reason": str(error), "tried": False}
    try:
        return outcome | steered(subject)
    except CannotSteer as error:
        refused = outcome | {"reason": error.reason, "tried": True}
    if subject.alone is not None:
        try:
            alone = outcome | steered(subject.alone)
            return alone | {"of_several": refused["reason"]} if alone["steerable"] else refused
        except Exception:  # noqa: BLE001, S110 (the refusal of several images is the reason)
            pass
    return refused


def steered(subject):
    """Compare a steered call, and a guarded call in which nothing is seen, with an unguarded one; return the results.

    Raises:
        CannotSteer: the guard refuses the pipeline.
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
        "images_changed": [index for index, difference in enumerate(moved) if difference >= CHANGED],
        "changed_by": float(f"{moved[seen]:.1e}"),
        "others_identical": not any(difference for index, difference in enumerate(moved) if index != seen),
        "idle_identical": all((a == b).all() for a, b in zip(plain, idle, strict=True)),
        "leftovers": footprint(pipe) != before,
        "injections": events.count("negative.injected"),
        "reason": "",
    }


class SeesOnce:
    """A scripted model that sees a star in one image only, the first time that it is asked.

    Args:
        items: number of images or videos of the call; a video shows several pictures.
        item: index of the item whose last picture has the star; None for no star.
    """

    def __init__(self, items, item):
        self.items, self.item, self.looks = items, item, 0

    def ask(self, images, questions):
        self.looks += 1
        last = None if self.item is None else (self.item + 1) * (len(images) // self.items) - 1
        seen = last if self.looks == 1 else None
        return [
            [0.9 if row == seen and "star" in question else 0.0 for question in questions] for row in range(len(images))
        ]


def as_it_should(entry):
    """Return whether a row is as it should be: only the right image changed, or the class was refused with a reason."""
    if not entry["steerable"]:
        return bool(entry["reason"])
    unharmed = entry["others_identical"] and entry["idle_identical"] and not entry["leftovers"]
    return unharmed and len(entry["images_changed"]) == 1 and entry["injections"] == 1


def tried(name):
    """Return the row of a class, also if the attempt raises or takes too long."""
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
    except Exception as error:  # noqa: BLE001 (the other classes are still run)
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
    """Raise an error when the processor time for a class is used up; a signal handler."""
    raise TimeoutError(f"more than {LIMIT} s of processor time")


def rows_in(file):
    """Return the rows of an interrupted run by class; empty if there was none."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {entry["class"]: entry for entry in map(json.loads, lines)}


def main(names):
    """Try the named classes, or all, and write the rows; continue an interrupted run of all classes."""
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
    with (DONE if not names else Path(os.devnull)).open("a", encoding="utf-8") as journal:
        for name in names or everything.classes():
            if name in done:
                continue
            entry = done[name] = tried(name)
            journal.write(json.dumps(entry) + "\n")
            journal.flush()
            summary = (
                f"changed {entry['images_changed']} by {entry['changed_by']}" if entry["steerable"] else entry["reason"]
            )
            print(  # noqa: T201 (the table)
                f"{'  ' if as_it_should(entry) else '! '}{name:50} {(summary or entry['failed'])[:160]}", flush=True
            )
    known = {entry["class"]: entry for entry in json.loads(FILE.read_text(encoding="utf-8"))} if names else {}
    rows = [entry for _, entry in sorted({**known, **done}.items())]
    FILE.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if not names:
        DONE.unlink()
    steered, seconds = sum(entry["steerable"] for entry in rows), time.monotonic() - began
    print(f"{steered} of {len(rows)} classes are steered; {seconds:.0f} s")  # noqa: T201 (as above)
    wrong = [entry["class"] for entry in rows if not as_it_should(entry)]
    if wrong:
        raise SystemExit(f"not steered as it should be: {', '.join(wrong)}")


if __name__ == "__main__":
    main(sys.argv[1:])
