"""What one request and one phase of a trial come to: a single number each.

Warm-up and failed requests are in none of them. ``None`` is what the server does not tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import pairwise

from attrs import frozen

from velollm_core.experiment.spec import PhaseRecord, Sample
from velollm_core.statistics import mean, median, percentile


@frozen(kw_only=True)
class Metric:
    """Something that two configurations can be compared by.

    ``of`` gives its value for one phase of one trial. ``summary`` is what a user reads.
    """

    name: str
    unit: str
    summary: str
    higher_is_better: bool
    of: Callable[[PhaseRecord], float | None]


def value_of(metric: Metric, phase: PhaseRecord) -> float | None:
    """What ``metric`` says of ``phase``, as far as it is a speed or a time: finite and positive."""
    value = metric.of(phase)
    return None if value is None else _positive(value)


def measured(phase: PhaseRecord) -> tuple[Sample, ...]:
    """The answered requests of ``phase`` without the warm-up, in the order they were sent."""
    answered = (sample for sample in phase.samples if not sample.warmup and not failed(sample))
    return tuple(sorted(answered, key=lambda sample: (sample.started_ms, sample.index)))


def failed(sample: Sample) -> bool:
    """Whether the request was not answered to its end."""
    return sample.error is not None or sample.failure is not None


def typical(phase: PhaseRecord, value: Callable[[Sample], float | None]) -> float | None:
    """The median of ``value`` over the requests that have it."""
    known = [found for sample in measured(phase) if (found := value(sample)) is not None]
    return median(known) if known else None


def first_token_ms(phase: PhaseRecord) -> float | None:
    """Time to first token at the client, the median of the requests."""
    return typical(phase, lambda sample: sample.first_token_ms)


def total_ms(phase: PhaseRecord) -> float | None:
    """Time to the end of the answer at the client, the median of the requests."""
    return typical(phase, lambda sample: sample.total_ms)


def token_gap_ms(phase: PhaseRecord, q: float = 50) -> float | None:
    """The ``q``-th percentile of the time between two tokens, over all requests together."""
    gaps = [gap for sample in measured(phase) for gap in _gaps(sample)]
    return percentile(gaps, q) if gaps else None


def prefill_tok_s(phase: PhaseRecord) -> float | None:
    """Prompt tokens processed a second by the server's clock, the median of the requests."""
    return typical(phase, _prefill_rate)


def decode_tok_s(phase: PhaseRecord) -> float | None:
    """Tokens generated a second of one request by the server's clock, the median of the
    requests.
    """
    return typical(phase, _server_decode_rate)


def client_decode_tok_s(phase: PhaseRecord) -> float | None:
    """The same by the client's clock, from the first event to the last."""
    return typical(phase, _client_decode_rate)


def output_tok_s(phase: PhaseRecord) -> float | None:
    """Tokens of all clients together a second, prompt processing included."""
    counts = [sample.output_tokens for sample in measured(phase)]
    known = [count for count in counts if count is not None]
    if not known or len(known) < len(counts) or phase.wall_ms <= 0:
        return None
    return _positive(sum(known) * 1000 / phase.wall_ms)


def rate_disagreement(sample: Sample) -> float | None:
    """The client's decode rate over the server's, less 1."""
    client, server = _client_decode_rate(sample), _server_decode_rate(sample)
    return client / server - 1 if client is not None and server is not None else None


def tokens_per_event(samples: Iterable[Sample]) -> float | None:
    """Tokens that an event carries after the first; above 1 under speculation."""
    counts = [tokens for sample in samples for _, tokens in _bursts(sample)[1:]]
    return mean(counts) if counts else None


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            name="output_tok_s",
            unit="tok/s",
            summary="tokens of all clients a second, prompt processing included",
            higher_is_better=True,
            of=output_tok_s,
        ),
        Metric(
            name="decode_tok_s",
            unit="tok/s",
            summary="tokens a second of one answer, by the server's clock",
            higher_is_better=True,
            of=decode_tok_s,
        ),
        Metric(
            name="client_decode_tok_s",
            unit="tok/s",
            summary="tokens a second of one answer after its first, by the client's clock",
            higher_is_better=True,
            of=client_decode_tok_s,
        ),
        Metric(
            name="prefill_tok_s",
            unit="tok/s",
            summary="prompt tokens processed a second, by the server's clock",
            higher_is_better=True,
            of=prefill_tok_s,
        ),
        Metric(
            name="first_token_ms",
            unit="ms",
            summary="time to first token",
            higher_is_better=False,
            of=first_token_ms,
        ),
        Metric(
            name="token_gap_ms",
            unit="ms",
            summary="time between two tokens",
            higher_is_better=False,
            of=token_gap_ms,
        ),
        Metric(
            name="total_ms",
            unit="ms",
            summary="time to the end of the answer",
            higher_is_better=False,
            of=total_ms,
        ),
    )
}
"""What ``--metric`` takes, by name; the first is what is compared unless told."""


def _bursts(sample: Sample) -> list[tuple[float, int]]:
    """Milliseconds and tokens of every event that brought some, if the server tells how many."""
    pairs = zip(sample.event_ms, sample.event_tokens, strict=False)
    return [(at_ms, tokens) for at_ms, tokens in pairs if tokens]


def _gaps(sample: Sample) -> list[float]:
    """Milliseconds between tokens, one entry a token after the first event."""
    bursts = _bursts(sample) or [(at_ms, 1) for at_ms in sample.event_ms]
    return [
        (at_ms - before_ms) / tokens
        for (before_ms, _), (at_ms, tokens) in pairwise(bursts)
        for _ in range(tokens)
    ]


def _prefill_rate(sample: Sample) -> float | None:
    """Prompt tokens processed a second, those from the server's cache left out."""
    timings = sample.timings
    if timings is None:
        return None
    if timings.prompt_per_second is not None:
        return _positive(timings.prompt_per_second)
    if sample.prompt_tokens is None or sample.cached_tokens is None or timings.prompt_ms <= 0:
        return None
    return _positive((sample.prompt_tokens - sample.cached_tokens) * 1000 / timings.prompt_ms)


def _server_decode_rate(sample: Sample) -> float | None:
    """Tokens a second after the first, which comes with the prompt, by the server's clock."""
    timings = sample.timings
    if timings is None or sample.output_tokens == 1:
        return None
    if timings.predicted_per_second is not None:
        return _positive(timings.predicted_per_second)
    if sample.output_tokens is None or timings.predicted_ms <= 0:
        return None
    return _positive((sample.output_tokens - 1) * 1000 / timings.predicted_ms)


def _client_decode_rate(sample: Sample) -> float | None:
    """Tokens a second that arrived after the first event.

    Where the events do not tell their tokens, the answer's are taken to be spread evenly over them,
    and the last to come with the end of the answer: a token that only ends it has no text, but
    counts.
    """
    bursts = _bursts(sample)
    times = [at_ms for at_ms, _ in bursts] or [*sample.event_ms[:-1], sample.total_ms]
    if len(times) < 2 or times[-1] <= times[0]:
        return None
    tokens: float
    if bursts:
        tokens = sum(count for _, count in bursts[1:])
    elif sample.output_tokens is not None:
        tokens = sample.output_tokens * (1 - 1 / len(times))
    else:
        return None
    return _positive(tokens * 1000 / (times[-1] - times[0]))


def _positive(rate: float) -> float | None:
    return rate if math.isfinite(rate) and rate > 0 else None
