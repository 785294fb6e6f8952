"""Train the embedded models from scratch: ``python -m dnp_guard.lab.train``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from dnp_guard.glyphs import WEIGHTS
from dnp_guard.lab.train import stages

STAGES = {
    "autoencoder": stages.train_autoencoder,
    "diffusion": stages.train_diffusion,
    "detector": stages.train_detector,
    "vlm": stages.train_vlm,
    "hard": stages.train_hard,
    "probe": stages.train_probe,
    "fast": stages.train_fast,
    "measure": stages.measure_all,
    "measure-fast": stages.measure_fast,
}


def main() -> None:
    """Run the stages of the training in order; a stage continues from its last checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m dnp_guard.lab.train", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=WEIGHTS, help="weights folder to write (default: the package's own)"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("build/glyphs"),
        help="folder for checkpoints; an interrupted run continues from them (default: build/glyphs)",
    )
    parser.add_argument("--processes", type=int, default=2, help="number of single-thread CPU processes (default: 2)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="share of the planned samples, for a short trial run (default: 1)"
    )
    parser.add_argument(
        "--stage", choices=STAGES, action="append", help="run this stage only; may be given several times"
    )
    parser.add_argument(
        "--training",
        type=int,
        default=0,
        help="number of the training run; another number gives other first weights and another order of the samples, "
        "0 gives the shipped models (default: 0)",
    )
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    shop = stages.Workshop(args.work, args.out, args.processes, args.scale, args.training)
    for name in args.stage or STAGES:
        started = time.monotonic()
        STAGES[name](shop)
        shop.spent(name, time.monotonic() - started)


if __name__ == "__main__":
    main()
