"""Assemble tiny pipelines for classes without a configuration of their own, from parts of classes with similar names.

The *kin* of a class are the other classes that have a tiny pipeline; the more first letters their names have in common
with the class's, the nearer they are.
"""

import inspect
import re
from functools import cache

import diffusers
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from tests.hosts.tiny import CALLS, PIPELINES, of_diffusers, parts, variants
from tests.hosts.tiny.calls import BY_NAME

_ABSENT = ("feature_extractor", "image_encoder", "safety_checker", "watermarker")
_NEAREST = 12
_FAMILY = 6
"""Number of common first letters from which two class names belong to one family."""
_COMMON = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "WanPipeline")
"""Classes whose parts fit most classes of other names."""
_OF: dict[str, str] = {}
"""The classes built so far, mapped to the class from which their denoiser was taken."""
_PICTURED = re.compile("Control|Edit|Img2Img|Inpaint|ImageToVideo|Image2Video|VideoToVideo|Upscale|I2V|Layered")
_WORD = re.compile(r"[A-Za-z_]\w+")


class NoPartError(Exception):
    """A part of a pipeline can neither be taken from a known pipeline nor be made."""


@cache
def kin(name):
    """Return the names of the other classes that have a tiny pipeline, nearest by name first."""
    known = sorted({*PIPELINES, *of_diffusers.specs()} - {name})
    return sorted(known, key=lambda other: (-_alike(name, other), len(other)))


def _alike(one, other):
    """Count the first letters that two names have in common."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def built(kind):
    """Build a tiny pipeline of a class that is not modular."""
    name = kind.__name__
    taken = {
        parameter.name: parameter
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
    }
    annotations = {
        part_name: str(taken[part_name].annotation) for part_name in taken if part_name != "requires_safety_checker"
    }
    needed = {part_name for part_name in annotations if taken[part_name].default is inspect.Parameter.empty}
    components = variants.parts_of(name, fitting(name, annotations, needed))
    components = {part_name: part for part_name, part in components.items() if part_name in taken}
    for part_name in sorted(needed - {*components}):
        components[part_name] = made(part_name, annotations[part_name], components)
    return kind(**components, **({"requires_safety_checker": False} if "requires_safety_checker" in taken else {}))


def fitting(name, annotations, needed):
    """Collect parts for a pipeline class, each from the nearest kin that has a part of the same name and type.

    Args:
        name: name of the class.
        annotations: maps the names of its parts to their types, as written in the constructor.
        needed: names of the parts for which the search goes on.
    """
    components = {}
    near = [
        other
        for other in kin(name)
        if _alike(name, other) >= _FAMILY or name.startswith(other.removesuffix("Pipeline"))
    ]
    like = variants.VARIANTS[name].like if name in variants.VARIANTS else ""
    near = [like] * bool(like) + near
    for other in [*near[:_NEAREST], *_COMMON, *kin(name)[:_NEAREST]]:
        if not needed - {*components}:
            break
        torch.manual_seed(0)
        try:
            of_other = PIPELINES[other][0]() if other in PIPELINES else of_diffusers.components(other)
        except Exception:  # noqa: BLE001, S112 (the other kin are tried)
            continue
        fits = {
            part_name: part for part_name, part in of_other.items() if part is not None and part_name in annotations
        }
        fits = {part_name: part for part_name, part in fits.items() if is_of(part, annotations[part_name])}
        if other not in near:
            fits.pop("safety_checker", None)
        new = {*fits} - {*components}
        if {"transformer", "unet"} & new or ("vae" in new and name not in _OF):
            _OF[name] = other
        components = fits | components
    return components


def is_of(part, written):
    """Return whether a part has the type of an annotation; parts that are no diffusers models always fit."""
    if not isinstance(part, diffusers.ModelMixin):
        return True
    names = set(_WORD.findall(written))
    return "Any" in names or bool(names & {base.__name__ for base in type(part).__mro__})


def made(name, written, components):
    """Make a part that no kin has.

    Make a default scheduler or a model of the denoiser's sizes, reuse the first part of a pair such as
    ``text_encoder_2``, or return None for a part that the pipeline can do without.

    Args:
        name: name of the part.
        written: its type, as written in the constructor.
        components: the other parts.

    Raises:
        NoPartError: the part cannot be made.
    """
    denoiser = components.get("unet", components.get("transformer"))
    for word in _WORD.findall(written):
        kind = getattr(diffusers, word, None)
        if inspect.isclass(kind) and issubclass(kind, SchedulerMixin):
            return kind()
        if inspect.isclass(kind) and issubclass(kind, diffusers.ModelMixin) and denoiser is not None:
            return like(denoiser, kind)
    if name.removesuffix("_2") in components:
        return components[name.removesuffix("_2")]
    if name.startswith(_ABSENT):
        return None
    raise NoPartError(f"no part for {name}: {written[:60]}")


def like(denoiser, kind):
    """Make a model of the class ``kind`` with a denoiser's sizes, such as its ControlNet or its variant for videos."""
    for maker in ("from_unet", "from_transformer"):
        if hasattr(kind, maker):
            ratio = {"size_ratio": 1.0} if "size_ratio" in inspect.signature(getattr(kind, maker)).parameters else {}
            return parts.without_zeros(getattr(kind, maker)(denoiser, **ratio).eval())
    taken = inspect.signature(kind.__init__).parameters
    sizes = {setting: value for setting, value in denoiser.config.items() if setting in taken}
    if "3D" in kind.__name__ or "XLUNet" in kind.__name__:
        sizes = {setting: _of_videos(value) for setting, value in sizes.items()}
    return parts.without_zeros(kind(**sizes).eval())


def _of_videos(value):
    if isinstance(value, list | tuple):
        return type(value)(_of_videos(item) for item in value)
    return value.replace("2D", "3D") if isinstance(value, str) else value


def inputs(name, accepted, images):
    """Return arguments for calling a pipeline: those of its kin, and further ones that its class requires.

    Args:
        name: name of the class.
        accepted: maps the name of every argument of its call to whether the argument is required.
        images: number of images to ask for.
    """
    like = _OF.get(name, kin(name)[0])
    spec = of_diffusers.specs().get(like, {})
    given = (
        {**CALLS[like]}
        if like in CALLS
        else {key: of_diffusers.value(argument) for key, argument in spec.get("inputs", {}).items()}
    )
    for argument, value in BY_NAME.items():
        if argument not in given and argument in accepted and (accepted[argument] or _PICTURED.search(name)):
            given[argument] = value if not isinstance(value, list) else value[:images] if images > 1 else value[0]
    sizes = {argument: 32 for argument in ("height", "width") if argument not in given}
    called = of_diffusers.called({**sizes, **given}, accepted, images)
    return variants.given_to(name, called, images)
