"""The built-in plugin that opens audit sinks: a plain path is a JSONL log; other kinds have a prefix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from dnp_guard.audit.checkpoint import ORIGIN, read_signer
from dnp_guard.audit.write.checkpointed import EVERY, CheckpointedSink
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.audit.write.sqlite import SqliteSink
from dnp_guard.audit.write.streams import OtelSink, StreamSink
from dnp_guard.errors import AuditError, nearest
from dnp_guard.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from dnp_guard.audit.write.checkpointed import Kept
    from dnp_guard.audit.write.sinks import Sink


@hookimpl(trylast=True)
def dnp_guard_audit_sink(spec: str) -> Sink | None:
    """Open the sink that a text names: ``jsonl:PATH`` or only a path, ``sqlite:PATH``, ``stdout:`` or ``otel:``."""
    kind, colon, rest = spec.partition(":")
    if colon and kind not in _KINDS and (meant := nearest(kind, list(_KINDS))):
        raise AuditError(f"no audit sink is called {kind!r}", hint=f"Did you mean {meant}:{rest}?")
    if not colon or kind not in _KINDS:
        return JsonlSink(Path(spec))
    place, _, query = rest.partition("?")
    return _KINDS[kind](place, dict(parse_qsl(query, keep_blank_values=True)), spec)


def log_path(sink: object) -> Path | None:
    """Return the path of the log of a sink, or of a text such as ``sqlite:PATH``; None if the log is not in a file."""
    if not isinstance(sink, str):
        path = sink if isinstance(sink, Path) else getattr(sink, "path", None)
        return path if isinstance(path, Path) else None
    kind, colon, rest = sink.partition(":")
    if not colon or kind not in _KINDS:
        return Path(sink)
    place = rest.partition("?")[0]
    return Path(place) if place and kind in {"jsonl", "sqlite"} else None


def _jsonl(place: str, options: dict[str, str], spec: str) -> Sink:
    known: dict[str, Callable[[str], object]] = {
        "rotate_bytes": int,
        "rotate_hours": float,
        "sync": _switch,
        **_CHECKPOINTS,
    }
    return _checkpointed(JsonlSink, place, _options(options, known, spec), spec)


def _sqlite(place: str, options: dict[str, str], spec: str) -> Sink:
    return _checkpointed(SqliteSink, place, _options(options, {"sync": _switch, **_CHECKPOINTS}, spec), spec)


def _checkpointed(kind: Callable[..., Kept], place: str, options: dict[str, Any], spec: str) -> Sink:
    asked = {name: options.pop(name) for name in _CHECKPOINTS if name in options}
    sink = kind(_path(place, spec), **options)
    if not asked:
        return sink
    if "checkpoints" not in asked:
        raise AuditError(f"the audit sink {spec!r} names no file for checkpoints", hint="Add checkpoints=FILE.")
    to, key = asked["checkpoints"], asked.get("checkpoint_key")
    return CheckpointedSink(
        sink,
        to,
        read_signer(key) if key else None,
        origin=asked.get("checkpoint_origin", ORIGIN),
        every=asked.get("checkpoint_seconds", EVERY),
    )


def _stdout(place: str, options: dict[str, str], spec: str) -> Sink:
    _options(options | ({place: ""} if place else {}), {}, spec)  # text after the colon is no valid option
    return StreamSink()


def _otel(place: str, options: dict[str, str], spec: str) -> Sink:
    _options(options | ({place: ""} if place else {}), {}, spec)
    return OtelSink()


_ROTATION: Final[dict[str, Callable[[str], object]]] = {"rotate_bytes": int, "rotate_hours": float}
_CHECKPOINTS: Final[dict[str, Callable[[str], object]]] = {
    "checkpoints": str,
    "checkpoint_key": str,
    "checkpoint_origin": str,
    "checkpoint_seconds": float,
}
_KINDS: Final[dict[str, Callable[[str, dict[str, str], str], Sink]]] = {
    "jsonl": _jsonl,
    "sqlite": _sqlite,
    "stdout": _stdout,
    "otel": _otel,
}


def _path(place: str, spec: str) -> Path:
    if not place:
        raise AuditError(f"the audit sink {spec!r} names no file", hint="Write it as kind:PATH.")
    return Path(place)


def _options(given: dict[str, str], known: dict[str, Callable[[str], object]], spec: str) -> dict[str, Any]:
    if unknown := sorted(given.keys() - known.keys()):
        raise AuditError(
            f"the audit sink {spec!r} has no option {unknown[0]!r}", hint=f"It has {', '.join(known) or 'none'}."
        )
    try:
        return {name: known[name](value) for name, value in given.items()}
    except ValueError as error:
        raise AuditError(f"the audit sink {spec!r}: {error}", hint="Give a number; sync=1 or sync=0.") from error


def _switch(value: str) -> bool:
    if value not in {"0", "1"}:
        raise ValueError(f"{value!r} is neither 0 nor 1")
    return value == "1"
