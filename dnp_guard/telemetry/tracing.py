"""OpenTelemetry spans of generations, and the GenAI metric for the duration of queries.

The span ``dnp_guard.generation`` contains one span ``dnp_guard.query`` per query, which contains the GenAI client span.
The module uses the OpenTelemetry API only: without an SDK, the spans cost microseconds and are not exported.
"""

from __future__ import annotations

from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING

from opentelemetry import context, metrics, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from dnp_guard._version import __version__
from dnp_guard.errors import VlmError
from dnp_guard.telemetry import names
from dnp_guard.telemetry.harmless import harmless

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.metrics import Histogram, MeterProvider
    from opentelemetry.trace import Span, Tracer, TracerProvider


class Tracing:
    """Opens one span per generation.

    Args:
        tracer_provider: provider of tracers; OpenTelemetry's global one by default.
        meter_provider: provider of meters; OpenTelemetry's global one by default.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        self._tracer = trace.get_tracer(names.TRACER, __version__, tracer_provider)
        self._duration = metrics.get_meter(names.TRACER, __version__, meter_provider).create_histogram(
            names.GENAI_DURATION,
            unit="s",
            description="Time to an answer of the vision-language model.",
            explicit_bucket_boundaries_advisory=names.QUERY_BUCKETS,
        )

    def generation(self, request: str, policy: str, digest: str, images: int) -> GenerationSpan:
        """Open the span of one generation, a child of the current span; end it with its method ``end``.

        Args:
            request: id of the generation, as in the audit records.
            policy: name of the policy.
            digest: digest of the policy.
            images: number of images in the batch.
        """
        return GenerationSpan(self._tracer, self._duration, request, policy, digest, images)


class GenerationSpan:
    """The span of one generation. It is never the current span, since a generation begins and ends in callbacks."""

    def __init__(
        self, tracer: Tracer, duration: Histogram, request: str, policy: str, digest: str, images: int
    ) -> None:
        self._tracer = tracer
        self._duration = duration
        self._prompt = {names.GENAI_PROMPT_NAME: policy, names.GENAI_PROMPT_VERSION: digest}
        self._span = self._start(request, policy, digest, images) or trace.INVALID_SPAN

    @contextmanager
    def query(
        self, step: int | None, images: int, questions: int, model: str, *, provider: str = names.TRACER
    ) -> Iterator[None]:
        """Open the span of one query and its child, the GenAI client span, which is current in the ``with`` block.

        Args:
            step: step of the query, 0-based; None for the query about the finished image.
            images: number of images in the query.
            questions: number of questions per image.
            model: name of the vision-language model.
            provider: GenAI name of the model's provider.
        """
        opened = self._open(step, images, questions, model, provider)
        attributes = {names.GENAI_OPERATION: names.CHAT, names.GENAI_PROVIDER: provider, names.GENAI_MODEL: model}
        start = perf_counter()
        try:
            yield
        except BaseException as error:
            attributes[names.ERROR_TYPE] = _kind(error)
            if opened is not None:
                opened.fail(error)
            raise
        finally:
            self._measure(perf_counter() - start, attributes)
            if opened is not None:
                opened.close()

    @harmless
    def injected(self, image: int, step: int, categories: Sequence[str], scale: float | None) -> None:
        """Add the event that a negative prompt was injected for one image, from a step on."""
        attributes: dict[str, int | float | tuple[str, ...]] = {
            names.IMAGE_ATTRIBUTE: image,
            names.STEP_ATTRIBUTE: step,
            names.CATEGORIES_ATTRIBUTE: tuple(categories),
        }
        if scale is not None:
            attributes[names.SCALE_ATTRIBUTE] = scale
        self._span.add_event(names.NEGATIVE_INJECTED, attributes)

    @harmless
    def retried(self, image: int, attempt: int, categories: Sequence[str]) -> None:
        """Add the event that an image is generated again, steered away from the given categories."""
        attributes: dict[str, int | tuple[str, ...]] = {
            names.IMAGE_ATTRIBUTE: image,
            names.ATTEMPT_ATTRIBUTE: attempt,
            names.CATEGORIES_ATTRIBUTE: tuple(categories),
        }
        self._span.add_event(names.RETRIED_EVENT, attributes)

    @harmless
    def evaluated(self, image: int, category: str, probability: float | None, *, found: bool) -> None:
        """Add the GenAI event of a finished image's evaluation for one category.

        Args:
            image: index in the batch.
            category: id of the category.
            probability: probability of the category; None to omit it.
            found: whether the category was found.
        """
        attributes: dict[str, int | float | str] = {
            names.IMAGE_ATTRIBUTE: image,
            names.GENAI_EVALUATION_NAME: category,
            names.GENAI_LABEL: "found" if found else "not_found",
        }
        if probability is not None:
            attributes[names.GENAI_SCORE] = probability
        self._span.add_event(names.GENAI_EVALUATION, attributes)

    @harmless
    def degraded(self, reason: str) -> None:
        """Add the event that the guard could not do its job, with the reason."""
        self._span.add_event(names.DEGRADED_EVENT, {names.REASON_ATTRIBUTE: reason})

    @harmless
    def end(self, decision: str) -> None:
        """End the span with the outcome of the generation."""
        self._span.set_attribute(names.DECISION_ATTRIBUTE, str(decision))
        self._span.end()

    @harmless
    def _measure(self, seconds: float, attributes: Mapping[str, str]) -> None:
        self._duration.record(seconds, attributes)

    @harmless
    def _start(self, request: str, policy: str, digest: str, images: int) -> Span:
        attributes: dict[str, str | int] = {
            names.REQUEST_ATTRIBUTE: request,
            names.POLICY_ATTRIBUTE: policy,
            names.DIGEST_ATTRIBUTE: digest,
            names.IMAGES_ATTRIBUTE: images,
        }
        return self._tracer.start_span(names.GENERATION_SPAN, attributes=attributes)

    @harmless
    def _open(self, step: int | None, images: int, questions: int, model: str, provider: str) -> _Ask:
        attributes = {names.IMAGES_ATTRIBUTE: images, names.QUESTIONS_ATTRIBUTE: questions}
        if step is not None:
            attributes[names.STEP_ATTRIBUTE] = step
        query = self._tracer.start_span(
            names.QUERY_SPAN, context=trace.set_span_in_context(self._span), attributes=attributes
        )
        client = self._tracer.start_span(
            f"{names.CHAT} {model}",
            context=trace.set_span_in_context(query),
            kind=SpanKind.CLIENT,
            attributes={
                names.GENAI_OPERATION: names.CHAT,
                names.GENAI_PROVIDER: provider,
                names.GENAI_MODEL: model,
                **self._prompt,
            },
        )
        return _Ask(query, client, context.attach(trace.set_span_in_context(client)))


class _Ask:
    """The open spans of one query, and the context token that restores the span that was current before."""

    def __init__(self, query: Span, client: Span, token: Token[Context]) -> None:
        self._spans = (client, query)
        self._token = token

    @harmless
    def fail(self, error: BaseException) -> None:
        for span in self._spans:
            span.set_attribute(names.ERROR_TYPE, _kind(error))
            span.set_status(Status(StatusCode.ERROR))

    @harmless
    def close(self) -> None:
        context.detach(self._token)
        for span in self._spans:
            span.end()


def _kind(error: BaseException) -> str:
    # Not the exception's text, which may contain an address or a path.
    return error.reason if isinstance(error, VlmError) else type(error).__qualname__
