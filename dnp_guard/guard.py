"""The guard: what users hold. It puts policy, backend, plugins and record together and attaches them to targets."""

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
from dnp_guard.hosts.diffusers import late
from dnp_guard.in_force import InForce
from dnp_guard.on_record import open_record, remembered
from dnp_guard.plugins import Plugins, several
from dnp_guard.policy import as_store
from dnp_guard.policy.force import admission
from dnp_guard.policy.force.rollout import Rollout
from dnp_guard.policy.force.signing import verifier
from dnp_guard.policy.rehearsal.detection import looking_at
from dnp_guard.preview.probes import Probes
from dnp_guard.telemetry import Metrics
from dnp_guard.vlm.canary import Watched
from dnp_guard.vlm.desk import desk_of
from dnp_guard.vlm.known import read_known

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
    mends what a call that raised left behind only at the next call, and refuses videos.

    Args:
        policy: the path of a policy or of a folder of them, a shipped name such as ``"default"``, a :class:`Policy`,
            or a store.
        vlm: ``glyphs``, ``transformers:ID_OR_FOLDER``, ``openai:MODEL@URL``, ``systemone:MODEL@URL``,
            ``decisions:MODEL@URL``, ``scripted:FILE``, or an object with ``ask(images, questions)``; of two,
            :class:`~dnp_guard.vlm.either.Either` or :class:`~dnp_guard.vlm.either.AtFinal`.
        audit: where records go: a path for a JSONL log (``jsonl:PATH?rotate_bytes=…&rotate_hours=…`` to rotate it),
            ``sqlite:PATH``, ``stdout:``, ``otel:``, a sink, or several of them; None to keep none.
        tenant: whom it serves: selects from a store, and is written to every record.
        plugins: names of installed plugins that may load (entry-point group ``dnp_guard``), or plugin objects.
        registry: where the Prometheus metrics are registered; a registry of its own otherwise.
        require_signature: the public key, in base64, that policies must be signed with; unsigned, altered, expired or
            rolled-back ones are refused.
        canaries: a folder of pictures with known answers and their ``labels.csv``, asked about at first, every hour and
            after a failure; a wrong answer refuses the guard, or later is ``degraded`` with ``vlm_changed``.
        preview_vae: an ``AutoencoderTiny``, or the folder of one, that decodes looks where the policy's
            ``preview.method`` is ``tiny`` or ``auto``.
        probe: a file that ``dnp-guard distill`` wrote, for policies with ``queries.skip_probe``; the embedded model
            brings its own.

    Raises:
        PolicyError: the policy does not check.
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
        store = as_store(policy)  # first: it costs nothing, and says at once where a policy is wrong
        self.metrics = Metrics(registry, tenant=tenant)
        named = (plugins,) if isinstance(plugins, str) else plugins  # not each of its letters
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
            view=lambda _spec, path: looking_at(path, backend),  # the guard's own backend, whichever the test names
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
        sinks = [self._plugins.sink(each) for each in several(audit)]
        self._recorder, self._redaction = open_record(sinks, self.metrics, tenant, now, self.desk.info)
        self.preview_vae = preview_vae
        self.negatives: Encoded = {}
        self._in_force = InForce(policy, self._rollout, admit, self.desk.info, self._recorder, self.metrics)
        self._plugins.on_error = self._in_force.plugin_failed
        loaded = [str(plugin) for plugin in self._plugins.third_party]
        self._in_force.tell(f"plugins: {', '.join(loaded)}" if loaded else None)
        late.install(Guard)

    @property
    def policy(self) -> Policy:
        """The policy in force for a generation that starts now in this context."""
        return self._in_force.policy

    @property
    def probe(self) -> Probe | None:
        """The latent probe of the policy in force; None where the policy skips nothing by one."""
        return self._probes.of(self.policy, self.desk.backend)

    def encoded(self, negatives: Encoded | str | Path) -> Self:
        """Give what the policy's words are encoded as, for pipelines whose text encoder is not there at the call.

        Args:
            negatives: words to the arguments of a prompt, ``{"star": {"prompt_embeds": [1, T, D]}}``, or a file of
                safetensors with keys ``WORDS/ARGUMENT``. No other words can be injected, which is a failure.
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
        """Generations that start inside a ``with`` block of this context get more than the policy asks for, never less.

        Args:
            policy: merged into the one in force, the strictest of each.
            region: of these calls, to select from a store.
            surface: likewise.

        Raises:
            PolicyError: the policy does not check, or nothing is for this region and surface.
        """
        with self._in_force.tightened(policy, region, surface):
            yield self

    def reload(self) -> bool:
        """Read the policy again, and put it in force if it checks, passes its tests, and is no milder unapproved.

        What is not put in force is recorded as ``policy.rejected``, and what was in force stays. Generations that run
        keep the policy that they started with.

        Returns:
            Whether another policy is in force now.
        """
        return self._in_force.reload()

    def watch(self, every: float = 2.0) -> None:
        """Reload the policy when its file or folder changes, until the guard is closed.

        Args:
            every: seconds between looks.

        Raises:
            DnpGuardError: the policy was not given as a path.
        """
        self._in_force.watch(every)

    @property
    def last(self) -> Report | None:
        """The report of this context's latest generation; None before the first.

        A call in another context, as under ``asyncio.to_thread``, leaves it here alone: the output of a diffusers
        pipeline has its report as ``output.dnp_guard`` too.
        """
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
            a_class = isinstance(target, type)
            kind = target if a_class else type(target)
            raise CannotSteer(
                f"no host adapter recognises {'the class ' if a_class else ''}{kind.__module__}.{kind.__qualname__}",
                hint="Attach the pipeline that its from_pretrained gives."
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
        """Record for whom the generations of a ``with`` block are, so that ``audit erase`` finds them.

        Args:
            subject: the person, by any name; the record holds a keyed hash of it alone. None for nobody.
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
        """Begin the guard's part in one generation; for host adapters.

        Args:
            request: what is generated.
            policy: what :attr:`policy` was when the adapter looked; it may have been reloaded since.
            state: of a session that another process began under this policy, to go on with.
            steering: takes the negatives of each step; None where the host reads ``Driver.negatives`` itself.

        Raises:
            RequestRefused: the request needs more questions than the policy allows.
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
        """Keep the report of a generation as :attr:`last`; for host adapters."""
        self._keep(driver.report)

    def _keep(self, report: Report | None) -> None:
        if report is not None:
            self._last.set(report)

    def noted(self, event: Event) -> None:
        """Record an event outside a generation, such as ``guard.attached``; for host adapters."""
        self._in_force.note(event)

    def settle(self) -> bool:
        """Wait until every audit sink holds every record so far, but not for one that hangs; whether they do."""
        return self._recorder.settle()

    @property
    def keeps_up(self) -> bool:
        """Whether every audit sink takes its records, and none waits for one that fails or hangs."""
        return self._recorder.keeps_up

    def close(self) -> None:
        """Close the audit sinks, and the backend that a spec named. The guard cannot be used afterwards."""
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
        """Act as ``callback_on_step_end`` of a single call; diffusers calls this after each step."""
        from dnp_guard.hosts.diffusers.argument import after_step  # noqa: PLC0415 (imports torch)

        return after_step(self, pipe, step, callback_kwargs)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # a copied pipeline shares its guard

    def _admit(self, backend: Backend, policy: Policy) -> None:
        """See that the guard can do what a policy asks."""
        admission.refuse_backend(policy, backend)
        admission.refuse_uncalibrated(policy, backend)
        self._probes.of(policy, backend)
