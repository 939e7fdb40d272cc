"""What a reader has to know beside the figures: faults, doubts, and what was not told.

A note has a code for programs and a sentence for people, and says where it applies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from attrs import evolve, frozen

from velollm_core.config import ENGINE_DEFAULT, show
from velollm_core.errors import FailureKind
from velollm_core.experiment.measures import failed, measured
from velollm_core.experiment.spec import (
    ArmRecord,
    BenchmarkResult,
    PhaseRecord,
    Sample,
    Trial,
    WorkloadRecord,
)
from velollm_core.experiment.summary import (
    SummaryRow,
    attempts,
    replication,
    requests,
    used,
)
from velollm_core.statistics import median

UNSTABLE_SPREAD = 0.10
"""Standard deviation of launches over their mean from which figures are called unstable."""

DISAGREEMENT = 0.02
"""Part of the server's decode rate by which the client's may differ without a note."""

_FOREIGN_SHARE = 0.10
_SWAPPED_BYTES = 1 << 20
_SLOW_FIRST = 1.5
_FEW_REQUESTS = 20  # below it, the 95th percentile lies between the two largest values
_CACHED_SHARE = 0.25
_TEMPLATE_TOKENS = 64  # what a chat template puts before every prompt, and may well be cached
_EARLY_SHARE = 0.25


@frozen
class Note:
    """A remark; ``arm``, ``workload`` and ``concurrency`` say where it applies, ``None`` all."""

    code: str
    message: str
    arm: str | None = None
    workload: str | None = None
    concurrency: int | None = None


def notes(result: BenchmarkResult, rows: Sequence[SummaryRow]) -> tuple[Note, ...]:
    """Everything remarkable about ``result``, the gravest kinds first within each arm and row.

    Args:
        result: what was measured.
        rows: its summary.
    """
    found = []
    if not result.complete:
        found.append(Note("incomplete", "the run was cut short; this is what it measured"))
    for arm in result.arms:
        if trials := [trial for trial in result.trials if trial.arm == arm.name]:
            found += [evolve(note, arm=arm.name) for note in _of_arm(result, arm, trials)]
    arms = {arm.name: arm for arm in result.arms}
    plan = {(workload.name, workload.concurrency): workload for workload in result.workloads}
    for row in rows:
        trials = [trial for trial in result.trials if trial.arm == row.arm]
        workload = plan[row.workload, row.concurrency]
        repeated = _repeated(trials, row, together=replication(result, arms[row.arm]) == "block")
        found += [
            evolve(note, arm=row.arm, workload=row.workload, concurrency=row.concurrency)
            for note in (*_of_row(row, workload, trials), *repeated)
        ]
    return tuple(found)


def _of_arm(result: BenchmarkResult, arm: ArmRecord, trials: Sequence[Trial]) -> Iterator[Note]:
    unit = replication(result, arm)
    failures = [trial.failure for trial in trials if trial.failure is not None]
    faults = [failure for failure in failures if failure.kind is not FailureKind.INTERRUPTED]
    if faults:
        yield Note(
            "failed",
            f"{len(faults)} of {counted(len(trials), unit)} failed "
            f"({_kinds(fault.kind for fault in faults)}): {first_line(faults[0].message)}",
        )
    for knob, expected, found in dict.fromkeys(
        (fault.knob, fault.expected, fault.found) for trial in trials for fault in trial.mismatches
    ):
        told = "nothing" if found is None else show(found)
        yield Note("ignored", f"the engine ignored {knob}: expected {show(expected)}, found {told}")
    unverified = dict.fromkeys(
        knob
        for trial in trials
        for knob in trial.unverified
        if arm.origins.get(knob) != ENGINE_DEFAULT
    )
    if unverified:
        yield Note(
            "unverified", f"the engine does not tell whether it took {', '.join(unverified)}"
        )
    whole = len(trials) - len(failures)
    if unit == "block":
        yield Note("one_launch", "one running server was measured: no interval spans launches")
    elif whole == 1:
        yield Note("one_launch", "one launch: no interval")
    yield from _of_machine(result, trials)


def _of_machine(result: BenchmarkResult, trials: Sequence[Trial]) -> Iterator[Note]:
    usable = result.hardware.cpu.usable
    foreign = max((trial.load.foreign_cpus or 0.0 for trial in trials), default=0.0)
    if foreign > min(1.0, _FOREIGN_SHARE * usable):
        yield Note(
            "foreign_load",
            f"other programs kept up to {foreign:.1f} of {usable:g} processors busy",
        )
    swapped = max((trial.load.swapped_bytes for trial in trials), default=0)
    if swapped > _SWAPPED_BYTES:
        yield Note("swap", f"the machine swapped out {swapped / (1 << 20):.0f} MiB during a launch")
    if any(trial.load.on_battery for trial in trials):
        yield Note("battery", "the machine ran on its battery")


def _of_row(row: SummaryRow, workload: WorkloadRecord, trials: Sequence[Trial]) -> Iterator[Note]:
    tried = attempts(trials, row.workload, row.concurrency)
    faults = [sample for sample in requests(tried) if failed(sample)]
    if faults:
        yield Note("failed_requests", _failed_requests(faults, row))
    pairs = used(tried)
    if not pairs:
        return
    if pairs[0][0].failure is not None:
        yield Note(
            "partial",
            f"no {row.over} went through: the figures are of what was answered until then",
        )
    phases = [phase for _, phase in pairs]
    samples = [sample for phase in phases for sample in measured(phase)]
    unstable = _unstable(row)
    if unstable:
        yield Note("unstable", unstable)
    slow = sum(map(_first_is_slow, phases))
    if slow * 2 > len(phases):
        yield Note(
            "slow_first",
            f"the first request was much slower than the rest in {counted(slow, row.over)}: "
            "use a longer warm-up",
        )
    hits = sum(map(_unexpected_hit, samples))
    if not workload.reuses_prefix and hits * 2 > len(samples):
        yield Note(
            "cache_hits",
            f"{hits} of {counted(len(samples), 'prompt')} came in good part from the server's "
            "cache, though the workload does not share prefixes",
        )
    yield from _of_clocks(row)
    if row.first_token_p95_ms is not None and row.first_token_p95_ms.n < _FEW_REQUESTS:
        yield Note(
            "few_requests",
            f"the 95th percentile of {counted(row.first_token_p95_ms.n, 'request')} is little more "
            "than their maximum",
        )
    if row.output_tokens is not None and row.output_tokens.value < _EARLY_SHARE * (
        workload.max_tokens
    ):
        yield Note(
            "short_answers",
            f"answers ended after {row.output_tokens.value:.0f} of {workload.max_tokens} tokens",
        )


def _of_clocks(row: SummaryRow) -> Iterator[Note]:
    """What the server's counts and times leave open."""
    if row.rate_disagreement is not None and abs(row.rate_disagreement.value) > DISAGREEMENT:
        yield Note(
            "disagreement",
            f"the client's decode rate is {row.rate_disagreement.value * 100:+.1f} % off the "
            "server's",
        )
    if row.output_tokens is None:
        yield Note("no_token_counts", "the server counts no tokens: rates are left out")
    elif row.decode_tok_s is None and row.prefill_tok_s is None:
        yield Note(
            "no_server_timings", "the server tells no times of its own: rates are the client's"
        )
    if row.tokens_per_event is None and row.token_gap_ms is not None:
        yield Note(
            "untold_events", "events do not tell their tokens: gaps are those between events"
        )
    elif row.tokens_per_event is not None and row.tokens_per_event.value > 1.05:
        yield Note(
            "bursts",
            f"tokens come {row.tokens_per_event.value:.1f} at a time: gaps are divided among them",
        )


def _repeated(trials: Sequence[Trial], row: SummaryRow, *, together: bool) -> Iterator[Note]:
    """Whether measured prompts had been sent to the same server before."""
    seen: set[str] = set()
    again = total = 0
    for trial in trials:
        if not together:
            seen = set()
        for phase in trial.phases:
            here = (phase.workload, phase.concurrency) == (row.workload, row.concurrency)
            for sample in sorted(phase.samples, key=lambda sample: sample.started_ms):
                if here and not sample.warmup:
                    total += 1
                    again += sample.prompt_sha256 in seen
                seen.add(sample.prompt_sha256)
    if again:
        yield Note(
            "repeated_prompts",
            f"{again} of {counted(total, 'request')} sent a prompt that the server had seen: "
            "its caches may help",
        )


def _failed_requests(faults: Sequence[Sample], row: SummaryRow) -> str:
    kinds = _kinds(sample.failure or FailureKind.REFUSED for sample in faults)
    reasons = [sample.error for sample in faults if sample.error]
    total = row.requests_ok + row.requests_failed
    reason = f": {first_line(reasons[0])}" if reasons else ""
    return f"{len(faults)} of {counted(total, 'request')} failed ({kinds}){reason}"


def _unstable(row: SummaryRow) -> str:
    spreads = {
        "time to first token": row.first_token_ms,
        "time between tokens": row.token_gap_ms,
        "decode rate": row.decode_tok_s,
        "total rate": row.output_tok_s,
    }
    parts = [
        f"{estimate.spread * 100:.0f} % in {name}"
        for name, estimate in spreads.items()
        if estimate is not None
        and estimate.spread is not None
        and estimate.spread >= UNSTABLE_SPREAD
    ]
    return f"unstable: {plural(row.over)} differ by {', '.join(parts)}" if parts else ""


def _first_is_slow(phase: PhaseRecord) -> bool:
    times = [
        sample.first_token_ms for sample in measured(phase) if sample.first_token_ms is not None
    ]
    if len(times) < 4:
        return False
    first, *rest = times
    return first > max(rest) and first > _SLOW_FIRST * median(rest)


def _unexpected_hit(sample: Sample) -> bool:
    if sample.cached_tokens is None or sample.prompt_tokens is None:
        return False
    return sample.cached_tokens - _TEMPLATE_TOKENS > _CACHED_SHARE * sample.prompt_tokens


def _kinds(kinds: Iterable[FailureKind]) -> str:
    return ", ".join(
        f"{count} {kind.value.replace('_', ' ')}" for kind, count in sorted(Counter(kinds).items())
    )


def first_line(message: str) -> str:
    """What a message of several lines begins with."""
    lines = message.strip().splitlines()
    return lines[0] if lines else "no reason given"


def counted(number: int, noun: str) -> str:
    """``3 launches``, ``1 block``."""
    return f"1 {noun}" if number == 1 else f"{number} {plural(noun)}"


def plural(noun: str) -> str:
    """``launches``, ``blocks``."""
    return noun + ("es" if noun.endswith("ch") else "s")
