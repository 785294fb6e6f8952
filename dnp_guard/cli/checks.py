"""The checks of ``dnp-guard doctor``, one function per check; a failed check has a problem with a remedy."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass, field
from importlib import import_module, metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from dnp_guard.errors import CannotSteer, DnpGuardError, MissingExtra, PolicyError, Problem
from dnp_guard.extras import PACKAGES, absent, needs
from dnp_guard.steering.effect import shown_in

if TYPE_CHECKING:
    from collections.abc import Iterator

Status = Literal["ok", "note", "failed"]

DISTRIBUTION = "dnp-guard"


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        name: subject of the check.
        status: ``ok``, ``failed``, or ``note`` for information that is not a problem.
        found: the result, in a few words.
        problems: problems with remedies; empty unless ``failed``.
    """

    name: str
    status: Status
    found: str
    problems: tuple[Problem, ...] = field(default=())


def failed(name: str, code: str, message: str, hint: str, file: str = "") -> Check:
    """Return the result of a failed check, with one problem."""
    return Check(name, "failed", message, (Problem(file, 0, 0, code, message, hint),))


def python() -> Check:
    """Check the Python version against the declared range."""
    version = platform.python_version()
    declared = _declared()
    needed = SpecifierSet(declared["Requires-Python"] or "" if declared else "")
    if version not in needed:
        return failed(
            "python", "python-version", f"Python {version} is outside {needed}", f"Use a Python that is {needed}."
        )
    return Check("python", "ok", f"{version}, {platform.system()} {platform.machine()}")


def packages() -> Iterator[Check]:
    """Check the versions of all dependencies, including those of installed extras, against the declared ranges."""
    declared = _declared()
    if declared is None:
        yield Check("packages", "note", "not installed, so no ranges are known: pip install -e .")
        return
    installed = ["", *(extra for extra in PACKAGES if not absent(extra))]
    for requirement in map(Requirement, declared.get_all("Requires-Dist") or ()):
        marker = requirement.marker
        if requirement.name != DISTRIBUTION and (
            marker is None or any(marker.evaluate({"extra": e}) for e in installed)
        ):
            yield _package(requirement)


def extras() -> Check:
    """List the installed extras, the optional groups of dependencies."""
    there = [extra for extra in PACKAGES if not absent(extra)]
    missing = [extra for extra in PACKAGES if absent(extra)]
    names = ", ".join(there) or "none"
    if missing:
        return Check("extras", "note", f"{names}; not {', '.join(missing)}: pip install 'dnp-guard[NAME]'")
    return Check("extras", "ok", names)


def _declared() -> metadata.PackageMetadata | None:
    try:
        return metadata.metadata(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return None


def _package(requirement: Requirement) -> Check:
    name = requirement.name
    remedy = f"pip install '{requirement}'"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return failed(name, "package-missing", f"{name} is not installed", remedy)
    if not requirement.specifier.contains(version, prereleases=True):
        return failed(name, "package-version", f"{name} {version} is outside {requirement.specifier}", remedy)
    return Check(name, "ok", version)


def device() -> Check:
    """Check that torch loads, and on which device it computes."""
    try:
        torch = import_module("torch")
    except Exception as error:  # noqa: BLE001 (a broken binary raises anything)
        return failed("torch", "torch-import", f"torch does not load: {error}", "Reinstall torch for this platform.")
    if torch.cuda.is_available():
        return Check("torch", "ok", f"{torch.__version__}, {torch.cuda.get_device_name()}")
    if torch.backends.mps.is_available():
        return Check("torch", "ok", f"{torch.__version__}, Apple GPU")
    return Check("torch", "note", f"{torch.__version__}, CPU only: the embedded models are fast, large ones are not")


def loading() -> Iterator[Check]:
    """Check that the libraries of pipelines and of vision-language models load together."""
    for name, extra, classes in (
        ("diffusers", "diffusers", ("DiffusionPipeline", "StableDiffusionPipeline")),
        ("transformers", "local", ("AutoModelForImageTextToText", "AutoProcessor")),
    ):
        if absent(extra):
            continue
        try:
            module = import_module(name)
            for attribute in classes:
                getattr(module, attribute)
        except Exception as error:  # noqa: BLE001 (lazy imports raise the errors of their dependencies)
            reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            remedy = "The usual cause is a torchvision built for another torch: pip uninstall torchvision."
            yield failed(f"{name} loads", "import", f"{name} does not load: {reason[0]}", remedy)
        else:
            yield Check(f"{name} loads", "ok", ", ".join(classes))


def hosts() -> Check:
    """State which diffusers pipelines the guard can steer."""
    from dnp_guard.hosts.diffusers.prediction import SPACES  # noqa: PLC0415 (imports torch)

    pipelines = f"pipelines that give their denoiser a prompt, under {', '.join(sorted(SPACES))}"
    return Check("can be steered", "ok", pipelines)


def model(folder: Path) -> Check:
    """Check that a guard can be attached to the pipeline in a folder, without loading its weights."""
    name = "pipeline"
    try:
        needs("diffusers", "checking a pipeline")
        from dnp_guard.hosts.diffusers.saved import class_in  # noqa: PLC0415 (imports torch)

        kind = class_in(folder)
    except MissingExtra as error:
        return failed(name, "missing-extra", error.message, error.hint, str(folder))
    except CannotSteer as error:
        return failed(name, "cannot-steer", error.message, error.hint, str(folder))
    except (OSError, ValueError, KeyError) as error:
        remedy = "Give a folder with the model_index.json of a diffusers pipeline."
        return failed(name, "not-a-pipeline", f"it cannot be read: {error}", remedy, str(folder))
    auto = "attention, if a call shows its layers" if shown_in(folder) else "separate: attention was not measured"
    return Check(name, "ok", f"a guard can be attached to {kind}; `mode: auto` is {auto}")


def checkpoint(file: Path) -> Check:
    """State how ComfyUI, AUTOMATIC1111 and Forge steer with a single-file checkpoint, without loading its weights."""
    name = "checkpoint"
    try:
        needs("diffusers", "looking at a checkpoint")
        from safetensors import safe_open  # noqa: PLC0415 (needed by this check alone)

        with safe_open(file, "np") as opened:
            reaches = any(key.endswith("attn2.to_k.weight") for key in opened.keys())  # noqa: SIM118 (no mapping)
    except MissingExtra as error:
        return failed(name, "missing-extra", error.message, error.hint, str(file))
    except Exception as error:  # noqa: BLE001 (safetensors raises its own error for a damaged header)
        return failed(name, "weights-unreadable", f"it cannot be read: {error}", "Name a safetensors file.", str(file))
    auto = "separate: no layer attn2 reads its prompt"
    if reaches:
        auto = "attention" if shown_in(file) else f"separate: {file.stem}.attention.json does not lie beside it"
    return Check(name, "ok", f"in ComfyUI, AUTOMATIC1111 and Forge `mode: auto` is {auto}")


def weights() -> Iterator[Check]:
    """Check that the embedded models exist and can be read."""
    from safetensors import safe_open  # noqa: PLC0415 (only this check needs it)

    from dnp_guard.glyphs import FAST, PIPELINE, VLM  # noqa: PLC0415 (only this check needs it)

    for name, folder in (
        ("embedded text-to-image model", PIPELINE),
        ("embedded few-step denoiser", FAST),
        ("embedded vision-language model", VLM),
    ):
        remedy = "Reinstall the package; in a source tree, train them: python -m dnp_guard.lab.train."
        files = sorted(folder.rglob("*.safetensors"))
        if not files:
            yield failed(name, "weights-missing", "there are no weights", remedy, str(folder))
            continue
        digest = hashlib.sha256()
        try:
            for file in files:
                digest.update(file.read_bytes())
                with safe_open(file, "np") as opened:
                    opened.keys()
        except Exception as error:  # noqa: BLE001 (safetensors raises its own error for a damaged header)
            yield failed(name, "weights-unreadable", f"weights cannot be read: {error}", remedy, str(file))
        else:
            yield Check(name, "ok", f"{len(files)} files, sha256 {digest.hexdigest()[:12]}")


def policies() -> Iterator[Check]:
    """Check that every shipped policy is valid."""
    from dnp_guard.policy.read.loading import load_policy, shipped  # noqa: PLC0415 (only this check needs it)

    names = list(shipped())
    if not names:
        yield failed("policies", "policies-missing", "the package has no policies", "Reinstall the package.")
    for name in names:
        try:
            policy = load_policy(name)
        except PolicyError as error:
            yield Check(f"policy {name}", "failed", "invalid", error.problems)
        else:
            count = len(policy.categories)
            yield Check(
                f"policy {name}", "ok", f"{policy.revision}, {count} {'category' if count == 1 else 'categories'}"
            )


def audit(path: Path) -> Check:
    """Check that an audit log can be written at a path, without writing."""
    name = "audit log"
    folder = path.parent
    if not folder.is_dir():
        return failed(name, "audit-folder", "the folder does not exist", f"mkdir -p {folder}", str(path))
    if path.is_dir():
        return failed(
            name, "audit-folder", "the path is a folder", "Name a file in it, such as audit.jsonl.", str(path)
        )
    if not os.access(path if path.exists() else folder, os.W_OK):
        return failed(
            name, "audit-not-writable", "the file cannot be written", "Change its permissions or owner.", str(path)
        )
    return Check(name, "ok", f"{path} can be {'continued' if path.exists() else 'created'}")


def vlm(spec: str) -> Check:
    """Check that the vision-language backend that a spec names can be built, and describe it."""
    name = "vision-language model"
    from dnp_guard.plugins import Plugins  # noqa: PLC0415 (only this check needs it)
    from dnp_guard.vlm import plugin  # noqa: PLC0415 (only this check needs it)
    from dnp_guard.vlm.specs import offer  # noqa: PLC0415 (only this check needs it)

    try:
        backend = Plugins([plugin], (), lambda *_: None).hook.dnp_guard_vlm(spec=spec)
    except DnpGuardError as error:
        return failed(name, "vlm-unavailable", error.message, error.hint)
    if backend is None:
        return failed(name, "vlm-unknown", f"no backend is called {spec!r}", offer(spec))
    info = backend.info
    how = f", by {backend.mode}" if backend.mode else ""
    where = f" at {', '.join(info.addresses)}" if info.addresses else ""
    backend.close()
    return Check(name, "ok", f"{info.name} {info.revision}{where}, answers in {info.answers}{how}")


def plugins() -> Check:
    """List the plugins that installed packages offer, without loading them."""
    from dnp_guard.plugins import ENTRY_POINTS  # noqa: PLC0415 (only this check needs it)

    offered = sorted(
        f"{point.name} ({point.dist.name} {point.dist.version})" if point.dist else point.name
        for point in metadata.entry_points(group=ENTRY_POINTS)
    )
    return Check("plugins", "ok", f"loaded only by name, offered: {', '.join(offered) or 'none'}")


def tracing() -> Check:
    """Check that an OpenTelemetry SDK is installed, which receives the guard's tracing spans."""
    if util.find_spec("opentelemetry") and util.find_spec("opentelemetry.sdk"):
        return Check("tracing", "ok", f"OpenTelemetry SDK {metadata.version('opentelemetry-sdk')}")
    return Check("tracing", "note", "no OpenTelemetry SDK, so spans go nowhere: pip install 'dnp-guard[otel]'")
