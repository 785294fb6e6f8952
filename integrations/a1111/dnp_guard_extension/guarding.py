"""Connect the hooks of the web UI's script with settings, jobs, live previews, the guard service and the counts."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules import shared

from . import __version__
from . import settings as configured
from .client import Client
from .job import Job
from .previews import LivePreviews
from .service import Service
from .settings import BadSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = Path(__file__).resolve().parent.parent
SERVICE = Service()
"""The only service process of this host; it keeps running when the page is reloaded."""

COUNTS: Counter[str] = Counter()
"""Number of images per outcome since the host started."""

_LIGHT_S = 1.0
"""Seconds to wait for the service when the page shows whether it answers."""

_CONSOLE = "/console/sign-in"
"""Path of a page that exists only on a service with a console."""

_ON_P = "dnp_guard_job"
_INTERMEDIATE = ("-before-highres-fix", "-before-face-restoration", "-before-color-correction")


class Guarding:
    """The guard of the running web UI, which handles its jobs one after the other."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._previews = LivePreviews(shared.state, self._user_previews)
        self._running: Job | None = None
        self._sampling: Job | None = None
        self._counts = COUNTS
        self.mode = ""
        """``enforce`` or ``shadow``: the policy's mode in the last job; empty before the first one."""
        self._request = ""

    def install(self) -> None:
        """Begin to blur or hide the host's live previews, as the policy asks."""
        self._previews.install()

    def remove(self) -> None:
        """Restore the host's previews and end the job; the service keeps running while the page is reloaded."""
        self._previews.remove()
        self._end()

    def settings(self) -> Settings | BadSettings:
        """Return the operator's settings, or the reason why they cannot be used."""
        try:
            return configured.load(self._folder, shared.opts, os.environ)
        except BadSettings as error:
            return error
        except Exception as error:  # noqa: BLE001 (the host would go on, and without a guard)
            return BadSettings(f"the settings of DNP Guard cannot be used: {type(error).__name__}: {error}")

    def defaults(self) -> Settings:
        """Return the default values for the settings page: the extension's file, or built-in defaults if it is bad."""
        try:
            return configured.from_file(self._folder)
        except Exception:  # noqa: BLE001 (every job reports it, by :meth:`settings`)
            return Settings()

    def fixed(self) -> dict[str, Any]:
        """Return the values of the settings that the settings page cannot change, by name."""
        names = configured.fixed(self._folder, self.defaults(), os.environ)
        settings = self.settings()
        in_force = settings if isinstance(settings, Settings) else self.defaults()
        return {name: getattr(in_force, name) for name in names}

    def light(self) -> str:
        """Return a line for the page that says whether the service answers now."""
        settings = self.settings()
        if isinstance(settings, BadSettings):
            return f"✗ Nothing is generated: {settings}"
        if Client(settings.url, settings.token).ready(_LIGHT_S):
            return f"✓ The guard service answers at {settings.url}."
        later = " It is started with the first image." if settings.start else ""
        return f"✗ The guard service does not answer at {settings.url}.{later}"

    def last(self) -> str:
        """Return a line for the page with the policy mode and the audit record of the last job."""
        settings, request = self.settings(), self._request
        if not request:
            return "No image was guarded yet."
        link = f"`{request}`"
        if isinstance(settings, Settings) and Client(settings.url, None).ready(_LIGHT_S, _CONSOLE):
            link = f"[{request}]({settings.url.rstrip('/')}/console/image/{request}/0)"
        return f"Last job: {self.mode}, record {link}."

    def begin(self, p: Any, arguments: Sequence[Any]) -> None:
        """Begin a job, and guard it unless its user may switch the guard off and has done so.

        Args:
            p: the host's processing object.
            arguments: arguments of the script, see :func:`settings.asked`.
        """
        self._end()
        settings, client = self.settings(), None
        if isinstance(settings, Settings):
            settings = configured.asked(settings, arguments, is_api=getattr(p, "is_api", True))
            if not settings.enabled:
                self._counts["off"] += p.batch_size * p.n_iter
                setattr(p, _ON_P, None)
                return
            client = Client(settings.url, settings.token)
        job = self._running = Job(settings, client, self._counts)
        setattr(p, _ON_P, job)
        p.extra_generation_params.update(job.infotext())
        if isinstance(settings, Settings) and client is not None:
            SERVICE.ensure(client, settings.start, settings.start_s)

    def job(self, p: Any) -> Job | None:
        """Return the job that guards a processing object of the host; None if it is not guarded."""
        return getattr(p, _ON_P, None)

    def batch_begins(self, p: Any, prompts: Sequence[str], number: int) -> None:
        """Begin a batch of a job; a script may have run another job since the job's previous batch."""
        job = self.job(p)
        if job is not None:
            self._running = job
            job.batch_begins(p, prompts, number * p.batch_size)

    def before(self, params: Any) -> None:
        """Handle the callback before a call of the denoiser, and remember its job for the later callbacks."""
        self._sampling = self.job(getattr(params.denoiser, "p", None))
        if self._sampling is not None:
            self._sampling.before(params)

    def answered(self, params: Any) -> None:
        """Handle the callback after a call of the denoiser, before guidance."""
        if self._sampling is not None:
            self._sampling.answered(params)

    def after(self, params: Any) -> None:
        """Handle the callback after classifier-free guidance."""
        if self._sampling is not None:
            self._sampling.after(params)

    def saved(self, params: Any) -> None:
        """Cover an intermediate picture that the host is about to save, such as the one before the hires fix."""
        job = self.job(params.p)
        if job is not None and any(suffix in Path(params.filename).stem for suffix in _INTERMEDIATE):
            params.image = job.delivered(params.image, getattr(params.p, "batch_index", 0))

    def end(self, p: Any) -> None:
        """End the job of a processing object, and remember its mode and record for :meth:`last`."""
        job = self.job(p)
        if job is not None:
            job.ends()
            self.mode, self._request = job.mode, job.request
        if job is self._running:
            self._running = None

    def status(self) -> dict[str, Any]:
        """Return the extension's version, the number of images per outcome, and an error of the settings, if any."""
        settings = self.settings()
        trouble = str(settings) if isinstance(settings, BadSettings) else ""
        return {"version": __version__, "images": dict(self._counts), "trouble": trouble}

    def _end(self) -> None:
        if self._running is not None:
            self._running.ends()
            self._running = None

    def _user_previews(self) -> str:
        return self._running.user_previews if self._running is not None else "allow"
