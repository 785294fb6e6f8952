"""Negatives that were encoded beforehand, for pipelines whose text encoder is not there when they are called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dnp_guard.errors import DnpGuardError
from dnp_guard.extras import needs

Encoded = Mapping[str, Mapping[str, Any]]
"""Words to what a call takes for them: ``prompt_embeds``, ``pooled_prompt_embeds``, ``prompt_attention_mask`` …"""


def read(encoded: Encoded | str | Path) -> Encoded:
    """What words are encoded as, from a mapping or from a file of safetensors whose keys are ``WORDS/ARGUMENT``.

    Raises:
        MissingExtra: it is a file, and the extra ``diffusers`` is not installed.
        DnpGuardError: there are none, or what is given is not one row of a tensor for each argument of a prompt.
    """
    found = encoded if isinstance(encoded, Mapping) else _from_file(Path(encoded))
    if not found:
        raise DnpGuardError("no words are encoded", hint="Give what each negative of the policy is encoded as.")
    for words, given in found.items():
        for name, value in given.items():
            if name.startswith("negative_") or "prompt" not in name:
                raise DnpGuardError(
                    f"{words!r} is encoded as {name!r}, which is no argument of a prompt",
                    hint="Name the arguments of the prompt, such as prompt_embeds.",
                )
            if getattr(value, "ndim", 0) < 1 or value.shape[0] != 1:
                raise DnpGuardError(
                    f"{name} of {words!r} is not one row of a tensor", hint="Encode each text on its own: [1, …]."
                )
    return {words: dict(given) for words, given in found.items()}


def _from_file(path: Path) -> Encoded:
    needs("diffusers", f"reading {path.name}")
    from safetensors import SafetensorError  # noqa: PLC0415 (it comes with the extra)
    from safetensors.torch import load_file  # noqa: PLC0415 (likewise)

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DnpGuardError(f"{path}: it cannot be read: {error}", hint="Write it with safetensors.") from error
    found: dict[str, dict[str, Any]] = {}
    for key, value in tensors.items():
        words, _, name = key.rpartition("/")
        found.setdefault(words, {})[name] = value
    return found
