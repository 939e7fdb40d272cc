"""Limits that a configuration must keep: how a user says them, and whether trials broke them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from attrs import frozen

from velollm_core.errors import UsageError
from velollm_core.experiment.measures import (
    decode_tok_s,
    measured,
    output_tok_s,
    prefill_tok_s,
    token_gap_ms,
)
from velollm_core.experiment.spec import PhaseRecord, Trial
from velollm_core.statistics import mean, percentile
from velollm_core.tune.spec import Constraint

Kind = Literal["ms", "tok/s", "bytes"]
Values = Callable[[PhaseRecord], Iterable[float | None]]


@frozen(kw_only=True)
class Figure:
    """Something that can be limited.

    ``of_requests`` gives its values for the measured requests of a phase, whose percentile is
    limited; ``of_phase`` one value for a whole phase, whose mean over the trials is;
    ``of_trial`` one for a trial, whose largest is.
    """

    name: str
    unit: Kind
    summary: str
    of_requests: Values | None = None
    of_phase: Callable[[PhaseRecord], float | None] | None = None
    of_trial: Callable[[Trial], float | None] | None = None


def _each(value: Callable[[PhaseRecord], float | None]) -> Values:
    """``value``, which is for a phase, for each of its requests alone."""

    def values(phase: PhaseRecord) -> Iterable[float | None]:
        for sample in measured(phase):
            yield value(
                PhaseRecord(
                    workload=phase.workload,
                    concurrency=1,
                    wall_ms=sample.total_ms,
                    samples=(sample,),
                )
            )

    return values


def _gpu_bytes(trial: Trial) -> float | None:
    return float(sum(trial.peak_gpu_bytes.values())) if trial.peak_gpu_bytes else None


FIGURES: Mapping[str, Figure] = {
    figure.name: figure
    for figure in (
        Figure(
            name="ttft",
            unit="ms",
            summary="time to first token",
            of_requests=lambda phase: (sample.first_token_ms for sample in measured(phase)),
        ),
        Figure(
            name="total",
            unit="ms",
            summary="time to the end of an answer",
            of_requests=lambda phase: (sample.total_ms for sample in measured(phase)),
        ),
        Figure(
            name="gap",
            unit="ms",
            summary="time between two tokens of an answer",
            of_requests=_each(token_gap_ms),
        ),
        Figure(
            name="decode",
            unit="tok/s",
            summary="tokens a second of one answer",
            of_requests=_each(decode_tok_s),
        ),
        Figure(
            name="prefill",
            unit="tok/s",
            summary="prompt tokens processed a second",
            of_requests=_each(prefill_tok_s),
        ),
        Figure(
            name="throughput",
            unit="tok/s",
            summary="tokens of all clients together a second",
            of_phase=output_tok_s,
        ),
        Figure(
            name="memory",
            unit="bytes",
            summary="main memory of the server",
            of_trial=lambda trial: trial.peak_rss_bytes,
        ),
        Figure(
            name="gpu_memory",
            unit="bytes",
            summary="memory of all GPUs together",
            of_trial=_gpu_bytes,
        ),
    )
}
"""What ``--constraint`` can limit, by name."""

_UNITS: Mapping[Kind, Mapping[str, float]] = {
    "ms": {"ms": 1, "s": 1000},
    "tok/s": {"tok/s": 1},
    "bytes": {
        "GiB": 2**30,
        "MiB": 2**20,
        "KiB": 2**10,
        "GB": 10**9,
        "MB": 10**6,
        "KB": 10**3,
        "bytes": 1,
        "B": 1,
    },
}
_FORM = re.compile(
    r"(?P<name>[a-z_]+?)(_p(?P<percentile>\d+(\.\d+)?))?\s*(?P<sign><=?|>=?)\s*"
    r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[A-Za-z/]*)"
)


def parse_constraint(text: str) -> Constraint:
    """``ttft_p95<500ms``, ``memory<6GiB``, ``decode>20tok/s``.

    Without a percentile the median counts. A time without a unit is in milliseconds.

    Raises:
        UsageError: it is none; the message says what is possible.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise _none_such(text, "it does not say what is to be below or above which figure")
    figure = FIGURES.get(match["name"])
    if figure is None:
        raise _none_such(text, f"there is no {match['name']!r}")
    share = match["percentile"]
    if share is not None and figure.of_requests is None:
        raise _none_such(text, f"of {figure.name} there is no percentile")
    if share is not None and not 0 < float(share) < 100:
        raise _none_such(text, "a percentile lies between 0 and 100")
    units = _UNITS[figure.unit]
    unit = match["unit"] or ("" if figure.unit == "bytes" else figure.unit)
    if unit not in units:
        raise _none_such(text, f"{figure.name} is in {', '.join(units)}")
    limit = float(match["number"]) * units[unit]
    if not 0 < limit < math.inf:
        raise _none_such(text, "a limit is above 0")
    return Constraint(
        text=text.strip(),
        figure=figure.name,
        percentile=None if figure.of_requests is None else float(share or 50),
        at_most=match["sign"].startswith("<"),
        limit=limit,
    )


def broken(constraints: Sequence[Constraint], trials: Sequence[Trial]) -> tuple[str, ...]:
    """A sentence for each limit that the trials of one configuration did not keep.

    Every workload and concurrency has to keep it by itself. A limit whose figure the server does
    not tell is not kept. Trials that failed count with nothing; without any other nothing is
    broken.
    """
    ended = [trial for trial in trials if trial.failure is None]
    if not ended:
        return ()
    said = (_broken(constraint, ended) for constraint in constraints)
    return tuple(sentence for sentence in said if sentence)


def untold(constraints: Sequence[Constraint], trial: Trial) -> tuple[str, ...]:
    """A sentence for each limit whose figure ``trial``, which ended well, does not tell."""
    return tuple(
        f"{constraint.text}: {_untold(constraint)}"
        for constraint in constraints
        if all(value is None for _, value in _seen(FIGURES[constraint.figure], constraint, [trial]))
    )


def _untold(constraint: Constraint) -> str:
    return f"the server does not tell {FIGURES[constraint.figure].summary}"


def _broken(constraint: Constraint, trials: Sequence[Trial]) -> str:
    figure = FIGURES[constraint.figure]
    seen = [entry for entry in _seen(figure, constraint, trials) if entry[1] is not None]
    if not seen:
        return f"{constraint.text}: {_untold(constraint)}"
    worst = max if constraint.at_most else min
    where, value = worst(seen, key=lambda entry: entry[1] or 0.0)
    if value is None or (
        value <= constraint.limit if constraint.at_most else value >= constraint.limit
    ):
        return ""
    return f"{constraint.text}: it was {_shown(value, figure.unit)}{where}"


def _seen(
    figure: Figure, constraint: Constraint, trials: Sequence[Trial]
) -> Iterable[tuple[str, float | None]]:
    """Where, and the value there."""
    if figure.of_trial is not None:
        known = [value for trial in trials if (value := figure.of_trial(trial)) is not None]
        yield "", max(known, default=None)
        return
    phases: dict[tuple[str, int], list[PhaseRecord]] = {}
    for trial in trials:
        for phase in trial.phases:
            phases.setdefault((phase.workload, phase.concurrency), []).append(phase)
    for (workload, clients), records in phases.items():
        where = f" in {workload}" + (f" with {clients} clients" if clients > 1 else "")
        if figure.of_phase is not None:
            known = [v for record in records if (v := figure.of_phase(record)) is not None]
            yield where, mean(known) if known else None
        elif figure.of_requests is not None:
            known = [v for record in records for v in figure.of_requests(record) if v is not None]
            share = constraint.percentile or 50
            yield where, percentile(known, share) if known else None


def _shown(value: float, unit: Kind) -> str:
    if unit == "bytes":
        return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"


def _none_such(text: str, why: str) -> UsageError:
    known = "; ".join(f"{figure.name}: {figure.summary}" for figure in FIGURES.values())
    return UsageError(
        f"{text!r} is no constraint: {why}.",
        f"For example ttft_p95<500ms, memory<6GiB, decode>20tok/s. There are {known}. Times and "
        f"speeds of requests take a percentile, _p95; without one the median counts.",
    )
