"""``dnp-guard vlm``: measure the answers of a vision-language backend."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dnp_guard.audit.read.show import Log
from dnp_guard.cli.console import AsJson, print_json
from dnp_guard.extras import needs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dnp_guard.lab.evaluate.calibration import Calibration
    from dnp_guard.policy import Policy
    from dnp_guard.vlm.base import Backend
    from dnp_guard.vlm.labelled import Labelled

app = typer.Typer(help="Measure vision-language backends.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def calibrate(
    *,
    vlm: Annotated[str | None, typer.Option(help="Backend, such as 'glyphs'.")] = None,
    policy: Annotated[str, typer.Option(help="Policy whose questions are asked.")] = "glyphs",
    images: Annotated[Path | None, typer.Option(help="Folder of pictures.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV file with the columns 'file', one per category (1 or 0), and 'progress'.")
    ] = None,
    held_out: Annotated[
        int | None, typer.Option(min=50, help="Instead: number of x̂0 pictures from the embedded model.")
    ] = None,
    from_verdicts: Annotated[
        Path | None, typer.Option(metavar="LOG", help="Instead: audit log with people's verdicts on its images.")
    ] = None,
    rate: Annotated[float, typer.Option(min=0, max=1, help="Target false positive rate.")] = 0.01,
    ranges: Annotated[
        str, typer.Option(help="Ends of the ranges of the run that get their own threshold, such as 0.3,0.6,1.")
    ] = "1",
    out: Annotated[Path, typer.Option(help="File to write; the plot is written beside it.")] = Path("calibration.json"),
    as_json: AsJson = False,
) -> None:
    """Measure AUC, calibration error, and the threshold for a target false positive rate, per category."""
    from dnp_guard.lab.evaluate.roc_plot import draw_roc  # noqa: PLC0415 (only this command needs it)
    from dnp_guard.policy.read.loading import load_policy  # noqa: PLC0415
    from dnp_guard.vlm.plugin import build  # noqa: PLC0415

    if (images is None) != (labels is None) or [images, held_out, from_verdicts].count(None) != 2:  # noqa: PLR2004
        raise typer.BadParameter("Give --images with --labels, or --held-out, or --from-verdicts.")
    if (vlm is None) != (from_verdicts is not None):
        raise typer.BadParameter(
            "Give --vlm, whose answers are measured; only with --from-verdicts they are in the log."
        )
    ends = _ends(ranges)
    rules = load_policy(policy)
    if from_verdicts is not None:
        from dnp_guard.lab.evaluate.verdicts import answered  # noqa: PLC0415

        info, results = answered(rules, Log(from_verdicts), rate)
    else:
        pictures = _pictures(rules, images, labels, held_out)
        backend = build(str(vlm))
        results = _measure(rules, backend, pictures, rate, ends)
        info = backend.info
    document = {
        "format": 1,
        "vlm": {"name": info.name, "revision": info.revision},
        "policy": {"name": rules.name, "revision": rules.revision},
        "false_positive_rate": rate,
        "categories": {name: [_plain(measured) for measured in ranges_] for name, ranges_ in results.items()},
    }
    out.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    plot = out.with_suffix(".svg")
    plot.write_text(draw_roc(f"{info.name} {info.revision}, policy {rules.name}", results), encoding="utf-8")
    if as_json:
        print_json({"ok": True, "file": str(out), "plot": str(plot), "errors": [], **document})
        return
    for name, measured in ((name, measured) for name, ranges_ in results.items() for measured in ranges_):
        typer.echo(
            f"{name}, {measured.begin:g} to {measured.end:g}: n {measured.n} ({measured.positives} positive), "
            f"AUC {measured.auc:.3f}, threshold {measured.threshold:.2f} finds {measured.detected:.1%}, "
            f"calibration error {measured.error:.3f}"
        )
    typer.echo(f"Wrote {out} and {plot}")


def _ends(text: str) -> list[float]:
    try:
        ends = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--ranges {text!r}: write numbers such as 0.3,0.6,1.") from error
    if ends != sorted(set(ends)) or ends[0] <= 0 or ends[-1] != 1:
        raise typer.BadParameter(f"--ranges {text!r}: ends must rise, be over 0, and include 1.")
    return ends


def _pictures(policy: Policy, images: Path | None, labels: Path | None, held_out: int | None) -> list[Labelled]:
    from dnp_guard.vlm import labelled  # noqa: PLC0415 (reads pictures)

    names = [category.id for category in policy.categories if not category.sensitive]
    if images is not None and labels is not None:
        return labelled.read_labelled(images, labels, names)
    needs("lab", "dnp-guard vlm calibrate --held-out")
    from dnp_guard.glyphs.loading import load_pipeline  # noqa: PLC0415
    from dnp_guard.lab.evaluate.held_out import held_out as draw  # noqa: PLC0415 (imports torch)

    drawn = draw(load_pipeline(), held_out or 0, seed=7)
    return [
        labelled.Labelled(picture.image, {name: picture.scene.shows(name) for name in names}, picture.progress)
        for picture in drawn
    ]


def _measure(
    policy: Policy, backend: Backend, pictures: Sequence[Labelled], rate: float, ends: Sequence[float]
) -> Mapping[str, list[Calibration]]:
    from dnp_guard.generation.judge import find  # noqa: PLC0415
    from dnp_guard.lab.evaluate.calibration import calibrate as measure  # noqa: PLC0415
    from dnp_guard.policy import questions  # noqa: PLC0415
    from dnp_guard.vlm.desk import Desk  # noqa: PLC0415

    asked = [question for question in questions(policy) if not policy.category(question.category).sensitive]
    rows = (
        Desk(backend).ask([picture.image for picture in pictures], [question.text for question in asked]).probabilities
    )
    scores = [find(policy, asked, row)[1] for row in rows]
    results: dict[str, list[Calibration]] = {}
    for name in dict.fromkeys(question.category for question in asked):
        for begin, end in zip([0.0, *ends], ends, strict=False):
            chosen = [
                i
                for i, picture in enumerate(pictures)
                if begin <= picture.progress < end or picture.progress == end == 1
            ]
            labels = [pictures[i].shows[name] for i in chosen]
            results.setdefault(name, []).append(measure([scores[i][name] for i in chosen], labels, rate, (begin, end)))
    return results


def _plain(measured: Calibration) -> dict[str, Any]:
    """Convert a measurement to JSON: NaN becomes null, and the curve is thinned for a plot."""
    values = {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in asdict(measured).items()
    }
    step = max(1, len(measured.roc) // 200)
    return values | {"roc": [[round(x, 4), round(y, 4)] for x, y in measured.roc[::step]]}
