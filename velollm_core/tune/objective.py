"""What is to be made faster: its names, and the one number that a trial comes to."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from attrs import frozen

from velollm_core.errors import UsageError
from velollm_core.experiment.measures import METRICS, value_of
from velollm_core.experiment.spec import Phase, Trial
from velollm_core.tune.spec import Objective, Term


@frozen(kw_only=True)
class Named:
    """An objective that a user can name: a metric, at the fewest or the most clients there are."""

    metric: str
    clients: Literal["fewest", "most"]
    summary: str


BUILT_IN: Mapping[str, Named] = {
    "decode": Named(
        metric="decode_tok_s",
        clients="fewest",
        summary="tokens a second of one answer",
    ),
    "prefill": Named(
        metric="prefill_tok_s",
        clients="fewest",
        summary="prompt tokens processed a second",
    ),
    "ttft": Named(
        metric="first_token_ms",
        clients="fewest",
        summary="time to first token",
    ),
    "throughput": Named(
        metric="output_tok_s",
        clients="most",
        summary="tokens of all clients together a second",
    ),
}
"""What ``--objective`` takes, by name."""

_PART = re.compile(r"(?P<name>[^@=]+)(@(?P<workload>[^=]+))?(=(?P<weight>.+))?")


def speed(objective: Objective, trial: Trial) -> float | None:
    """What ``trial`` came to: the weighted geometric mean of the speeds of the objective's terms.

    A speed is a metric, or the inverse of one that is better lower. ``None`` for a trial that
    failed, or that does not tell a term.
    """
    if trial.failure is not None:
        return None
    records = {(record.workload, record.concurrency): record for record in trial.phases}
    total = weights = 0.0
    for term in objective.terms:
        record = records.get((term.workload, term.concurrency))
        metric = METRICS[term.metric]
        value = None if record is None else value_of(metric, record)
        if value is None:
            return None
        total += term.weight * (math.log(value) if metric.higher_is_better else -math.log(value))
        weights += term.weight
    return math.exp(total / weights)


def parse_objective(text: str, phases: Sequence[Phase]) -> Objective:
    """The objective that a user's words mean for what is measured in ``phases``.

    ``throughput``, or a mix such as ``decode=2,ttft=1``. ``decode@code`` counts one workload alone;
    otherwise all count alike. Weights are relative.

    Args:
        text: what was typed.
        phases: at least one; an objective counts those with the fewest or the most clients.

    Raises:
        UsageError: it is none; the message says what is possible.
    """
    terms: list[Term] = []
    seen: set[tuple[str, str | None]] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise _none_such(text, "a part of it is empty")
        name, workload = match["name"].strip(), match["workload"]
        if name not in BUILT_IN:
            raise _none_such(text, f"there is no {name!r}")
        if (name, workload) in seen:
            raise _none_such(text, f"{part.strip().partition('=')[0]} stands there twice")
        seen.add((name, workload))
        counted = _counted(BUILT_IN[name], workload, phases)
        if not counted:
            known = ", ".join(dict.fromkeys(phase.workload.name for phase in phases))
            raise _none_such(text, f"no workload {workload!r} is measured, but {known}")
        weight = _weight(text, match["weight"])
        terms += [
            Term(
                workload=phase.workload.name,
                concurrency=phase.concurrency,
                metric=BUILT_IN[name].metric,
                weight=weight / len(counted),
            )
            for phase in counted
        ]
    return Objective(name=re.sub(r"\s+", "", text), terms=tuple(terms))


def _counted(named: Named, workload: str | None, phases: Sequence[Phase]) -> list[Phase]:
    of_it = [phase for phase in phases if workload in {None, phase.workload.name}]
    pick = min if named.clients == "fewest" else max
    clients = pick((phase.concurrency for phase in of_it), default=0)
    return [phase for phase in of_it if phase.concurrency == clients]


def _weight(text: str, words: str | None) -> float:
    if words is None:
        return 1.0
    try:
        weight = float(words)
    except ValueError:
        weight = 0.0
    if not math.isfinite(weight) or weight <= 0:
        raise _none_such(text, f"{words!r} is no weight above 0")
    return weight


def _none_such(text: str, why: str) -> UsageError:
    known = "; ".join(f"{name}: {named.summary}" for name, named in BUILT_IN.items())
    return UsageError(
        f"{text!r} is no objective: {why}.",
        f"There are {known}. A mix: decode=2,ttft=1. One workload of several: decode@code.",
    )
