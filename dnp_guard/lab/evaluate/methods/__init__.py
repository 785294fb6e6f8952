"""Build the methods of the comparison by name: the guard, published methods and static negative prompts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dnp_guard.errors import DnpGuardError, did_you_mean
from dnp_guard.lab.evaluate.baselines import vsf
from dnp_guard.lab.evaluate.methods.attending import SCALE, Attended
from dnp_guard.lab.evaluate.methods.base import Made, Method, Task
from dnp_guard.lab.evaluate.methods.guarded import Guarded, retrying, separately, whole_list
from dnp_guard.lab.evaluate.methods.oracle import Oracle
from dnp_guard.lab.evaluate.methods.published import Dng, PerpNeg, Sld
from dnp_guard.lab.evaluate.methods.safree import Safree
from dnp_guard.lab.evaluate.methods.static import Static
from dnp_guard.lab.evaluate.methods.unguarded import Unguarded
from dnp_guard.lab.evaluate.methods.vl_dnp import RELEASED_SCALE, VlDnp
from dnp_guard.policy import load_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dnp_guard.policy import Policy

__all__ = ["METHODS", "UNGUIDED", "Made", "Method", "Task", "applicable", "method"]

EVLDNP_GATE = 0.95

_UNSCALED: dict[str, Callable[[], Method]] = {
    "unguarded": Unguarded,
    "static-replace": partial(Static, "static-replace", None),
    "static-right-name-replace": partial(Static, "static-right-name-replace", None, right_name=True),
    **{f"sld-{name}": partial(Sld.configured, f"sld-{name}") for name in ("weak", "medium", "strong", "max")},
    "safree": Safree,
}
_SCALED: dict[str, tuple[Callable[[float], Method], float]] = {
    "static-separate": (partial(Static, "static-separate"), RELEASED_SCALE),
    "static-right-name": (partial(Static, "static-right-name", right_name=True), RELEASED_SCALE),
    "nag-static": (partial(Attended, "nag-static"), SCALE),
    "nag-right-name": (partial(Attended, "nag-right-name", right_name=True), SCALE),
    "vsf-static": (partial(Attended, "vsf-static", formula="vsf"), vsf.SCALE),
    "dng": (Dng, 1.0),
    "perp-neg-static": (PerpNeg, 3.0),
    "vl-dnp": (VlDnp, RELEASED_SCALE),
    "evl-dnp": (partial(VlDnp, gate=EVLDNP_GATE), RELEASED_SCALE),
}
_GUARDED = ("oracle", "dnp-guard", "dnp-guard-retry", "dnp-guard-separate", "dnp-guard-whole-list")

METHODS = (
    "unguarded",
    "static-replace",
    "static-separate",
    "static-right-name",
    "static-right-name-replace",
    "nag-static",
    "nag-right-name",
    "vsf-static",
    "sld-weak",
    "sld-medium",
    "sld-strong",
    "sld-max",
    "safree",
    "dng",
    "perp-neg-static",
    "vl-dnp",
    "evl-dnp",
    "oracle",
    "dnp-guard",
    "dnp-guard-retry",
    "dnp-guard-separate",
    "dnp-guard-whole-list",
)
"""Names of all methods, in the order of the table."""

UNGUIDED = (
    "unguarded",
    "static-separate",
    "static-right-name",
    "nag-static",
    "nag-right-name",
    "vsf-static",
    "vl-dnp",
    "oracle",
    "dnp-guard",
    "dnp-guard-retry",
    "dnp-guard-separate",
)
"""Methods that need no classifier-free guidance, and so apply to a few-step model."""


def applicable(words: Iterable[str], refused: Mapping[str, str]) -> list[str]:
    """Return the names of the methods to measure, with ``all`` expanded.

    Args:
        words: names, ``NAME@SCALE``, or ``all`` for all methods that can run on the model.
        refused: for every method that cannot run on the model, the reason.

    Raises:
        DnpGuardError: if a named method is refused.
    """
    every = [name for name in METHODS if name not in refused]
    names = [name for word in words for name in (every if word == "all" else (word,))]
    for name in names:
        if reason := refused.get(name.partition("@")[0]):
            raise DnpGuardError(f"the method {name!r} cannot be measured: {reason}", hint=f"Use {', '.join(every)}.")
    return names


def method(name: str, *, scale: float | None = None, policy: Policy | None = None) -> Method:
    """Build a method of the comparison by name.

    Args:
        name: one of :data:`METHODS`.
        scale: scale of its negative prompt; None for the method's default.
        policy: policy of the oracle or the guard; None for the shipped ``glyphs``.

    Raises:
        DnpGuardError: if there is no such method, or it has no scale or policy to set.
    """
    if name not in METHODS:
        raise DnpGuardError(f"there is no method {name!r}", hint=did_you_mean(name, METHODS))
    if name in _GUARDED:
        return _guarded(name, policy, scale)
    if policy is not None:
        raise DnpGuardError(f"the method {name!r} has no policy", hint=f"Methods with a policy: {', '.join(_GUARDED)}.")
    if name in _SCALED:
        make, own = _SCALED[name]
        return make(own if scale is None else float(scale))
    if scale is not None:
        raise DnpGuardError(f"the method {name!r} has no scale", hint=f"Methods with a scale: {', '.join(_SCALED)}.")
    return _UNSCALED[name]()


def _guarded(name: str, policy: Policy | None, scale: float | None) -> Method:
    if name == "oracle":
        return Oracle(policy=policy, scale=scale)
    if name == "dnp-guard":
        return Guarded(policy=policy, scale=scale)
    changed = {"dnp-guard-separate": separately, "dnp-guard-retry": retrying}.get(name, whole_list)
    return Guarded(name, policy=changed(policy or load_policy("glyphs")), scale=scale)
