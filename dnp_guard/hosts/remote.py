"""The client half of the service's protocol, typed. Needs neither torch nor the server's packages.

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

A host that can draw images of a batch again from their seed opens with ``retry=True``. Where an ``action`` is then
``retry``, ``session.again()`` says what to steer each of ``session.drawn`` by from the first step on; ``query`` and
``final`` are about those alone from there on. A verdict that is ``earlier`` is on the picture of the attempt before:
keep that one, and drop the new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

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

Message = TypeVar("Message", bound=BaseModel)

TRIES: Final = 3
"""How often a request is sent that may be repeated: every one but the first of a session."""
CAN: Final = ("unasked",)
"""What this client knows beyond what every host does."""


class Service:
    """A guard service.

    Args:
        url: base URL, without ``/v1``; ``http://`` reaches this machine only.
        token: as ``dnp-guard token add`` printed it; None where the service asks for none.
        timeout_s: for one request; more than the policy's ``deadline_ms``.
        verify: a file of authorities for TLS, in place of the system's.
        plain_http: send images to another machine unencrypted.

    Raises:
        ServiceError: images may not be sent to this address, or no header carries the token.
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
        self._connection = Connection(url, token, timeout_s=timeout_s, verify=verify, plain_http=plain_http)
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
            prompts: for the record.
            images: drawn together.
            host: who asks.
            steps: that this run executes; None where they are unknown.
            policy: another policy of the token, to be stricter by.
            region: to select from a store of policies.
            surface: likewise.
            run: how it is drawn, for the record.
            inputs: whether the request brings pictures, which :meth:`RemoteSession.inputs` shows before the first step.
            retry: whether the host can draw images of the batch again from their seed, and delivers the picture before
                where a verdict is ``earlier``; see :meth:`RemoteSession.again`.
            attention: whether steering there was shown to work for this model; None where the host does not reach it.

        Raises:
            ServiceError: it cannot be begun; do not generate, or withhold what is generated.
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
        return RemoteSession(self, self.send("/v1/sessions", asked, Opened, tries=1), asked)

    def ready(self) -> bool:
        """Return whether it can guard generations now."""
        try:
            return self._connection.client.get("/readyz").is_success
        except httpx2.HTTPError:
            return False

    def _can(self, **abilities: bool) -> list[str] | None:
        """What to offer, of what the service knows; None where that is nothing."""
        return [word for word in (*CAN, *filter(abilities.get, abilities)) if word in self.features()] or None

    def features(self) -> tuple[str, ...]:
        """Return what of the protocol's newer parts it knows; nothing where it does not say."""
        if self._features is None:
            try:
                answer = self._connection.client.get("/readyz")
                told = answer.json().get("features", ())
            except (httpx2.HTTPError, ValueError, AttributeError):
                return ()  # it may say so later
            if not answer.is_success:
                return ()  # one that is not ready lists nothing, and will once it is
            self._features = tuple(each for each in told if isinstance(each, str)) if isinstance(told, list) else ()
        return self._features

    def send(self, path: str, message: BaseModel, answer: type[Message], *, tries: int = TRIES) -> Message:
        """Post a message, and read the answer; for :class:`RemoteSession`.

        Raises:
            ServiceError: there was none, or a problem.
        """
        # What is not said is not sent: a service that does not know a newer key refuses the message.
        body = message.model_dump(mode="json", exclude_none=True)
        response = self._connection.tried(lambda client: client.post(path, json=body), tries)
        try:
            # Answers may gain keys.
            return answer.model_validate_json(response.content, extra="ignore")
        except ValidationError as error:
            raise ServiceError(f"{path}: not an answer of version {VERSION}", hint="Check the base URL.") from error

    def delete(self, path: str) -> None:
        """Delete what a path names; for :class:`RemoteSession`.

        Raises:
            ServiceError: there was no answer, or a problem.
        """
        self._connection.tried(lambda client: client.delete(path), TRIES)

    def close(self) -> None:
        """Close the connections."""
        self._connection.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RemoteSession:
    """One generation; a context manager that ends it where it was not finished.

    Args:
        service: where.
        opened: what it answered.
        asked: what it was opened with.

    Attributes:
        service: as given; another that shares its store may take its place.
        opened: what the host has to do: ``on_failure``, ``user_previews``, ``vocabulary`` and more.
        over: whether there are verdicts that stand, or it was ended.
        drawn: the images that are drawn: all of the batch at first, and then those that are drawn again.
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
        """Return whether to ask at a step: one is due at it, or at an earlier one that was not answered.

        Args:
            step: counted from 0.
            progress: the part of the run that is done, where its steps are unknown.
        """
        if self.opened.due is not None:
            return any(self._reached < due <= step for due in self.opened.due)
        return progress is not None and any(self._reached < due <= progress for due in self.opened.due_progress)

    def inputs(self, pictures: Sequence[Image]) -> list[InputVerdict]:
        """Show the pictures that the request brought, before the first step.

        Args:
            pictures: to edit, to inpaint, to start from.

        Returns:
            What becomes of the request for each. After a ``block`` the session is over, and nothing may be made.
            Nothing where the service does not ask: see ``opened.inputs``.

        Raises:
            ServiceError: the service cannot say; nothing of them counts as seen.
        """
        if not self.opened.inputs:
            return []
        shown = [Picture(index=index, data=png_url(picture)) for index, picture in enumerate(pictures)]
        verdicts = self.service.send(f"{self._path}/inputs", InputsMessage(images=shown), InputVerdicts).images
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
        """Show what is being drawn.

        Args:
            step: counted from 0.
            pictures: the prediction x̂0 of each image of ``drawn``, in this order.
            progress: the part of the run that is done, 0…1; needed where the steps are unknown.
            sigma: for the record.
            similarity: of each prediction with the one last asked about: the cosine of their latents.
            effective: whether a negative can take effect at the steps that follow.
            used: ``separate`` where the host could not steer in attention space.
            since: the part of the run that was done one step before, where the steps are unknown.
            ended: whether the run has ended here, before its last due step.

        Returns:
            What each image is steered away from, from the next step on.

        Raises:
            ServiceError: the service cannot say; keep what holds, and ask again at the next step.
        """
        if progress is None and self._asked.steps:
            progress = min(step / self._asked.steps, 1.0)
        failed, self._lost = self._lost, True  # a picture that cannot be encoded gets no answer either
        shown = [
            PreviewPicture(index=index, data=data_url(picture), similarity=similarity[place] if similarity else None)
            for place, (index, picture) in enumerate(zip(self.drawn, pictures, strict=True))
        ]
        asked = QueryMessage(step=step, progress=progress, sigma=sigma, images=shown, effective=effective, used=used)
        if "ended" in self.service.features():
            asked = asked.model_copy(update={"since": since, "failed": failed or None, "ended": ended or None})
        answer = self.service.send(f"{self._path}/queries", asked, AnswerMessage)
        self._lost = False
        if answer.answered:
            self._reached = step if self.opened.due is not None else (progress or 0.0)
        return answer.images

    def final(self, images: Sequence[Image], *, used: Used | None = None) -> list[Verdict]:
        """Show the finished images.

        Args:
            images: each of ``drawn``, in this order.
            used: as :meth:`query` has it.

        Returns:
            What becomes of each. Of one whose ``action`` is ``retry``, the other fields say what becomes of it if it
            is not drawn again. One that is ``earlier`` is on the picture of the attempt before, not on this one.

        Raises:
            ServiceError: the service cannot say; ``opened.on_failure`` does, except where the request itself is at
                fault (status 413 or 422): withhold the images then.
        """
        shown = [Picture(index=index, data=png_url(image)) for index, image in zip(self.drawn, images, strict=True)]
        verdicts = self.service.send(f"{self._path}/final", Finish(images=shown, used=used), Verdicts).images
        self._again = tuple(verdict.index for verdict in verdicts if verdict.action == "retry")
        self.over = not self._again
        return verdicts

    def again(self) -> list[Steer]:
        """Begin to draw those images again whose verdict says ``retry``, from the noise that they had.

        Returns:
            What each of ``drawn`` is steered away from, from the first step on.

        Raises:
            ServiceError: it cannot be begun; each image meets its verdict's ``otherwise``.
        """
        asked = self._asked.model_copy(update={"retries": self.opened.session, "indices": list(self._again)})
        self.opened = self.service.send("/v1/sessions", asked, Opened, tries=1)
        self.drawn, self._reached, self._lost = self._again, -1, False
        self._path = f"/v1/sessions/{self.opened.session}"
        return self.opened.negatives

    def abandon(self) -> None:
        """End it without images; nothing where it is over.

        Raises:
            ServiceError: the service does not hear; the session expires by itself.
        """
        if not self.over:
            self.service.delete(self._path)
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
