"""Copy a denoiser for one call, so that the guard can watch and change what its attention layers do.

Only the modules that contain an attention layer are copied, and none of their weights: parameters, adapters such as a
LoRA, processors and everything else are the denoiser's own. The denoiser itself is not touched, so that calls that
share it do not affect one another, and nothing is left behind.
"""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Protocol

import torch

from dnp_guard.errors import CannotSteer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

CONTEXT = "encoder_hidden_states"
"""Argument of an attention layer for its input besides the queries: in most denoisers the prompt."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class Stage(Protocol):
    """A handler of a denoiser's attention layers: it defines how they run during an evaluation."""

    def attend(self, layer: Layer, given: Mapping[str, Any], run: Callable[..., Any]) -> Any:
        """Return a layer's output.

        Args:
            layer: the layer.
            given: arguments of the layer, by name.
            run: runs the layer itself.
        """

    def features(self, layer: Layer, z: Tensor) -> Tensor:
        """Return the features for the layer's output projection in place of z, [rows, tokens, D]."""


class Plain:
    """A stage (handler of a denoiser's attention layers) that leaves every layer as it is."""

    def attend(self, _layer: Layer, given: Mapping[str, Any], run: Callable[..., Any]) -> Any:
        """Run the layer itself."""
        return run(**given)

    def features(self, _layer: Layer, z: Tensor) -> Tensor:
        """Return the features unchanged."""
        return z


class WatchedDenoiser:
    """A copy of a denoiser whose attention layers are handled by a stage.

    Args:
        part: the denoiser.

    Attributes:
        module: the copy, to be evaluated in place of the denoiser.
        stage: the current stage, which defines how the attention layers run.

    Raises:
        CannotSteer: the denoiser is no torch module, or is compiled or hooked so that its layers cannot be replaced.
    """

    def __init__(self, part: Any) -> None:
        self.stage: Stage = Plain()
        self._copies: dict[int, torch.nn.Module] = {}
        if hasattr(part, "_orig_mod"):
            raise _bound("compiled as a whole")
        if not isinstance(part, torch.nn.Module):
            raise CannotSteer("its denoiser is no torch module", hint="Use guidance mode 'separate'.")
        self.module = self._watched(part, "")

    def _watched(self, module: torch.nn.Module, name: str) -> torch.nn.Module:
        """Return a module itself, or a copy if it is or contains an attention layer."""
        if id(module) in self._copies:
            return self._copies[id(module)]
        if is_attention(module):
            made = Layer(self, module, name).module
        else:
            inner = {key: child for key, child in module.named_children() if key in module._modules}  # noqa: SLF001
            mine = {key: self._watched(child, f"{name}.{key}".lstrip(".")) for key, child in inner.items()}
            if all(mine[key] is inner[key] for key in inner):
                return module
            made = _copied(module)
            made._modules = {**module._modules, **mine}  # noqa: SLF001 (a copy of its own)
        self._copies[id(module)] = made
        return made


class Layer:
    """One attention layer in the copy of a denoiser.

    Args:
        of: the copy that the layer belongs to.
        module: the denoiser's own layer.
        name: name of the layer in its denoiser.

    Attributes:
        module: the copy of the layer.
        name: name of the layer in its denoiser.
        taps: whether the input of the layer's output projection can be replaced; if not, its output is replaced.
    """

    def __init__(self, of: WatchedDenoiser, module: torch.nn.Module, name: str) -> None:
        self.name = name
        self.module = made = _copied(module)
        own = vars(made).get("forward")
        forward = type(module).forward
        names = inspect.signature(forward).parameters
        places = [key for key, parameter in names.items() if parameter.kind is not parameter.VAR_KEYWORD][1:]

        def run(**given: Any) -> Any:
            return own(**given) if own is not None else forward(made, **given)

        def attended(*args: Any, **kwargs: Any) -> Any:
            given = {**dict(zip(places, args, strict=False)), **kwargs}
            return of.stage.attend(self, given, run)

        vars(made)["forward"] = attended
        out = getattr(module, "to_out", None)
        self.taps = isinstance(out, torch.nn.ModuleList) and len(out) > 0
        if isinstance(out, torch.nn.ModuleList) and self.taps:
            tap = self._tap(of, out[0])
            made._modules = {**module._modules, "to_out": torch.nn.ModuleList([tap, *out[1:]])}  # noqa: SLF001

    def _tap(self, of: WatchedDenoiser, projection: torch.nn.Module) -> torch.nn.Module:
        tap = copy.copy(projection)
        for hooks in _HOOKS:
            vars(tap)[hooks] = OrderedDict()  # the projection's own hooks run when it is called
        vars(tap)["forward"] = lambda z, *args, **kwargs: projection(of.stage.features(self, z), *args, **kwargs)
        return tap


def is_attention(module: torch.nn.Module) -> bool:
    """Return whether a module is an attention layer as diffusers builds them, with a processor that does the work."""
    return callable(getattr(module, "processor", None)) and hasattr(module, "to_q") | hasattr(module, "to_qkv")


def _copied(module: torch.nn.Module) -> Any:
    """Copy a module, sharing its weights.

    Raises:
        CannotSteer: the module is compiled or hooked, so that evaluating a copy would evaluate the module itself.
    """
    if getattr(module, "_compiled_call_impl", None) is not None:
        raise _bound("compiled")
    made = copy.copy(module)
    if "forward" not in vars(made):
        return made
    hook = getattr(module, "_hf_hook", None)
    if hook is None:
        raise _bound("hooked")
    del vars(made)["forward"]
    plain = type(module).forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = hook.pre_forward(module, *args, **kwargs)
        return hook.post_forward(module, plain(made, *args, **kwargs))

    vars(made)["forward"] = forward
    return made


def _bound(how: str) -> CannotSteer:
    return CannotSteer(
        f"the layers of its denoiser cannot be watched, as it is {how}",
        hint="Use guidance mode 'auto' or 'separate', which steer by its outputs.",
    )
