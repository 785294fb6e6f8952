"""The guard: what users hold. It puts policy, backend, plugins and record together and attaches them to targets."""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dnp_guard.audit import prompt_field, prompt_key, spool_folder
from dnp_guard.errors import CannotSteer, DnpGuardError, VlmUnavailable
from dnp_guard.hosts.diffusers import late
from dnp_guard.plugins import Plugins
from dnp_guard.policy import Policy, load_policy
from dnp_guard.recorder import Recorder
from dnp_guard.session import Request, Runtime, Session
from dnp_guard.telemetry import Metrics, Tracing
from dnp_guard.vlm.address import allowed
from dnp_guard.vlm.asking import Asker
from dnp_guard.vlm.base import describe
from dnp_guard.vlm.plugin import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from prometheus_client import CollectorRegistry

    from dnp_guard.audit import Sink
    from dnp_guard.types import Report
    from dnp_guard.vlm.base import Backend


class Guard:
    """Watches generations and steers them away from what a policy forbids.

    Attach it to a diffusers pipeline with ``pipe.callback_on_step_end = guard``; every later call of the pipeline is
    guarded. ``with guard.attached(pipe):`` and ``guard.attach(target)`` do the same. As a call argument,
    ``pipe("…", callback_on_step_end=guard)``, it is weaker: it starts after the first step, does not know the prompts,
    and mends what a call that raised left behind only at the next call.

    Args:
        policy: a path, a shipped name such as ``"default"``, or a :class:`Policy`.
        vlm: ``glyphs``, ``transformers:ID_OR_FOLDER``, ``openai:MODEL@URL``, ``systemone:MODEL@URL``,
            ``decisions:MODEL@URL``, ``scripted:FILE``, or an object with ``ask(images, questions)``.
        audit: where records go: a path for a JSONL log (``jsonl:PATH?rotate_bytes=…&rotate_hours=…`` to rotate it),
            ``sqlite:PATH``, ``stdout:``, ``otel:``, a sink, or several of them; None to keep none.
        tenant: written to every record.
        plugins: names of installed plugins that may load (entry-point group ``dnp_guard``), or plugin objects.
        registry: where the Prometheus metrics are registered; a registry of its own otherwise.
        require_signature: reserved for signed policies.

    Raises:
        PolicyError: the policy does not check.
        VlmUnavailable: the backend cannot be built.
        AuditError: a sink cannot be opened.
        PluginError: a plugin is unknown or not allowed.
    """

    def __init__(
        self,
        policy: str | Path | Policy,
        *,
        vlm: str | Backend,
        audit: str | Path | Sink | Sequence[str | Path | Sink] | None = None,
        tenant: str | None = None,
        plugins: Iterable[str | object] = (),
        registry: CollectorRegistry | None = None,
        require_signature: str | None = None,
    ) -> None:
        if require_signature is not None:
            raise DnpGuardError(
                "signed policies are not available in this version", hint="Leave require_signature out."
            )
        self.policy = policy if isinstance(policy, Policy) else load_policy(policy)
        _refuse_unavailable(self.policy)
        self.metrics = Metrics(registry)
        self.metrics.policy_info(self.policy.name, self.policy.revision, self.policy.digest, self.policy.mode)
        self._last: ContextVar[Report | None] = ContextVar(f"dnp_guard.last.{id(self)}", default=None)
        self._plugins = Plugins(_builtin(), plugins, self._plugin_failed)
        backend = self._backend(vlm)
        self._owned = backend if isinstance(vlm, str) else None
        _refuse_backend(self.policy, backend)
        self._asker = Asker(backend, self.policy.queries.deadline_ms)
        sinks = [self._sink(each) for each in _several(audit)]
        info = describe(backend)
        self._recorder = Recorder(
            sinks,
            self.metrics,
            Tracing(),
            {
                "tenant": tenant,
                "policy": {
                    "name": self.policy.name,
                    "revision": self.policy.revision,
                    "digest": self.policy.digest,
                    "mode": self.policy.mode,
                },
                "vlm": {"name": info.name, "revision": info.revision},
            },
            spool=spool_folder(),
            required=self.policy.audit.required,
        )
        how = self.policy.audit.prompt
        log = next((path for sink in sinks if isinstance(path := getattr(sink, "path", None), Path)), None)
        self._redact = partial(prompt_field, how=how, key=prompt_key(log) if how == "hmac" else b"")
        loaded = [f"{each.name} ({each.distribution} {each.version})" for each in self._plugins.third_party]
        self.noted("policy.loaded", reason=f"plugins: {', '.join(loaded)}" if loaded else None)
        late.install()

    @property
    def last(self) -> Report | None:
        """The report of this context's latest generation; None before the first."""
        return self._last.get()

    def attach(self, target: Any) -> Callable[[], None]:
        """Guard every later call of a target.

        Args:
            target: a diffusers pipeline, or anything a host plugin recognises.

        Returns:
            A function that detaches the guard again.

        Raises:
            CannotSteer: the target cannot be steered, or no host plugin knows it.
        """
        detach = self._plugins.hook.dnp_guard_attach(guard=self, target=target)
        if detach is None:
            kind = f"{type(target).__module__}.{type(target).__qualname__}"
            raise CannotSteer(
                f"no host adapter recognises {kind}",
                hint="Attach a diffusers pipeline, or allow a plugin that knows it.",
            )
        return detach  # type: ignore[no-any-return]

    @contextmanager
    def attached(self, target: Any) -> Iterator[Self]:
        """Guard the calls of a target inside a ``with`` block."""
        detach = self.attach(target)
        try:
            yield self
        finally:
            detach()

    def start(self, request: Request) -> Session:
        """Begin a session for one generation; for host adapters.

        Raises:
            RequestRefused: the request needs more questions than the policy allows.
        """
        runtime = Runtime(self.policy, self._asker, self._plugins, self._recorder, self._redact)
        return Session(runtime, request)

    def finished(self, session: Session) -> None:
        """Keep a session's report as :attr:`last`; for host adapters."""
        self._last.set(session.report)

    def noted(self, event: str, **values: object) -> None:
        """Record an event outside a generation, such as ``guard.attached``; for host adapters."""
        self._recorder.emit(event, **values)
        self._recorder.settle()

    def close(self) -> None:
        """Close the audit sinks, and the backend that a spec named. The guard cannot be used afterwards."""
        self._asker.close()
        if self._owned is not None and hasattr(self._owned, "close"):
            self._owned.close()
        self._recorder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, pipe: Any, step: int, timestep: Any, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        """Act as ``callback_on_step_end`` of a single call; diffusers calls this after each step."""
        from dnp_guard.hosts.diffusers.argument import after_step  # noqa: PLC0415 (imports torch)

        return after_step(self, pipe, step, callback_kwargs)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # a copied pipeline shares its guard

    def _backend(self, vlm: str | Backend) -> Backend:
        if not isinstance(vlm, str):
            if not callable(getattr(vlm, "ask", None)):
                raise VlmUnavailable(
                    f"vlm={vlm!r} has no ask(images, questions)",
                    hint="Pass a spec such as 'glyphs', or such an object.",
                )
            return vlm
        backend = self._plugins.hook.dnp_guard_vlm(spec=vlm)
        if backend is None:
            raise VlmUnavailable(
                f"no backend knows the spec {vlm!r}",
                hint=f"Use {', '.join(KINDS)}, or allow a plugin that knows another.",
            )
        return backend  # type: ignore[no-any-return]

    def _sink(self, audit: str | Path | Sink) -> Sink:
        if not isinstance(audit, str | Path):
            return audit
        return self._plugins.hook.dnp_guard_audit_sink(spec=os.fspath(audit))  # type: ignore[no-any-return]

    def _plugin_failed(self, plugin: str, hook: str, error: Exception) -> None:
        self.metrics.degraded("plugin_error")
        recorder = getattr(self, "_recorder", None)
        if recorder is not None:
            recorder.emit("degraded", reason=f"plugin_error: {plugin} raised in {hook}: {type(error).__name__}")


def _refuse_unavailable(policy: Policy) -> None:
    """Refuse what the policy language has and this version does not do yet, rather than pass over it."""
    asked = {
        "guidance.strength: controller": policy.guidance.strength == "controller",
        f"preview.method: {policy.preview.method}": policy.preview.method in {"tiny", "linear"},
        f"audit.previews: {policy.audit.previews}": policy.audit.previews != "never",
    }
    for key, used in asked.items():
        if used:
            raise DnpGuardError(
                f"policy {policy.name!r} uses {key}, which is not available in this version", hint="Leave the key out."
            )


def _refuse_backend(policy: Policy, backend: Backend) -> None:
    info = describe(backend)
    sensitive = [category.id for category in policy.categories if category.sensitive]
    listed = policy.vlm is None or (
        all(allowed(address, policy.vlm.allow) for address in info.addresses)
        if info.addresses
        else info.local and "local" in policy.vlm.allow
    )
    if not listed or (sensitive and not info.local):
        why = f"category {sensitive[0]!r} is sensitive" if sensitive else "vlm.allow does not list it"
        raise VlmUnavailable(
            f"policy {policy.name!r} does not allow the backend {info.name!r}: {why}",
            hint="Use a backend that the policy allows.",
        )
    if info.answers == "text" and policy.mode == "enforce" and policy.question.answer != "text":
        raise VlmUnavailable(
            f"the backend {info.name!r} answers yes or no in text, which is easier to talk out of an answer",
            hint="Use a backend that gives probabilities, or write question: {answer: text} in the policy.",
        )


def _builtin() -> tuple[object, ...]:
    from dnp_guard.audit import plugin as audit  # noqa: PLC0415 (kept beside its use: the list of built-in plugins)
    from dnp_guard.hosts.diffusers import plugin as diffusers  # noqa: PLC0415
    from dnp_guard.vlm import plugin as vlm  # noqa: PLC0415

    return diffusers, vlm, audit


def _several(audit: str | Path | Sink | Sequence[str | Path | Sink] | None) -> list[str | Path | Sink]:
    if audit is None:
        return []
    return list(audit) if isinstance(audit, list | tuple) else [audit]  # type: ignore[list-item]
