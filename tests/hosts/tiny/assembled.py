"""Tiny pipelines of classes that have no configuration of their own: each is made of the parts of its nearest kin."""

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
"""Letters in common from which two names are of one family."""
_COMMON = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "WanPipeline")
"""What most classes of other names are made of."""
_OF: dict[str, str] = {}
"""The classes to those that their denoisers are from."""
_PICTURED = re.compile("Control|Edit|Img2Img|Inpaint|ImageToVideo|Image2Video|VideoToVideo|Upscale|I2V|Layered")
_WORD = re.compile(r"[A-Za-z_]\w+")


class NoPartError(Exception):
    """No known pipeline has a part that another one needs."""


@cache
def kin(name):
    """The classes of which a tiny one is known, the nearest by name first."""
    known = sorted({*PIPELINES, *of_diffusers.specs()} - {name})
    return sorted(known, key=lambda other: (-_alike(name, other), len(other)))


def _alike(one, other):
    """How many letters two names begin with in common."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def built(kind):
    """An ordinary pipeline of a class."""
    name = kind.__name__
    taken = {
        each.name: each
        for each in inspect.signature(kind).parameters.values()
        if each.kind not in {each.VAR_KEYWORD, each.VAR_POSITIONAL}
    }
    wanted = {each: str(taken[each].annotation) for each in taken if each != "requires_safety_checker"}
    needed = {each for each in wanted if taken[each].default is inspect.Parameter.empty}
    found = variants.parts_of(name, fitting(name, wanted, needed))
    found = {each: part for each, part in found.items() if each in taken}
    for each in sorted(needed - {*found}):
        found[each] = made(each, wanted[each], found)
    return kind(**found, **({"requires_safety_checker": False} if "requires_safety_checker" in taken else {}))


def fitting(name, wanted, needed):
    """Parts from the nearest kin that have one of that name and type.

    Args:
        name: of the class that they are for.
        wanted: the names of its parts to their types, as they are written.
        needed: those that are looked for further.
    """
    found = {}
    near = [
        other
        for other in kin(name)
        if _alike(name, other) >= _FAMILY or name.startswith(other.removesuffix("Pipeline"))
    ]
    like = variants.VARIANTS[name].like if name in variants.VARIANTS else ""
    near = [like] * bool(like) + near
    for other in [*near[:_NEAREST], *_COMMON, *kin(name)[:_NEAREST]]:
        if not needed - {*found}:
            break
        torch.manual_seed(0)
        try:
            of_other = PIPELINES[other][0]() if other in PIPELINES else of_diffusers.components(other)
        except Exception:  # noqa: BLE001, S112 (the others are asked)
            continue
        fits = {each: part for each, part in of_other.items() if part is not None and each in wanted}
        fits = {each: part for each, part in fits.items() if is_of(part, wanted[each])}
        if other not in near:
            fits.pop("safety_checker", None)
        new = {*fits} - {*found}
        if {"transformer", "unet"} & new or ("vae" in new and name not in _OF):
            _OF[name] = other
        found = fits | found
    return found


def is_of(part, written):
    """Whether a part is of a type, as an annotation has it; any text encoder reads what our tokenizers give."""
    if not isinstance(part, diffusers.ModelMixin):
        return True
    names = set(_WORD.findall(written))
    return "Any" in names or bool(names & {each.__name__ for each in type(part).__mro__})


def made(name, written, found):
    """A part that no kin has: of the denoiser's own sizes, a scheduler of its defaults, the other of a pair, or none.

    Raises:
        NoPartError: it cannot be made.
    """
    denoiser = found.get("unet", found.get("transformer"))
    for each in _WORD.findall(written):
        kind = getattr(diffusers, each, None)
        if inspect.isclass(kind) and issubclass(kind, SchedulerMixin):
            return kind()
        if inspect.isclass(kind) and issubclass(kind, diffusers.ModelMixin) and denoiser is not None:
            return like(denoiser, kind)
    if name.removesuffix("_2") in found:
        return found[name.removesuffix("_2")]
    if name.startswith(_ABSENT):
        return None
    raise NoPartError(f"no part for {name}: {written[:60]}")


def like(denoiser, kind):
    """A model of the sizes of a denoiser: its ControlNet, or one of videos where that one is of pictures."""
    for maker in ("from_unet", "from_transformer"):
        if hasattr(kind, maker):
            ratio = {"size_ratio": 1.0} if "size_ratio" in inspect.signature(getattr(kind, maker)).parameters else {}
            return parts.without_zeros(getattr(kind, maker)(denoiser, **ratio).eval())
    taken = inspect.signature(kind.__init__).parameters
    sizes = {each: value for each, value in denoiser.config.items() if each in taken}
    if "3D" in kind.__name__ or "XLUNet" in kind.__name__:
        sizes = {each: _of_videos(value) for each, value in sizes.items()}
    return parts.without_zeros(kind(**sizes).eval())


def _of_videos(value):
    if isinstance(value, list | tuple):
        return type(value)(_of_videos(each) for each in value)
    return value.replace("2D", "3D") if isinstance(value, str) else value


def inputs(name, accepted, images):
    """What a class is called with for so many images: as its nearest kin, and what it cannot be called without.

    Args:
        name: of the class.
        accepted: the names of the arguments of its call to whether it cannot be called without.
        images: how many.
    """
    like = _OF.get(name, kin(name)[0])
    spec = of_diffusers.specs().get(like, {})
    given = (
        {**CALLS[like]}
        if like in CALLS
        else {key: of_diffusers.value(each) for key, each in spec.get("inputs", {}).items()}
    )
    for each, value in BY_NAME.items():
        if each not in given and each in accepted and (accepted[each] or _PICTURED.search(name)):
            given[each] = value if not isinstance(value, list) else value[:images] if images > 1 else value[0]
    sizes = {each: 32 for each in ("height", "width") if each not in given}
    called = of_diffusers.called({**sizes, **given}, accepted, images)
    return variants.given_to(name, called, images)
