"""From trials to figures: one row for each arm, workload and concurrency.

The unit of replication is the launch of a server, or the block where all blocks share one server:
the requests of a launch are reduced to their median first, a figure is the mean of these medians,
and its interval is a t interval over launches. Only the 95th and 99th percentiles of a request's
times are taken over all requests together, with an interval by order statistics. Warm-up and failed
requests are in no figure. What a backend does not tell is ``None``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from attrs import frozen

from velollm_core.experiment.measures import (
    client_decode_tok_s,
    decode_tok_s,
    failed,
    first_token_ms,
    measured,
    output_tok_s,
    prefill_tok_s,
    rate_disagreement,
    token_gap_ms,
    tokens_per_event,
    total_ms,
    typical,
)
from velollm_core.experiment.spec import ArmRecord, BenchmarkResult, PhaseRecord, Sample, Trial
from velollm_core.statistics import (
    mean,
    mean_interval,
    percentile,
    percentile_interval,
    relative_spread,
)

P99_REQUESTS = 100
"""The least number of requests for which a 99th percentile is given."""

Pairs = Sequence[tuple[Trial, PhaseRecord]]


@frozen(kw_only=True)
class Estimate:
    """A figure, its 95 % interval where ``n`` values of ``over`` bound one, and their spread.

    ``spread`` is the standard deviation over the mean, ``None`` for one value and for percentiles
    over requests.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int
    over: Literal["launch", "block", "request"]
    spread: float | None = None


@frozen(kw_only=True)
class SummaryRow:
    """What one arm did in one workload at one concurrency; ``None`` is what cannot be told.

    Attributes:
        arm: name of the arm.
        workload: name of the workload.
        concurrency: clients at once.
        over: what intervals are over: launches, or blocks on one server.
        trials: launches (or blocks) that went through.
        trials_failed: launches (or blocks) that failed or were stopped.
        requests_ok: measured requests that were answered.
        requests_failed: measured requests that were not.
        first_token_ms: time to first token at the client.
        first_token_p95_ms: its 95th percentile over requests.
        first_token_p99_ms: its 99th percentile, from :data:`P99_REQUESTS` requests on.
        token_gap_ms: time between two tokens at the client. An event of k tokens counts as k gaps,
            each a k-th of the time; an event that does not tell its tokens counts as one.
        token_gap_p95_ms: 95th percentile of the gaps of a launch, averaged over launches.
        token_gap_p99_ms: 99th percentile, likewise, from :data:`P99_REQUESTS` requests on.
        tokens_per_event: tokens that an event carries after the first; above 1 under speculation.
        total_ms: time to the end of the answer at the client.
        total_p95_ms: its 95th percentile over requests.
        total_p99_ms: its 99th percentile, from :data:`P99_REQUESTS` requests on.
        prefill_tok_s: prompt tokens processed a second, by the server's clock.
        decode_tok_s: tokens generated a second of one request, by the server's clock.
        client_decode_tok_s: the same by the client's clock, from the first event to the last.
        rate_disagreement: the client's decode rate over the server's, less 1.
        output_tok_s: tokens of all clients together a second, prompt processing included.
        prompt_tokens: length of a prompt.
        output_tokens: length of an answer.
        cached_share: share of the prompt that came from the server's cache.
        draft_share: share of the answer that was drafted and accepted.
        draft_acceptance: share of the drafted tokens that was accepted.
        load_ms: time from the server's start until it was ready.
        energy_j_per_token: energy of a launch over all tokens that it generated.
        peak_rss_bytes: most memory of any launch.
        peak_gpu_bytes: most GPU memory of any launch, all GPUs together.
    """

    arm: str
    workload: str
    concurrency: int
    over: Literal["launch", "block"]
    trials: int
    trials_failed: int
    requests_ok: int
    requests_failed: int
    first_token_ms: Estimate | None = None
    first_token_p95_ms: Estimate | None = None
    first_token_p99_ms: Estimate | None = None
    token_gap_ms: Estimate | None = None
    token_gap_p95_ms: Estimate | None = None
    token_gap_p99_ms: Estimate | None = None
    tokens_per_event: Estimate | None = None
    total_ms: Estimate | None = None
    total_p95_ms: Estimate | None = None
    total_p99_ms: Estimate | None = None
    prefill_tok_s: Estimate | None = None
    decode_tok_s: Estimate | None = None
    client_decode_tok_s: Estimate | None = None
    rate_disagreement: Estimate | None = None
    output_tok_s: Estimate | None = None
    prompt_tokens: Estimate | None = None
    output_tokens: Estimate | None = None
    cached_share: Estimate | None = None
    draft_share: Estimate | None = None
    draft_acceptance: Estimate | None = None
    load_ms: Estimate | None = None
    energy_j_per_token: Estimate | None = None
    peak_rss_bytes: int | None = None
    peak_gpu_bytes: int | None = None


def summarize(result: BenchmarkResult) -> tuple[SummaryRow, ...]:
    """One row for each arm that took part and each workload and concurrency of the plan."""
    return tuple(
        _row(arm, workload.name, workload.concurrency, over=replication(result, arm), trials=trials)
        for arm in result.arms
        if (trials := [trial for trial in result.trials if trial.arm == arm.name])
        for workload in result.workloads
    )


def replication(result: BenchmarkResult, arm: ArmRecord) -> Literal["launch", "block"]:
    """What the trials of ``arm`` repeat: the launch, or a block of requests on one server."""
    return "launch" if result.unit == "launch" and arm.mode == "launch" else "block"


def attempts(trials: Iterable[Trial], workload: str, concurrency: int) -> Pairs:
    """The trials that came to the phase in question, each with it."""
    return tuple(
        (trial, phase)
        for trial in trials
        for phase in trial.phases
        if (phase.workload, phase.concurrency) == (workload, concurrency)
    )


def used(pairs: Pairs) -> Pairs:
    """Those of :func:`attempts` that figures come from.

    Trials that went through, or where there is none, those that answered something at least.
    """
    answered = tuple((trial, phase) for trial, phase in pairs if measured(phase))
    return tuple(pair for pair in answered if pair[0].failure is None) or answered


def requests(pairs: Pairs) -> tuple[Sample, ...]:
    """All requests of these phases but the warm-up, failed ones included."""
    return tuple(sample for _, phase in pairs for sample in phase.samples if not sample.warmup)


def _row(
    arm: ArmRecord,
    workload: str,
    concurrency: int,
    *,
    over: Literal["launch", "block"],
    trials: Sequence[Trial],
) -> SummaryRow:
    tried = attempts(trials, workload, concurrency)
    pairs, sent = used(tried), requests(tried)
    samples = [sample for _, phase in pairs for sample in measured(phase)]

    def each(
        value: Callable[[Trial, PhaseRecord], float | None], least: float = 0.0
    ) -> Estimate | None:
        return _mean([value(trial, phase) for trial, phase in pairs], over, least)

    def phases(value: Callable[[PhaseRecord], float | None], least: float = 0.0) -> Estimate | None:
        return each(lambda _, phase: value(phase), least)

    def requests_typical(
        value: Callable[[Sample], float | None], least: float = 0.0
    ) -> Estimate | None:
        return phases(lambda phase: typical(phase, value), least)

    def tail(value: Callable[[Sample], float | None], q: float) -> Estimate | None:
        return _percentile(map(value, samples), q)

    failures = sum(map(failed, sent))
    return SummaryRow(
        arm=arm.name,
        workload=workload,
        concurrency=concurrency,
        over=over,
        trials=sum(trial.failure is None for trial in trials),
        trials_failed=sum(trial.failure is not None for trial in trials),
        requests_ok=len(sent) - failures,
        requests_failed=failures,
        first_token_ms=phases(first_token_ms),
        first_token_p95_ms=tail(lambda sample: sample.first_token_ms, 95),
        first_token_p99_ms=tail(lambda sample: sample.first_token_ms, 99),
        token_gap_ms=phases(token_gap_ms),
        token_gap_p95_ms=phases(lambda phase: token_gap_ms(phase, 95)),
        token_gap_p99_ms=phases(lambda phase: token_gap_ms(phase, 99))
        if len(samples) >= P99_REQUESTS
        else None,
        tokens_per_event=phases(lambda phase: tokens_per_event(measured(phase))),
        total_ms=phases(total_ms),
        total_p95_ms=tail(lambda sample: sample.total_ms, 95),
        total_p99_ms=tail(lambda sample: sample.total_ms, 99),
        prefill_tok_s=phases(prefill_tok_s),
        decode_tok_s=phases(decode_tok_s),
        client_decode_tok_s=phases(client_decode_tok_s),
        rate_disagreement=requests_typical(rate_disagreement, least=-1.0),
        output_tok_s=phases(output_tok_s),
        prompt_tokens=requests_typical(lambda sample: sample.prompt_tokens),
        output_tokens=requests_typical(lambda sample: sample.output_tokens),
        cached_share=requests_typical(
            lambda sample: _ratio(sample.cached_tokens, sample.prompt_tokens)
        ),
        draft_share=phases(
            lambda phase: _share(phase, lambda s: (s.accepted_tokens, s.output_tokens))
        ),
        draft_acceptance=phases(
            lambda phase: _share(phase, lambda s: (s.accepted_tokens, s.drafted_tokens))
        ),
        load_ms=each(lambda trial, _: trial.load_ms),
        energy_j_per_token=each(lambda trial, _: _energy_per_token(trial)),
        peak_rss_bytes=_most(trial.peak_rss_bytes for trial, _ in pairs),
        peak_gpu_bytes=_most(
            sum(trial.peak_gpu_bytes.values()) if trial.peak_gpu_bytes else None
            for trial, _ in pairs
        ),
    )


def _mean(
    values: Iterable[float | None], over: Literal["launch", "block"], least: float
) -> Estimate | None:
    """The mean with its t interval, cut off at ``least``, below which no value can be."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    interval = mean_interval(known)
    return Estimate(
        value=mean(known),
        low=max(interval.low, least) if interval else None,
        high=interval.high if interval else None,
        n=len(known),
        over=over,
        spread=relative_spread(known),
    )


def _percentile(values: Iterable[float | None], q: float) -> Estimate | None:
    known = [value for value in values if value is not None]
    if not known or (q > 95 and len(known) < P99_REQUESTS):
        return None
    interval = percentile_interval(known, q)
    return Estimate(
        value=percentile(known, q),
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        n=len(known),
        over="request",
    )


def _most(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _share(
    phase: PhaseRecord, parts: Callable[[Sample], tuple[int | None, int | None]]
) -> float | None:
    """Sum of the first part over sum of the second, over the requests that tell both."""
    known = [
        (part, whole)
        for part, whole in map(parts, measured(phase))
        if part is not None and whole is not None
    ]
    return _ratio(sum(part for part, _ in known), sum(whole for _, whole in known))


def _energy_per_token(trial: Trial) -> float | None:
    counts = [sample.output_tokens for phase in trial.phases for sample in phase.samples]
    known = [count for count in counts if count is not None]
    if trial.energy_j is None or len(known) < len(counts):
        return None
    return _ratio(trial.energy_j, sum(known))
