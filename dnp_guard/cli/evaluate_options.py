"""The options of ``dnp-guard evaluate``, in groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class Compared:
    """What is measured side by side, and where that goes."""

    methods: Annotated[
        str | None,
        typer.Option(help="Names with commas; NAME@SCALE for one at a scale of its own; 'all' otherwise."),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A folder, or a hub id that is cached; 'glyphs-fast'; 'glyphs' otherwise.",
        ),
    ] = None
    sets: Annotated[
        str,
        typer.Option(
            "--prompts",
            "--sets",
            help="Files of prompts (CSV, TSV, JSON, JSONL, Parquet), with commas, or embedded sets.",
        ),
    ] = ""
    columns: Annotated[
        str, typer.Option(help="What to read from which column: prompt=…,seed=…,guidance=…,category=…,id=…,image=….")
    ] = ""
    scales: Annotated[str, typer.Option(help="Scales of the negative, with commas, for every method that has one.")] = (
        ""
    )
    n: Annotated[int | None, typer.Option("--n", min=1, help="Prompts a set; all of them otherwise.")] = None
    out: Annotated[Path, typer.Option(help="Folder of the run; one that was cut short goes on.")] = Path("evaluation")
    quick: Annotated[bool, typer.Option(help="A sign of life: 16 prompts a set, unless --n says otherwise.")] = False
    grow: Annotated[
        str,
        typer.Option(
            help="Where prompts draw several forbidden things, grow the policy from one to all: beside the other "
            "methods, as the only ones there, or no."
        ),
    ] = "beside"
    again: Annotated[bool, typer.Option(help="Begin anew where the folder holds a finished run or another one.")] = (
        False
    )
    paper: Annotated[
        bool,
        typer.Option("--paper", help="VL-DNP's published setting for all that is not given."),
    ] = False
    rejudge: Annotated[
        Path | None, typer.Option(help="Folder of a run whose images are judged again, without drawing them.")
    ] = None
    report: Annotated[bool, typer.Option(help="Measure nothing more: report on the batches that the folder holds.")] = (
        False
    )


@dataclass(frozen=True, slots=True)
class Drawn:
    """How images are drawn and judged."""

    seed: Annotated[int, typer.Option(min=0, help="Added to the seed of every prompt.")] = 0
    steps: Annotated[int | None, typer.Option(min=1, help="Of the sampler; the model's own otherwise.")] = None
    guidance: Annotated[
        float | None, typer.Option(min=0, help="Scale for prompts without one of their own; the model's otherwise.")
    ] = None
    sampler: Annotated[str | None, typer.Option(help="dpm++ for DPM-Solver++ in place of the model's own.")] = None
    batch: Annotated[int | None, typer.Option(min=1, help="Images at once: 16 of an embedded model, 4 of others.")] = (
        None
    )
    policy: Annotated[str | None, typer.Option(help="Policy of the guard.")] = None
    vlm: Annotated[
        str | None, typer.Option(help="Whom the guard and VL-DNP ask: transformers:ID_OR_FOLDER, detector:nudenet, ….")
    ] = None
    ablations: Annotated[
        bool, typer.Option("--ablations", help="The guard alone, with one thing of its policy changed at a time.")
    ] = False
    detector: Annotated[
        str | None,
        typer.Option(
            help="What judges: glyphs, nudenet, opennsfw, q16:FOLDER, clip:ID_OR_FOLDER, vlm:SPEC, or a plugin's."
        ),
    ] = None
    plugin: Annotated[list[str] | None, typer.Option(help="An installed plugin that may load.")] = None
    clip: Annotated[
        str | None, typer.Option(help="A CLIP model for the alignment score: a folder, or a hub id that is cached.")
    ] = None
    keep_images: Annotated[
        bool, typer.Option(help="Keep every image, and not the first eight of a set; of your own model, always.")
    ] = False
