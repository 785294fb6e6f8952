"""Talk to the guard service over HTTP: open a session per batch, show its pictures, and read the answers.

A query shows the predicted images of one denoising step; the final look shows the finished images. The service has its
vision-language model answer the policy's questions about them.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .connection import Connection, ServiceFailed
from .messages import Answer, Attention, Negative, Session, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

_CALL_S = 10.0
"""Seconds that a call without a picture may take."""

_LOOK_S = 120.0
"""Seconds to wait for an answer about pictures if the policy sets no deadline."""

_GRACE_S = 5.0
"""Seconds that the network may take beyond the policy's deadline."""

_PREVIEWS = ("withhold", "blur", "allow")


class Client(Connection):
    """A client of one guard service, which speaks its protocol (``docs/reference/protocol.md``)."""

    def __init__(self, url: str, token: str | None) -> None:
        super().__init__(url, token)
        self._features: tuple[str, ...] | None = None

    def features(self) -> tuple[str, ...]:
        """Return the names of the optional protocol features that the service supports; empty if it names none."""
        try:
            return self._known()
        except ServiceFailed:
            return ()  # it may name them later

    def _known(self) -> tuple[str, ...]:
        """Return the features, also from a busy service's refusal; none if another server (a proxy) answers instead.

        Raises:
            ServiceFailed: the service did not answer, or it refused without naming its features.
        """
        if self._features is None:
            try:
                features = self.call("GET", "/readyz", None, _CALL_S).get("features")
            except ServiceFailed as error:
                if error.features is None and not error.foreign:
                    raise
                features = error.features
                if features is None:
                    return ()
            self._features = tuple(map(str, features)) if isinstance(features, list) else ()
        return self._features

    def knows(self, feature: str) -> bool:
        """Return whether the service supports an optional feature of the protocol."""
        return feature in self.features()

    def judges(self, policy: str) -> str:
        """Return digests that identify the policy and the model which would judge images now; empty if unknown.

        An older service tells only the policy's digest.

        Args:
            policy: name of a policy to apply on top of the service's own; empty for none.
        """
        try:
            if not self.knows("policy"):
                return ""
            asked = f"?policy={quote(policy, safe='')}" if policy else ""
            answer = self.call("GET", f"/v1/policy{asked}", None, _CALL_S)
            return " ".join(str(answer[key]) for key in ("digest", "backend") if answer.get(key))
        except ServiceFailed:
            return ""

    def start(
        self,
        *,
        host: dict[str, str],
        run: dict[str, Any],
        prompts: Sequence[str],
        steps: int | None,
        policy: str,
        again: bool = False,
        attention: bool | None = None,
        brings: bool = False,
    ) -> Session:
        """Open a session for a batch.

        Args:
            host: ``name``, ``version`` and ``target``, for the audit record.
            run: ``seed``, ``scheduler``, ``guidance_scale`` and ``size``, for the audit record.
            prompts: one prompt per image.
            steps: number of sampler steps over all passes; None if unknown.
            policy: name of a policy to apply on top of the service's own; empty for none.
            again: whether the host can generate single images of the batch again after the final look.
            attention: whether steering in attention space was shown to work; None if the host cannot steer there.
            brings: whether the request has input pictures to show with :meth:`inputs`, if the session asks for them.

        Raises:
            ServiceFailed: no session was opened.
        """
        body: dict[str, Any] = {"protocol": 1, "host": host, "run": run}
        body.update(prompts=list(prompts), images=len(prompts), steps=steps, policy=policy or None)
        able = {"retry": again, "attention": attention is not None, "attention_shown": bool(attention)}
        able["inputs"] = brings
        known = self._known() if any(able.values()) else ()
        can = [word for word, is_able in able.items() if is_able and word in known]
        if can:
            body.update(can=can)
        return self._opened(body, tuple(range(len(prompts))))[0]

    def inputs(self, session: Session, pictures: Sequence[str]) -> bool:
        """Show the request's input pictures before the first step, and return whether the policy accepts them all.

        Args:
            session: the new session.
            pictures: the pictures as data URLs.

        Raises:
            ServiceFailed: there is no usable answer.
        """
        body = {"images": [{"index": index, "data": data} for index, data in enumerate(pictures)]}
        answer = self.call("POST", f"/v1/sessions/{session.id}/inputs", body, session.look_s)
        try:
            return all(row["action"] == "pass" for row in _rows(answer, range(len(pictures))))
        except (KeyError, TypeError, ValueError) as error:
            raise ServiceFailed("bad_answer", f"an answer without {_lacking(error)}") from None

    def again(
        self, session: Session, host: dict[str, str], images: Sequence[int]
    ) -> tuple[Session, tuple[Negative | None, ...]]:
        """Reopen a finished session for another attempt at the images whose verdict is ``retry``.

        Args:
            session: the finished session.
            host: the same ``host`` that the session was opened with.
            images: indices of these images in the batch.

        Returns:
            The reopened session, and per image the negative that steers the new attempt from its first step, or None.

        Raises:
            ServiceFailed: the session was not reopened; the verdicts' ``otherwise`` applies.
        """
        body = {"protocol": 1, "host": host, "images": 1, "retries": session.id, "indices": list(images)}
        opened, answer = self._opened(body, tuple(images))
        return opened, tuple(_negative(row) for row in _rows({"images": answer.get("negatives", [])}, images))

    def _opened(self, body: dict[str, Any], drawn: tuple[int, ...]) -> tuple[Session, dict[str, Any]]:
        answer = self.call("POST", "/v1/sessions", body, _CALL_S)
        try:
            deadline, due, similar = answer["deadline_ms"], answer["due"], answer.get("skip_similar")
            session = Session(
                id=_text(answer["session"]),
                due=None if due is None else tuple(int(step) for step in due),
                due_progress=tuple(float(share) for share in answer["due_progress"]),
                mode=_text(answer["mode"]),
                skip_similar=None if similar is None else float(similar),
                on_failure=_text(answer["on_failure"]),
                look_s=_LOOK_S if deadline is None else float(deadline) / 1000 + _GRACE_S,
                user_previews=_text(answer["user_previews"]),
                guidance=str(answer.get("guidance") or ""),
                drawn=drawn,
                retries=int(answer.get("retries") or 0),
                asks=bool(answer.get("inputs")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ServiceFailed("bad_answer", f"a session without {_lacking(error)}") from None
        return session, answer

    def query(
        self,
        session: Session,
        *,
        step: int,
        progress: float,
        sigma: float | None,
        pictures: Sequence[str],
        similarities: Sequence[float] = (),
        effective: bool = True,
        used: str = "",
        beside: dict[str, Any] | None = None,
    ) -> Answer:
        """Show the predicted images of one step to the service, and return its answer.

        Args:
            session: the open session.
            step: 0-based; never smaller than at the previous query.
            progress: executed share of the run, 0 to 1.
            sigma: the noise level; None if unknown.
            pictures: one data URL per image of the current attempt.
            similarities: per image, similarity to its picture at the previous look; empty at the first look.
            effective: whether a negative can still change the image at the steps that follow.
            used: ``separate`` if the host steered with a separate term because attention space failed; else empty.
            beside: extra fields from :meth:`Looks.beside`, which explain skipped looks; sent if the service knows them.

        Raises:
            ServiceFailed: there is no usable answer.
        """
        images = _images(session, pictures)
        for image, similarity in zip(images, similarities):
            image["similarity"] = similarity
        body = {"step": step, "progress": progress, "sigma": sigma, "images": images, "effective": effective}
        body.update({"used": used} if used else {})
        if beside and self.knows("ended"):
            body.update(beside)
        answer = self.call("POST", f"/v1/sessions/{session.id}/queries", body, session.look_s)
        try:
            rows = _rows(answer, session.drawn)
            previews = tuple(row["preview"] for row in rows if row.get("preview") in _PREVIEWS)
            shown = previews if len(previews) == len(rows) else ()
            return Answer(bool(answer["answered"]), tuple(map(_negative, rows)), _text(rows[0]["mode"]), shown)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ServiceFailed("bad_answer", f"an answer without {_lacking(error)}") from None

    def final(self, session: Session, pictures: Sequence[str], *, used: str = "") -> list[Verdict]:
        """Have the service judge the finished images of the current attempt, and return one verdict per image.

        Args:
            session: the open session.
            pictures: one data URL per image of the current attempt.
            used: as in :meth:`query`.

        Raises:
            ServiceFailed: there is no usable verdict.
        """
        body: dict[str, Any] = {"images": _images(session, pictures), **({"used": used} if used else {})}
        answer = self.call("POST", f"/v1/sessions/{session.id}/final", body, session.look_s)
        try:
            return [_verdict(row) for row in _rows(answer, session.drawn)]
        except (KeyError, TypeError, ValueError) as error:
            raise ServiceFailed("bad_answer", f"a verdict without {_lacking(error)}") from None

    def abandon(self, session: Session) -> None:
        """Tell the service that no final look will come for a session; ignore failures."""
        with suppress(ServiceFailed):
            self.call("DELETE", f"/v1/sessions/{session.id}", None, _CALL_S)


def _lacking(error: Exception) -> str:
    """Name the field that an answer lacks, or its wrong kind of value, without quoting the answer."""
    return str(error) if isinstance(error, KeyError) else "a value of the right kind"


def _images(session: Session, pictures: Sequence[str]) -> list[dict[str, Any]]:
    return [{"index": index, "data": data} for index, data in zip(session.drawn, pictures)]


def _rows(answer: dict[str, Any], images: Sequence[int]) -> list[dict[str, Any]]:
    rows = {int(row["index"]): row for row in answer["images"]}
    return [rows[index] for index in images]


def _verdict(row: dict[str, Any]) -> Verdict:
    return Verdict(
        decision=_text(row["decision"]),
        action=_text(row["action"]),
        receipt=row.get("receipt"),
        message=str(row.get("message") or ""),
        otherwise=str(row.get("otherwise") or "block"),
        earlier=bool(row.get("earlier")),
    )


def _negative(row: dict[str, Any]) -> Negative | None:
    text = row["negative"]
    if text is None:
        return None
    scale = row.get("scale")
    return Negative(
        _text(text), None if scale is None else float(scale), _text(row["mode"]), _attention(row.get("attention"))
    )


def _attention(how: Any) -> Attention | None:
    if how is None:
        return None
    phi, tau, alpha = (float(how[key]) for key in ("phi", "tau", "alpha"))
    return Attention(phi, tau, alpha, tuple(map(_text, how["parts"])), float(how.get("mask", 1)))


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("text")
    return value
