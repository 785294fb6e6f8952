"""The options of ``dnp-guard evaluate``, in groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class Compared:
    """Options for the methods to compare, their prompts, and the output."""

    methods: Annotated[
        str | None,
        typer.Option(help="Methods, separated by commas; NAME@SCALE sets a scale; 'all' by default."),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Folder, cached hub id, 'glyphs-fast' or 'glyphs'; 'glyphs' by default.",
        ),
    ] = None
    sets: Annotated[
        str,
        typer.Option(
            "--prompts",
            "--sets",
            help="Files of prompts (CSV, TSV, JSON, JSONL, Parquet) or embedded sets, separated by commas.",
        ),
    ] = ""
    columns: Annotated[
        str, typer.Option(help="Columns to read: prompt=…,seed=…,guidance=…,category=…,id=…,image=….")
    ] = ""
    scales: Annotated[
        str, typer.Option(help="Scales of the negative, separated by commas, for every method that has one.")
    ] = ""
    n: Annotated[int | None, typer.Option("--n", min=1, help="Prompts per set; all by default.")] = None
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted run is continued.")] = Path("evaluation")
    quick: Annotated[bool, typer.Option(help="Quick trial: 16 prompts per set, unless --n is given.")] = False
    grow: Annotated[
        str,
        typer.Option(
            help="For prompts that draw several forbidden things, also measure policies with one category, two, up to "
            "all of them: 'beside' the other methods, 'only' these, or 'no'."
        ),
    ] = "beside"
    again: Annotated[
        bool, typer.Option(help="Start over if the folder contains a finished run or a different one.")
    ] = False
    paper: Annotated[
        bool,
        typer.Option("--paper", help="Use VL-DNP's published settings as defaults."),
    ] = False
    rejudge: Annotated[
        Path | None, typer.Option(help="Folder of a run whose images to judge again, without generating them.")
    ] = None
    report: Annotated[bool, typer.Option(help="Measure nothing; report on the batches in the folder.")] = False


@dataclass(frozen=True, slots=True)
class Drawn:
    """Options for how to generate and judge images."""

    seed: Annotated[int, typer.Option(min=0, help="Added to the seed of every prompt.")] = 0
    steps: Annotated[int | None, typer.Option(min=1, help="Sampler steps; the model's own by default.")] = None
    guidance: Annotated[
        float | None, typer.Option(min=0, help="Guidance scale for prompts without their own; the model's by default.")
    ] = None
    sampler: Annotated[str | None, typer.Option(help="dpm++ for DPM-Solver++; the model's own by default.")] = None
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images per batch; 16 for an embedded model, 4 for others.")
    ] = None
    policy: Annotated[str | None, typer.Option(help="Policy of the guard.")] = None
    vlm: Annotated[
        str | None,
        typer.Option(help="Backend for the guard and VL-DNP: transformers:ID_OR_FOLDER, detector:nudenet, …."),
    ] = None
    ablations: Annotated[
        bool, typer.Option("--ablations", help="Measure only the guard, changing one setting of its policy at a time.")
    ] = False
    detector: Annotated[
        str | None,
        typer.Option(
            help="Detector: glyphs, nudenet, opennsfw, q16:FOLDER, clip:ID_OR_FOLDER, vlm:SPEC, or a plugin's."
        ),
    ] = None
    plugin: Annotated[list[str] | None, typer.Option(help="Installed plugin that is allowed to load; repeatable.")] = (
        None
    )
    clip: Annotated[
        str | None, typer.Option(help="CLIP model for the alignment score: a folder, or a cached hub id.")
    ] = None
    keep_images: Annotated[
        bool, typer.Option(help="Keep every image, not only the first eight of a set; always on for your own model.")
    ] = False
