"""The guard, which combines policy, vision-language model, plugins and audit record, and attaches to pipelines."""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dnp_guard.audit.events import Overridden
from dnp_guard.builtin import builtin
from dnp_guard.errors import CannotSteer, RequestRefused
from dnp_guard.generation import override
from dnp_guard.generation.account import Account
from dnp_guard.generation.driver import Driver
from dnp_guard.generation.latest import Latest
from dnp_guard.generation.query import Inquiry
from dnp_guard.generation.session import Session
from dnp_guard.generation.tightening import Tightening
from dnp_guard.hosts import encoded
from dnp_guard.hosts.diffusers import on_import
from dnp_guard.in_force import InForce
from dnp_guard.on_record import open_record, remembered
from dnp_guard.plugins import Plugins, several
from dnp_guard.policy import as_store
from dnp_guard.policy.force import admission
from dnp_guard.policy.force.rollout import Rollout
from dnp_guard.policy.force.signing import verifier
from dnp_guard.policy.rehearsal.detection import answers_about
from dnp_guard.preview.probes import Probes
from dnp_guard.telemetry import Metrics
from dnp_guard.vlm.canary import Watched
from dnp_guard.vlm.desk import desk_of
from dnp_guard.vlm.known_pictures import read_known

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from prometheus_client import CollectorRegistry

    from dnp_guard.audit import Sink
    from dnp_guard.audit.events import Event
    from dnp_guard.generation.host import Holder
    from dnp_guard.generation.state import Request, State
    from dnp_guard.hosts.encoded import Encoded
    from dnp_guard.policy import Policy, Store
    from dnp_guard.preview.probe import Probe
    from dnp_guard.types import Report
    from dnp_guard.vlm.base import Asked, Backend


class Guard:
    """Watches generations and steers them away from what a policy forbids.

    Attach it to a diffusers pipeline with ``pipe.callback_on_step_end = guard``; every later call of the pipeline is
    guarded. ``with guard.attached(pipe):`` and ``guard.attach(target)`` do the same. As a call argument,
    ``pipe("…", callback_on_step_end=guard)``, it is weaker: it starts after the first step, does not know the prompts,
    refuses videos, and cleans up only at the next call if a call raises.

    Args:
        policy: path of a policy or of a folder of policies, a shipped name such as ``"default"``, a :class:`Policy`, or
            a store.
        vlm: ``glyphs``, ``transformers:ID_OR_FOLDER``, ``openai:MODEL@URL``, ``systemone:MODEL@URL``,
            ``decisions:MODEL@URL``, ``scripted:FILE``, or an object with ``ask(images, questions)``; for two backends,
            :class:`~dnp_guard.vlm.combined.Either` or :class:`~dnp_guard.vlm.combined.AtFinal`.
        audit: sinks for records: a path for a JSONL log (``jsonl:PATH?rotate_bytes=…&rotate_hours=…`` to rotate it),
            ``sqlite:PATH``, ``stdout:``, ``otel:``, a sink, or a sequence of these; None for no record.
        tenant: tenant that the guard serves. It selects policies from a store, and is in every record.
        plugins: names of installed plugins that may load (entry-point group ``dnp_guard``), or plugin objects.
        registry: registry for the Prometheus metrics; a private one by default.
        require_signature: public key, in base64, that policies must be signed with. Unsigned, altered, expired and
            rolled-back policies are refused.
        canaries: folder of pictures with known answers and their ``labels.csv``. They are queried at the start, every
            hour and after a failure. A wrong answer raises an error at the start; later it makes queries fail with
            ``vlm_changed``.
        preview_vae: an ``AutoencoderTiny``, or its folder, to decode previews if the policy's ``preview.method`` is
            ``tiny`` or ``auto``.
        probe: file that ``dnp-guard distill`` wrote, for policies with ``queries.skip_probe``. The embedded model has a
            probe of its own.

    Raises:
        PolicyError: the policy is invalid.
        VlmUnavailable: the backend cannot be built.
        MissingExtra: the backend computes in process, and the extra ``local`` is not installed.
        AuditError: a sink cannot be opened.
        PluginError: a plugin is unknown or not allowed.
    """

    def __init__(
        self,
        policy: str | Path | Policy | Store,
        *,
        vlm: str | Asked,
        audit: str | Path | Sink | Sequence[str | Path | Sink] | None = None,
        tenant: str | None = None,
        plugins: Iterable[str | object] = (),
        registry: CollectorRegistry | None = None,
        require_signature: str | None = None,
        canaries: str | Path | None = None,
        preview_vae: Any = None,
        probe: str | Path | None = None,
    ) -> None:
        store = as_store(policy)  # first, since it costs nothing and reports mistakes in a policy immediately
        self.metrics = Metrics(registry, tenant=tenant)
        named = (plugins,) if isinstance(plugins, str) else plugins  # otherwise a string would be a sequence of letters
        self._plugins = Plugins(builtin(), named, lambda *_: self.metrics.degraded("plugin_error"))
        backend = self._plugins.backend(vlm)
        self._owned = backend if isinstance(vlm, str) else None
        self._probes = Probes(probe)
        admit = partial(self._admit, backend)
        self._rollout = Rollout(
            policy,
            store,
            tenant,
            admit=admit,
            view=lambda _spec, path: answers_about(path, backend),  # the guard's own backend, whatever the test names
            verify=verifier(require_signature, tenant, partial(remembered, several(audit))),
        )
        now = self._rollout.current()
        self._subject: ContextVar[str | None] = ContextVar(f"dnp_guard.subject.{id(self)}", default=None)
        self._last = Latest()
        self._override = override.Current()
        if canaries is not None:
            backend = Watched(backend, known=read_known(Path(canaries), Path(canaries) / "labels.csv", now))
        self.desk = desk_of(backend)
        self._leave = weakref.finalize(self, self.desk.close)
        self._leave.atexit = False
        self._tenant = tenant
        sinks = [self._plugins.sink(spec) for spec in several(audit)]
        self._recorder, self._redaction = open_record(sinks, self.metrics, tenant, now, self.desk.info)
        self.preview_vae = preview_vae
        self.negatives: Encoded = {}
        self._in_force = InForce(policy, self._rollout, admit, self.desk.info, self._recorder, self.metrics)
        self._plugins.on_error = self._in_force.plugin_failed
        loaded = [str(plugin) for plugin in self._plugins.third_party]
        self._in_force.tell(f"plugins: {', '.join(loaded)}" if loaded else None)
        on_import.install(Guard)

    @property
    def policy(self) -> Policy:
        """The policy in force for a generation that this thread or asyncio task starts now."""
        return self._in_force.policy

    @property
    def probe(self) -> Probe | None:
        """The latent probe for the policy in force; None if the policy has no ``queries.skip_probe``."""
        return self._probes.of(self.policy, self.desk.backend)

    def encoded(self, negatives: Encoded | str | Path) -> Self:
        """Supply encodings of the policy's negative words, for pipelines that are called without their text encoder.

        Args:
            negatives: prompt arguments by words, ``{"star": {"prompt_embeds": [1, T, D]}}``, or a safetensors file with
                keys ``WORDS/ARGUMENT``. Other words cannot be injected: if a finding calls for them, ``on_failure``
                of the policy applies.
        """
        self.negatives = encoded.read(negatives)
        return self

    @contextmanager
    def tightened(
        self,
        policy: str | Path | Policy | None = None,
        *,
        region: str | None = None,
        surface: str | None = None,
    ) -> Iterator[Self]:
        """Tighten the policy for the generations that this thread or asyncio task starts inside a ``with`` block.

        Args:
            policy: policy to merge into the one in force; the strictest values apply.
            region: region of these calls, by which a store selects policies.
            surface: surface of these calls, such as ``ads``, by which a store selects policies.

        Raises:
            PolicyError: the policy is invalid, or no policy is for this region and surface.
        """
        with self._in_force.tightened(policy, region, surface):
            yield self

    def reload(self) -> bool:
        """Read the policy again, and put it in force if it is valid, passes its tests, and is approved if milder.

        Otherwise ``policy.rejected`` is recorded, and the previous policy stays in force. Running generations keep the
        policy that they started with.

        Returns:
            Whether another policy is in force now.
        """
        return self._in_force.reload()

    def watch(self, every: float = 2.0) -> None:
        """Reload the policy when its file or folder changes, until the guard is closed.

        Args:
            every: seconds between checks.

        Raises:
            DnpGuardError: the policy was not given as a path.
        """
        self._in_force.watch(every)

    @property
    def last(self) -> Report | None:
        """The report of the latest generation in this thread or asyncio task; None before the first.

        A generation in another thread, as by ``asyncio.to_thread``, does not change it here. The output of a diffusers
        pipeline also has its report, as ``output.dnp_guard``.
        """
        return self._last.get()

    def attach(self, target: Any) -> Callable[[], None]:
        """Guard every later call of a target, such as a pipeline.

        Args:
            target: a diffusers pipeline, or another target that a host plugin recognises.

        Returns:
            A function that detaches the guard.

        Raises:
            CannotSteer: the target cannot be steered, or no host plugin knows it.
        """
        detach = self._plugins.hook.dnp_guard_attach(guard=self, target=target)
        if detach is None:
            a_class = isinstance(target, type)
            kind = target if a_class else type(target)
            raise CannotSteer(
                f"no host adapter recognises {'the class ' if a_class else ''}{kind.__module__}.{kind.__qualname__}",
                hint="Attach the pipeline that its from_pretrained returns."
                if a_class
                else "Attach a diffusers pipeline, or allow a plugin that knows it.",
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

    @contextmanager
    def on_behalf_of(self, subject: str | None) -> Iterator[Self]:
        """Record for whom the generations of a ``with`` block are made, so that ``audit erase`` can find their records.

        Args:
            subject: any name of the person, of which the record contains only a keyed hash; None for nobody.
        """
        token = self._subject.set(subject)
        try:
            yield self
        finally:
            self._subject.reset(token)

    def start(
        self,
        request: Request,
        policy: Policy | None = None,
        state: State | None = None,
        steering: Holder | None = None,
    ) -> Driver:
        """Start to guard one generation; for host adapters.

        Args:
            request: request of the generation.
            policy: the policy, if the adapter has read :attr:`policy` already; None for the one in force now.
            state: state of a session that another process began under this policy, to continue it.
            steering: receives the negative prompts to steer by; None if the host reads ``Driver.negatives`` itself.

        Raises:
            RequestRefused: the request may need more questions than the policy allows.
        """
        policy = policy or self.policy
        if state is None:
            self._in_force.turn()
            policy, changed = self._override.applied(policy)
            if changed:
                self.noted(Overridden(reason=changed))
            self.metrics.policy_info(policy.name, policy.revision, policy.digest, policy.mode, narrowed=True)
            if (subject := self._subject.get()) is not None:
                request = replace(request, subject=self._redaction.subject(subject))
        session = Session(policy, request, state, Tightening(self._plugins, policy))
        account = Account(session.state.id, policy, self._recorder, self._plugins, request.images)
        driver = Driver(session, Inquiry(policy, self.desk, account.span, self._tenant), account, steering)
        if state is None:
            try:
                driver.begin(request, self._redaction.of(policy.audit.prompt))
            except RequestRefused as error:
                self._keep(error.report)
                raise
        return driver

    def finished(self, driver: Driver) -> None:
        """Store the report of a generation as :attr:`last`; for host adapters."""
        self._keep(driver.report)

    def _keep(self, report: Report | None) -> None:
        if report is not None:
            self._last.set(report)

    def noted(self, event: Event) -> None:
        """Record an event outside a generation, such as ``guard.attached``; for host adapters."""
        self._in_force.note(event)

    def settle(self) -> bool:
        """Wait until the audit sinks have stored all records so far; return False if one of them fails or hangs."""
        return self._recorder.settle()

    @property
    def keeps_up(self) -> bool:
        """Whether every audit sink stores its records; False if one of them fails or hangs."""
        return self._recorder.keeps_up

    def close(self) -> None:
        """Close the audit sinks, and the backend if the guard built it. The guard cannot be used afterwards."""
        self._in_force.close()
        self._leave()
        if self._owned is not None:
            self._owned.close()
        self._recorder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, pipe: Any, step: int, timestep: Any, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        """Act as ``callback_on_step_end`` of a single call; diffusers calls it after every step."""
        from dnp_guard.hosts.diffusers.argument import after_step  # noqa: PLC0415 (imports torch)

        return after_step(self, pipe, step, callback_kwargs)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # a copied pipeline shares its guard

    def _admit(self, backend: Backend, policy: Policy) -> None:
        """Raise an error unless this backend and the probes can enforce a policy."""
        admission.refuse_backend(policy, backend)
        admission.refuse_uncalibrated(policy, backend)
        self._probes.of(policy, backend)
