"""The client side of the service's protocol, typed. Needs neither torch nor the server's packages.

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

A host that can draw images of a batch again from their seed opens with ``retry=True``. If an ``action`` is then
``retry``, ``session.again()`` returns the steering of ``session.drawn`` from the first step on; ``query`` and ``final``
are only about these images from then on. A verdict that is ``earlier`` is on the picture of the previous attempt: keep
that one, and drop the new one.
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
    """A guard service.

    Args:
        url: base URL, without ``/v1``; ``http://`` reaches this machine only.
        token: as ``dnp-guard token add`` printed it; None if the service needs none.
        timeout_s: time limit per request; more than the policy's ``deadline_ms``.
        verify: file of certificate authorities for TLS, in place of the system's.
        plain_http: send images to another machine unencrypted.

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
        """Begin a session for one generation.

        Args:
            prompts: prompts for the record.
            images: number of images drawn together.
            host: the host.
            steps: number of steps of this run; None if unknown.
            policy: another policy of the token, which makes the session stricter.
            region: region, to select a policy from a store.
            surface: surface, to select a policy from a store.
            run: facts about the run, for the record.
            inputs: whether the request brings pictures, to show by :meth:`RemoteSession.inputs` before the first step.
            retry: whether the host can draw images of the batch again from their seed, and delivers the earlier picture
                if a verdict is ``earlier``; see :meth:`RemoteSession.again`.
            attention: whether steering there was shown to work for this model; None if the host cannot steer there.

        Raises:
            ServiceError: the session cannot begin; do not generate, or withhold the images.
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
        """Return the features of the protocol that the service lists; it lists them while it is not ready, too.

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
        """Return the abilities to announce, among those that the service knows; None if there are none.

        Raises:
            ServiceError: the host has abilities, and the service does not say whether it knows them.
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
    """The session of one generation; a context manager that ends it if it was not finished.

    Args:
        service: the service.
        opened: the service's answer to the opening message.
        asked: the opening message.

    Attributes:
        service: as given; another that shares its store may take its place.
        opened: instructions for the host: ``on_failure``, ``user_previews``, ``vocabulary`` and more.
        over: whether there are final verdicts, or the session was ended.
        drawn: indices of the images that are drawn: at first the whole batch, then those that are drawn again.
    """

    def __init__(self, service: Service, opened: Opened, asked: Open) -> None:
        self.opened, self.over = opened, False
        self.drawn: tuple[int, ...] = tuple(range(asked.images))
        self.service, self._asked = service, asked
        self._path = f"/v1/sessions/{opened.session}"
        self._reached: float = -1  # the step that was last answered, or the progress
        self._again: tuple[int, ...] = ()
        self._lost = False  # whether the last query got no answer, or could not be put

    def due(self, step: int, progress: float | None = None) -> bool:
        """Return whether to query at a step: a query is due at it, or was not answered at an earlier one.

        Args:
            step: counted from 0.
            progress: fraction of the run that is done, if its steps are unknown.
        """
        if self.opened.due is not None:
            return any(self._reached < due <= step for due in self.opened.due)
        return progress is not None and any(self._reached < due <= progress for due in self.opened.due_progress)

    def inputs(self, pictures: Sequence[Image]) -> list[InputVerdict]:
        """Show the pictures that the request brought, before the first step.

        Args:
            pictures: pictures to edit, to inpaint, or to start from.

        Returns:
            One verdict per picture. After ``block`` the session is over, and nothing may be generated. Empty if the
            service does not ask for the pictures: see ``opened.inputs``.

        Raises:
            ServiceError: there is no verdict; treat the pictures as not looked at.
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
        """Query the predictions at a step.

        Args:
            step: counted from 0.
            pictures: the prediction x̂0 of every image in ``drawn``, in this order.
            progress: fraction of the run that is done, 0…1; needed if the steps are unknown.
            sigma: noise level for the record.
            similarity: cosine of every prediction's latents with those of the last query.
            effective: whether a negative can take effect at the steps that follow.
            used: ``separate`` if the host could not steer in attention space.
            since: fraction of the run that was done one step before, if the steps are unknown.
            ended: whether the run has ended here, before its last due step.

        Returns:
            The steering of every image from the next step on.

        Raises:
            ServiceError: there is no answer; keep the steering, and query again at the next step.
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
        """Show the finished images.

        Args:
            images: the images in ``drawn``, in this order.
            used: see :meth:`query`.

        Returns:
            One verdict per image. If its ``action`` is ``retry``, the other fields apply in case it is not drawn again.
            A verdict that is ``earlier`` is on the picture of the previous attempt, not on this one.

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
        """Begin to draw images with the verdict ``retry`` again, from the noise that they had.

        Returns:
            The steering of the images in ``drawn`` from the first step on.

        Raises:
            ServiceError: the images cannot be drawn again; each of them gets its verdict's ``otherwise``.
        """
        asked = self._asked.model_copy(update={"retries": self.opened.session, "indices": list(self._again)})
        self.opened = self.service.connection.send("/v1/sessions", asked, Opened, tries=1)
        self.drawn, self._reached, self._lost = self._again, -1, False
        self._path = f"/v1/sessions/{self.opened.session}"
        return self.opened.negatives

    def abandon(self) -> None:
        """End the session without images; do nothing if it is over.

        Raises:
            ServiceError: the service cannot be reached; the session expires by itself.
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
