"""A typed client of the guard service; it needs neither torch nor the server's packages.

::

    with Service("http://127.0.0.1:8777", token) as service:
        session = service.open(["a lake"], images=1, steps=25, host=Host(name="mine"))
        with session:
            for step in range(25):
                ...                                      # the sampler's step, its prediction decoded to pictures
                if session.due(step):
                    steer = session.query(step, pictures)
                ...                                      # steer the next step by steer[i].negative, steer[i].scale
            verdicts = session.final(images)             # verdicts[i].action: pass, blur or block (or retry, see below)

A host that can draw images of a batch again from their seed opens the session with ``retry=True``. If the ``action`` of
a verdict is then ``retry``, call ``session.again()``. It returns how to steer the images that are drawn again, from the
first step on; ``session.drawn`` lists their indices, and later calls of ``query`` and ``final`` take only these images.
A verdict with ``earlier`` is about the picture of the previous attempt: deliver that picture, and drop the new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

import httpx2

from dnp_guard.hosts.connection import Connection, ServiceError
from dnp_guard.hosts.protocol import (
    VERSION,
    AnswerMessage,
    Finish,
    Host,
    InputsMessage,
    InputVerdicts,
    Open,
    Opened,
    Picture,
    PreviewPicture,
    QueryMessage,
    Run,
    Verdicts,
)
from dnp_guard.vlm.picture import data_url, png_url

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from PIL.Image import Image

    from dnp_guard.hosts.protocol import InputVerdict, Steer, Used, Verdict

CAN: Final = ("unasked",)
"""Features that this client supports beyond those of every host."""


class Service:
    """A client of a guard service, which opens one session per generation.

    Args:
        url: base URL, without ``/v1``. With ``http://``, it has to name this machine, unless ``plain_http`` is true.
        token: as ``dnp-guard token add`` printed it; None if the service needs none.
        timeout_s: time limit per request, in seconds; choose more than the policy's ``deadline_ms``.
        verify: file of certificate authorities for TLS, in place of the system's.
        plain_http: whether images may be sent to another machine unencrypted.

    Attributes:
        connection: the connection to the service.

    Raises:
        ServiceError: images may not be sent to this address, or the token does not fit into a header.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout_s: float = 60.0,
        verify: str | None = None,
        plain_http: bool = False,
    ) -> None:
        self.connection = Connection(url, token, timeout_s=timeout_s, verify=verify, plain_http=plain_http)
        self._features: tuple[str, ...] | None = None

    def open(
        self,
        prompts: Sequence[str] = (),
        *,
        images: int,
        host: Host,
        steps: int | None = None,
        policy: str | None = None,
        region: str | None = None,
        surface: str | None = None,
        run: Run | None = None,
        inputs: bool = False,
        retry: bool = False,
        attention: bool | None = None,
    ) -> RemoteSession:
        """Open a session for one generation.

        Args:
            prompts: prompts for the audit record.
            images: number of images drawn together.
            host: the program that draws the images.
            steps: number of steps of this run; None if unknown.
            policy: name of another policy that the token allows; it makes the session stricter.
            region: region, to select a policy from a store.
            surface: surface, to select a policy from a store.
            run: settings of the run for the audit record.
            inputs: whether the user's request brings pictures; show them by :meth:`RemoteSession.inputs` before the
                first step.
            retry: whether the host can draw images of the batch again from their seed, and delivers the earlier picture
                if a verdict is ``earlier``; see :meth:`RemoteSession.again`.
            attention: whether steering in attention space was shown to work for this model; None if the host cannot
                steer there.

        Raises:
            ServiceError: the session cannot be opened; generate nothing, or withhold the images.
        """
        asked = Open(
            protocol=VERSION,
            host=host,
            prompts=list(prompts),
            steps=steps,
            images=images,
            policy=policy,
            region=region,
            surface=surface,
            run=run or Run(),
            can=self._can(inputs=inputs, retry=retry, attention=attention is not None, attention_shown=bool(attention)),
        )
        return RemoteSession(self, self.connection.send("/v1/sessions", asked, Opened, tries=1), asked)

    def ready(self) -> bool:
        """Return whether the service can guard generations now."""
        try:
            return self.connection.client.get("/readyz").is_success
        except httpx2.HTTPError:
            return False

    def features(self) -> tuple[str, ...]:
        """Return the protocol features that the service lists, whether or not it is ready.

        Raises:
            ServiceError: the service cannot be reached, or answers with a problem that lists no features.
        """
        if self._features is None:
            self._features = self.connection.features()
        return self._features

    def knows(self, feature: str) -> bool:
        """Return whether the service lists a feature; False if it cannot be reached."""
        try:
            return feature in self.features()
        except ServiceError:
            return False

    def _can(self, **abilities: bool) -> list[str] | None:
        """Return the names of the host's abilities that the service knows; None if there are none.

        Raises:
            ServiceError: the host has abilities, and the service's list of features cannot be read.
        """
        able = [ability for ability, has in abilities.items() if has]
        known = self.features() if able else [feature for feature in CAN if self.knows(feature)]
        return [word for word in (*CAN, *able) if word in known] or None

    def close(self) -> None:
        """Close the connections."""
        self.connection.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RemoteSession:
    """A session with the guard service for one generation; its ``with`` block ends it if it was not finished.

    Args:
        service: client of the service.
        opened: the service's answer to the opening message.
        asked: the opening message.

    Attributes:
        service: client of the service; can be set to a client of another service that shares its session store.
        opened: instructions for the host: ``on_failure``, ``user_previews``, ``vocabulary`` and more.
        over: whether the session has its final verdicts, or was ended without any.
        drawn: indices of the images that are drawn: at first the whole batch, then those that are drawn again.
    """

    def __init__(self, service: Service, opened: Opened, asked: Open) -> None:
        self.opened, self.over = opened, False
        self.drawn: tuple[int, ...] = tuple(range(asked.images))
        self.service, self._asked = service, asked
        self._path = f"/v1/sessions/{opened.session}"
        self._reached: float = -1  # step of the last answered query, or the progress if the steps are unknown
        self._again: tuple[int, ...] = ()
        self._lost = False  # whether the last query got no answer, or could not be sent

    def due(self, step: int, progress: float | None = None) -> bool:
        """Return whether to query at a step: the step is due, or an earlier due step has no answer yet.

        Args:
            step: number of the step, from 0.
            progress: fraction of the run that is done, 0…1; needed if the number of steps is unknown.
        """
        if self.opened.due is not None:
            return any(self._reached < due <= step for due in self.opened.due)
        return progress is not None and any(self._reached < due <= progress for due in self.opened.due_progress)

    def inputs(self, pictures: Sequence[Image]) -> list[InputVerdict]:
        """Show the service the pictures that the user's request brought; call it before the first step.

        Args:
            pictures: pictures to edit, to inpaint, or to start from.

        Returns:
            One verdict per picture. After ``block`` the session is over: generate nothing. The list is empty if the
            service does not ask for the pictures: see ``opened.inputs``.

        Raises:
            ServiceError: there is no verdict; treat the pictures as unchecked.
        """
        if not self.opened.inputs:
            return []
        shown = [Picture(index=index, data=png_url(picture)) for index, picture in enumerate(pictures)]
        verdicts = self.service.connection.send(
            f"{self._path}/inputs", InputsMessage(images=shown), InputVerdicts
        ).images
        self.over = any(verdict.action == "block" for verdict in verdicts)
        return verdicts

    def query(
        self,
        step: int,
        pictures: Sequence[Image],
        *,
        progress: float | None = None,
        sigma: float | None = None,
        similarity: Sequence[float] | None = None,
        effective: bool = True,
        used: Used | None = None,
        since: float | None = None,
        ended: bool = False,
    ) -> list[Steer]:
        """Ask the service about the pictures that a step predicts.

        Args:
            step: number of the step, from 0.
            pictures: the decoded prediction x̂0 of every image in ``drawn``, in this order.
            progress: fraction of the run that is done, 0…1; needed if the number of steps is unknown.
            sigma: noise level for the audit record.
            similarity: cosine similarity of each prediction's latents to those of the last query.
            effective: whether a negative prompt can take effect at the steps that follow.
            used: ``separate`` if the host could not steer in attention space, and used separate guidance instead.
            since: fraction of the run that was done one step before, if the number of steps is unknown.
            ended: whether the run ended at this step, before its last due step.

        Returns:
            How to steer every image from the next step on.

        Raises:
            ServiceError: there is no answer; steer as before, and query again at the next step.
        """
        if progress is None and self._asked.steps:
            progress = min(step / self._asked.steps, 1.0)
        failed, self._lost = self._lost, True  # a picture that cannot be encoded gets no answer either
        shown = [
            PreviewPicture(index=index, data=data_url(picture), similarity=similarity[place] if similarity else None)
            for place, (index, picture) in enumerate(zip(self.drawn, pictures, strict=True))
        ]
        newer: dict[str, Any] = {}
        if self.service.knows("ended"):
            newer = {"since": since, "failed": failed or None, "ended": ended or None}
        asked = QueryMessage(
            step=step, progress=progress, sigma=sigma, images=shown, effective=effective, used=used, **newer
        )
        answer = self.service.connection.send(f"{self._path}/queries", asked, AnswerMessage)
        self._lost = False
        if answer.answered:
            self._reached = step if self.opened.due is not None else (progress or 0.0)
        return answer.images

    def final(self, images: Sequence[Image], *, used: Used | None = None) -> list[Verdict]:
        """Show the service the finished images, and return its verdicts.

        Args:
            images: the images in ``drawn``, in this order.
            used: see :meth:`query`.

        Returns:
            One verdict per image. If its ``action`` is ``retry``, its other fields apply only if the image is not drawn
            again. A verdict with ``earlier`` is about the picture of the previous attempt, not about this one.

        Raises:
            ServiceError: there are no verdicts; ``opened.on_failure`` decides, unless the request itself is at fault
                (status 413 or 422): then withhold the images.
        """
        shown = [Picture(index=index, data=png_url(image)) for index, image in zip(self.drawn, images, strict=True)]
        verdicts = self.service.connection.send(f"{self._path}/final", Finish(images=shown, used=used), Verdicts).images
        self._again = tuple(verdict.index for verdict in verdicts if verdict.action == "retry")
        self.over = not self._again
        return verdicts

    def again(self) -> list[Steer]:
        """Begin to redraw the images with the verdict ``retry``, from the same initial noise.

        Returns:
            How to steer the images in ``drawn`` from the first step on.

        Raises:
            ServiceError: the images cannot be drawn again; apply the ``otherwise`` of their verdicts.
        """
        asked = self._asked.model_copy(update={"retries": self.opened.session, "indices": list(self._again)})
        self.opened = self.service.connection.send("/v1/sessions", asked, Opened, tries=1)
        self.drawn, self._reached, self._lost = self._again, -1, False
        self._path = f"/v1/sessions/{self.opened.session}"
        return self.opened.negatives

    def abandon(self) -> None:
        """End the session without finished images; do nothing if it is over.

        Raises:
            ServiceError: the service cannot be reached; the session then expires by itself.
        """
        if not self.over:
            self.service.connection.delete(self._path)
            self.over = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.abandon()
        except ServiceError:
            if error is None:
                raise
