"""``dnp-guard policy test``: run the tests of policies, and measure a model's detection on a folder of images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dnp_guard.cli.console import AsJson, print_json, print_problem
from dnp_guard.errors import PolicyError, Problem, did_you_mean
from dnp_guard.policy.read.folder import misnamed, named
from dnp_guard.policy.read.loading import UNREADABLE, shipped
from dnp_guard.policy.read.testfile import ENDING, PolicyTests, load_tests
from dnp_guard.policy.rehearsal.cases import Ran, as_json, run_tests
from dnp_guard.policy.rehearsal.coverage import Coverage, coverage
from dnp_guard.policy.rehearsal.detection import DetectionRate, detect

if TYPE_CHECKING:
    from collections.abc import Callable

    from dnp_guard.policy.rehearsal.cases import Viewer
    from dnp_guard.vlm.base import Backend


_NAMED = 10
"""Most pictures to name; --json names all."""


@dataclass(frozen=True, slots=True)
class _Run:
    """The results of running one test file."""

    tests: PolicyTests
    ran: tuple[Ran, ...]
    coverage: Coverage
    detected: tuple[DetectionRate, ...]


def test(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Test files, policies, or folders.")],
    *,
    vlm: Annotated[str | None, typer.Option(help="With --images: backend to measure.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder with one folder of pictures per category, named by its id, and `clean`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the tests of policies, and report what no case covers. Exits 1 if a case fails."""
    if (vlm is None) != (images is None):
        raise typer.BadParameter("--vlm and --images go together.")
    backend = _backends()
    runs: list[_Run] = []
    problems: list[Problem] = []
    for file in [file for path in paths for file in _files(path, problems)]:
        try:
            tests = load_tests(file)
        except PolicyError as error:
            problems += error.problems
            continue
        ran = run_tests(tests, _viewer(backend))
        detected = detect(tests.policy, backend(vlm), images) if vlm and images else ()
        runs.append(_Run(tests, ran, coverage(tests.policy, ran), detected))
    problems += [_failure(run.tests, ran) for run in runs for ran in run.ran if not ran.passed]
    if as_json:
        print_json(_document(runs, problems))
    else:
        _print(runs, problems)
    if problems:
        raise typer.Exit(2 if any(problem.code == UNREADABLE for problem in problems) else 1)


def _files(path: str, problems: list[Problem]) -> list[str]:
    place = shipped().get(path, Path(path))
    if not place.exists():
        problems.append(Problem(path, 0, 0, UNREADABLE, "no such file or folder.", did_you_mean(path, list(shipped()))))
        return []
    if place.is_dir():
        problems += misnamed(place.rglob("*"))
        files = [str(file) for file in named(place.rglob(f"*{ENDING}"))]
        hint = f"Tests end in {ENDING} and are in a folder `tests` beside the policies."
    elif path.endswith(ENDING):
        return [path]
    else:
        beside = place.parent / "tests" / f"{place.stem}{ENDING}"
        files, hint = [str(beside)] if beside.is_file() else [], f"Write them to {beside}."
    if not files:
        problems.append(Problem(path, 0, 0, UNREADABLE, "no tests here.", hint))
    return files


def _backends() -> Callable[[str], Backend]:
    """Return a function that builds a backend when it is first needed, and then reuses it."""
    built: dict[str, Backend] = {}

    def backend(spec: str) -> Backend:
        from dnp_guard.vlm.plugin import build  # noqa: PLC0415 (only a case with an image queries a model)

        if spec not in built:
            built[spec] = build(spec)
        return built[spec]

    return backend


def _viewer(backend: Callable[[str], Backend]) -> Viewer:
    def view(spec: str, path: Path) -> Any:
        from dnp_guard.policy.rehearsal.detection import answers_about  # noqa: PLC0415

        return answers_about(path, backend(spec))

    return view


def _failure(tests: PolicyTests, ran: Ran) -> Problem:
    message = f"{ran.case.name}: {'; '.join(map(str, ran.differences))}."
    return Problem(tests.file, ran.line, 1, "case-failed", message, "Mend the policy, or the expectation of the case.")


def _document(runs: list[_Run], problems: list[Problem]) -> dict[str, Any]:
    cases = [ran for run in runs for ran in run.ran]
    passed = sum(ran.passed for ran in cases)
    return {
        "ok": not problems,
        "passed": passed,
        "failed": len(cases) - passed,
        "files": [
            {
                "file": run.tests.file,
                "policy": run.tests.policy.name,
                "digest": run.tests.policy.digest,
                "cases": [as_json(ran) for ran in run.ran],
                "coverage": {"points": run.coverage.points, "missing": list(run.coverage.missing)},
                "detection": [asdict(rate) for rate in run.detected],
            }
            for run in runs
        ],
        "errors": [asdict(problem) for problem in problems],
    }


def _wrong(kind: str, files: tuple[str, ...]) -> list[str]:
    more = [f"    and {len(files) - _NAMED} more, with --json"] if len(files) > _NAMED else []
    return [f"    {kind} {file}" for file in files[:_NAMED]] + more


def _print(runs: list[_Run], problems: list[Problem]) -> None:
    for run in runs:
        good = sum(ran.passed for ran in run.ran)
        touched = run.coverage.points - len(run.coverage.missing)
        typer.echo(f"{run.tests.file}: {good} of {len(run.ran)} passed, covers {touched} of {run.coverage.points}")
        for ran in run.ran:
            if not ran.passed:
                typer.echo(f"  FAILED {ran.case.name} (line {ran.line})")
                for difference in ran.differences:
                    typer.echo(f"    {difference}")
        for missing in run.coverage.missing:
            typer.echo(f"  not covered: {missing}")
        for rate in run.detected:
            typer.echo(
                "\n".join([f"  {rate}", *_wrong("missed in", rate.missed), *_wrong("false alarm in", rate.alarmed)])
            )
    cases = [ran for run in runs for ran in run.ran]
    typer.echo(f"{sum(ran.passed for ran in cases)} passed, {sum(not ran.passed for ran in cases)} failed")
    for problem in problems:
        if problem.code != "case-failed":
            print_problem(problem)
