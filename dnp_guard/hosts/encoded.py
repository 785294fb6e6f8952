"""Negative prompts that were encoded beforehand, for pipelines whose text encoder is not available during a call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dnp_guard.errors import DnpGuardError
from dnp_guard.extras import needs

Encoded = Mapping[str, Mapping[str, Any]]
"""Text of each negative prompt, with its encoding as call arguments: ``prompt_embeds``, ``pooled_prompt_embeds``, …"""


def read(encoded: Encoded | str | Path) -> Encoded:
    """Read encoded negative prompts from a mapping or a safetensors file.

    The keys of a file are ``WORDS/ARGUMENT``, such as ``blood, gore/prompt_embeds``.

    Raises:
        MissingExtra: a file is given, and the extra ``diffusers`` is not installed.
        DnpGuardError: the file cannot be read, nothing is encoded, or a value is not a one-row tensor for a prompt
            argument.
    """
    encodings = encoded if isinstance(encoded, Mapping) else _from_file(Path(encoded))
    if not encodings:
        raise DnpGuardError("no words are encoded", hint="Give an encoding for each negative of the policy.")
    for words, given in encodings.items():
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
    return {words: dict(given) for words, given in encodings.items()}


def _from_file(path: Path) -> Encoded:
    needs("diffusers", f"reading {path.name}")
    from safetensors import SafetensorError  # noqa: PLC0415 (it comes with the extra)
    from safetensors.torch import load_file  # noqa: PLC0415 (likewise)

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DnpGuardError(f"{path}: it cannot be read: {error}", hint="Write it with safetensors.") from error
    encodings: dict[str, dict[str, Any]] = {}
    for key, value in tensors.items():
        words, _, name = key.rpartition("/")
        encodings.setdefault(words, {})[name] = value
    return encodings
