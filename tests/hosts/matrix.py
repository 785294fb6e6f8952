"""``make matrix``: every pipeline class of the installed diffusers, steered where it can be; writes ``matrix.json``."""

import json
from pathlib import Path

import diffusers

from dnp_guard import CannotSteer, Guard
from dnp_guard.hosts.diffusers.families import row_of
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.tiny import CALLS, draw, footprint, tiny
from tests.policies import policy

SEES_A_STAR_ONCE = [[{}, {}, {}], [{}, {"star": 0.9}, {}], {"star": 0.0}]


def row(name):
    """What happens to one class when a scripted model sees something in the second of three images."""
    try:
        row_of(name)
    except CannotSteer as error:
        return {"class": name, "steerable": False, "reason": error.reason}
    pipe = tiny(name)
    pipe.callback_on_step_end = None
    plain, before = draw(pipe), footprint(pipe)
    with Guard(policy(guidance={"hold": 9}), vlm=ScriptedBackend(SEES_A_STAR_ONCE)).attached(pipe):
        steered = draw(pipe)
    same = [bool((a == b).all()) for a, b in zip(plain, steered, strict=True)]
    return {
        "class": name,
        "steerable": True,
        "mode": "separate",
        "images_changed": [index for index, each in enumerate(same) if not each],
        "others_identical": same[0] and same[2],
        "leftovers": footprint(pipe) != before,
        "reason": "",
    }


def main():
    names = sorted({name for name in dir(diffusers) if name.endswith("Pipeline")} | set(CALLS))
    rows = [row(name) for name in names if name != "DiffusionPipeline"]
    for each in rows:
        print(f"{each['class']:50} {each.get('images_changed', each['reason'])}")  # noqa: T201 (the table)
    Path("matrix.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    wrong = [
        each["class"]
        for each in rows
        if each["steerable"] and (each["images_changed"] != [1] or not each["others_identical"] or each["leftovers"])
    ]
    if wrong:
        raise SystemExit(f"not steered as it should be: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
