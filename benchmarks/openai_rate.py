"""Do two backends see the same server alike?

One real llama-server is started once. velollm-llamacpp attaches to it by llama.cpp's own protocol,
velollm-openai by the OpenAI one, and both measure the ``short`` workload, block by block in
shuffled order. The first is told how many tokens each event holds, the second only how many the
answer had: their decode rates by the client's clock must agree within 2 %.

No two answers take the server equally long, so the same is asked once more with each rate held
against the server's own, which its log tells of every answer: that ratio must lie within 2 % with
its whole interval.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from record import arguments, write_record
from served import engine, started
from velollm_llamacpp.backend import LlamaCpp

from velollm_core.backends.contract import Installation, Session
from velollm_core.config import Settings
from velollm_core.experiment.clock import SystemClock
from velollm_core.experiment.journal import RunJournal
from velollm_core.experiment.measures import client_decode_tok_s, measured
from velollm_core.experiment.monitor import SystemMonitor
from velollm_core.experiment.runner import Surroundings, run
from velollm_core.experiment.spec import Arm, Experiment, Phase, Trial
from velollm_core.hardware.detect import available_bytes
from velollm_core.models.references import resolve
from velollm_core.plugins import Plugins, load
from velollm_core.statistics import mean, median, paired_ratio

ALLOWED = 0.02
_TIMED = re.compile(r"[|\s] eval time = *([0-9.]+) ms / *([0-9]+) tokens")
BACKENDS = ("llamacpp", "openai")


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.add_argument("--blocks", type=int, default=48)
    parser.add_argument("--requests", type=int, default=2)
    given = parser.parse_args()
    plugins = load(dict(os.environ))
    with one_thread(plugins) as (installation, session, log):
        trials = measure(plugins, session.url, given.blocks, given.requests)
        served = by_the_log(log.read_text(encoding="utf-8", errors="replace"), trials)
    failures = [trial.failure.message for trial in trials if trial.failure is not None]
    if failures:
        print(f"{len(failures)} trials failed: {failures[0]}", file=sys.stderr)
        return 1
    by_block = {name: values(trials, name) for name in BACKENDS}
    blocks = sorted(set.intersection(*map(set, by_block.values())))
    rates = {name: [by_block[name][block] for block in blocks] for name in BACKENDS}
    held = {
        name: [by_block[name][block] / served[name, block] for block in blocks] for name in BACKENDS
    }
    ratio, held_ratio = paired_ratio(*rates.values()), paired_ratio(*held.values())
    assert ratio is not None
    assert held_ratio is not None
    samples = [sample for trial in trials for sample in measured(trial.phases[0])]
    figures = {
        "llama-server": f"{installation.kind} {installation.version or installation.build}",
        "blocks": ratio.n,
        "requests a block and backend": given.requests,
        "decode rate by llamacpp, mean tok/s": mean(rates["llamacpp"]),
        "decode rate by openai, mean tok/s": mean(rates["openai"]),
        "openai to llamacpp, ratio": ratio.value,
        "openai to llamacpp, 95 % interval, low": ratio.low,
        "openai to llamacpp, 95 % interval, high": ratio.high,
        "each held against the server's log, ratio": held_ratio.value,
        "each held against the server's log, 95 % interval, low": held_ratio.low,
        "each held against the server's log, 95 % interval, high": held_ratio.high,
        "answers that ended by themselves": sum(s.finish_reason == "stop" for s in samples),
        "answers": len(samples),
    }
    write_record(
        given.output,
        figures,
        [
            "velollm_core/backends",
            "velollm_core/experiment",
            "plugins/velollm-llamacpp/velollm_llamacpp",
            "plugins/velollm-openai/velollm_openai",
            "benchmarks/openai_rate.py",
            "benchmarks/served.py",
        ],
    )
    least, most = 1 - ALLOWED, 1 + ALLOWED
    inside = least <= held_ratio.low and held_ratio.high <= most
    return 0 if inside and least <= ratio.value <= most else 1


@contextmanager
def one_thread(plugins: Plugins) -> Iterator[tuple[Installation, Session, Path]]:
    """A llama-server of the user's, or the wheel, with the demo model; and its log.

    One thread: two that wait for each other make any other work on the machine a bigger difference
    than the one that is looked for.
    """
    installation = engine(os.environ.get("VELOLLM_TEST_LLAMA_SERVER"))
    model = resolve(
        "demo", plugins.model_sources(), progress=lambda *_: None, environ=dict(os.environ)
    )
    config = LlamaCpp().defaults(installation, model).config | {"threads": 1}
    with started(installation, model, config) as (session, log):
        yield installation, session, log


def measure(plugins: Plugins, url: str, blocks: int, requests: int) -> tuple[Trial, ...]:
    """Every block holds each backend once."""
    workload = plugins.workloads()["short"]
    experiment = Experiment(
        arms=tuple(arm(plugins, name, url) for name in BACKENDS),
        phases=(Phase(workload=workload, requests=requests, warmup=0),),  # one server, warm at once
        blocks=blocks,
        unit="block",
    )
    surroundings = Surroundings(
        environ=dict(os.environ),
        available_bytes=available_bytes,
        monitor=SystemMonitor(available_bytes),
        hardware_fingerprint="",
    )
    return run(
        experiment,
        journal=RunJournal("openai-rate"),
        clock=SystemClock(),
        surroundings=surroundings,
    ).trials


def arm(plugins: Plugins, name: str, url: str) -> Arm:
    backend = plugins.backend(name)
    installation = backend.probe({"url": url}, {})[0]
    return Arm(
        name=name,
        backend=backend,
        installation=installation,
        model=backend.models(installation)[0],
        settings=Settings(),
        mode="attach",
    )


def values(trials: tuple[Trial, ...], name: str) -> dict[int, float]:
    """The decode rate of each block that has one."""
    rates = {
        trial.block: client_decode_tok_s(trial.phases[0]) for trial in trials if trial.arm == name
    }
    return {block: rate for block, rate in rates.items() if rate is not None}


def by_the_log(log: str, trials: tuple[Trial, ...]) -> dict[tuple[str, int], float]:
    """What the server wrote of its answers, one after the other: the median rate of each trial.

    Raises:
        ValueError: it wrote of more answers than were asked for, or of fewer.
    """
    # What attaching asks ends with its first token, after no time.
    told = [(float(ms), int(tokens)) for ms, tokens in _TIMED.findall(log) if float(ms)]
    asked = sum(len(trial.phases[0].samples) for trial in trials)
    if len(told) != asked:
        raise ValueError(f"the log tells of {len(told)} answers, {asked} were asked for")
    rest = iter(told)
    rates = {}
    for trial in trials:
        answers = [next(rest) for _ in trial.phases[0].samples]
        # An answer of one token has no rate, on either side.
        known = [1000 * (tokens - 1) / ms for ms, tokens in answers if tokens > 1]
        if known:
            rates[trial.arm, trial.block] = median(known)
    return rates


if __name__ == "__main__":
    sys.exit(main())
