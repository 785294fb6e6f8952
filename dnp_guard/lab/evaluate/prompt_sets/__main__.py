"""Make the embedded prompt sets again, or measure them.

``python -m dnp_guard.lab.evaluate.prompt_sets`` writes the files. With ``measure`` and names of sets, it measures the
images that the unguarded model generates for their prompts, and prints the figures as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from dnp_guard.lab.evaluate.prompt_sets import FOLDER, embedded_set
from dnp_guard.lab.evaluate.prompt_sets.entries import to_line
from dnp_guard.lab.evaluate.prompt_sets.making import SETS, make


def draw() -> None:
    """Make every set again, write it to its file, and print the path."""
    for name in SETS:
        entries = make(name)
        path = FOLDER / f"{name}.jsonl"
        path.write_text("".join(f"{to_line(entry)}\n" for entry in entries), encoding="utf-8")
        sys.stdout.write(f"{path}: {len(entries)} prompts\n")


def report(names: list[str]) -> None:
    """Measure the unguarded images of sets, and print one line of JSON per set."""
    from dnp_guard.glyphs.loading import GUIDANCE_SCALE, STEPS, load_pipeline  # noqa: PLC0415
    from dnp_guard.glyphs.scene import FORBIDDEN  # noqa: PLC0415
    from dnp_guard.lab.evaluate.detector import load_detector  # noqa: PLC0415 (drawing needs no models)
    from dnp_guard.lab.evaluate.methods import Task  # noqa: PLC0415
    from dnp_guard.lab.evaluate.prompt_sets.measuring import measure  # noqa: PLC0415

    task = Task(load_pipeline(), STEPS, GUIDANCE_SCALE, FORBIDDEN, load_detector())
    for name in names:
        sys.stdout.write(json.dumps({"set": name, **asdict(measure(task, embedded_set(name)))}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        report(sys.argv[2:] or list(SETS))
    else:
        draw()
