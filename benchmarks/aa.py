"""Is the verdict right as often as it says?

On real llama.cpp and the demo model, 12 pairs of 2 ``short`` requests a run:

1. A/A: 40 runs of ``velollm bench --ab same``. Nothing differs, so ``faster`` and ``slower`` are
   both wrong.
2. ``velollm bench --ab threads=1`` against the default of two: 10 runs, to be called slower.
3. Both arms through a relay, that of one making every token arrive 10 % later: 10 runs, to be
   called slower.

The engine is the llama-server named in VELOLLM_TEST_LLAMA_SERVER, else the embedded one. Each run
is kept as it ends, in results/partial/; a check that was stopped goes on from there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from record import ROOT, arguments, trees, write_record
from velollm_llamacpp.backend import LlamaCpp
from velollm_llamacpp.session import LlamaSession

from velollm_core.backends.contract import Event, Finish, Installation, Request, Session
from velollm_core.backends.processes import Place
from velollm_core.config import Config, Settings
from velollm_core.documents import to_plain
from velollm_core.experiment.clock import SystemClock
from velollm_core.experiment.comparison import compare
from velollm_core.experiment.conditions import spoilers
from velollm_core.experiment.journal import RunJournal
from velollm_core.experiment.monitor import SystemMonitor
from velollm_core.experiment.records import arm_record, workload_record
from velollm_core.experiment.runner import Surroundings, run
from velollm_core.experiment.spec import Arm, Experiment, Phase, Question
from velollm_core.hardware.detect import available_bytes
from velollm_core.models.references import resolve
from velollm_core.models.spec import Model
from velollm_core.plugins import load

SERVER = os.environ.get("VELOLLM_TEST_LLAMA_SERVER")
ENGINE = {"server": SERVER} if SERVER else {"engine": "embedded"}
PAIRS = 12
REQUESTS = 2
STRETCH = 1.1
RUNS = {"same": 40, "threads=1": 10, "relay": 10}
DEPENDS_ON = (
    "velollm_core/statistics.py",
    "velollm_core/experiment/comparison.py",
    "velollm_core/experiment/measures.py",
    "velollm_core/experiment/phases.py",
    "velollm_core/experiment/runner.py",
    "plugins/velollm-llamacpp/velollm_llamacpp/launch.py",
    "plugins/velollm-llamacpp/velollm_llamacpp/session.py",
    "plugins/velollm-llamacpp/velollm_llamacpp/stream.py",
    "benchmarks/aa.py",
    "benchmarks/relay.py",
)
PARTIAL = ROOT / "benchmarks" / "results" / "partial" / "aa.json"
_AT_REST_S = 600


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--most", type=int, help="do at most so many runs now, and keep them")
    given = parser.parse_args()
    done = kept()
    for kind, number in left(done)[: given.most]:
        started = time.monotonic()
        answer = relayed(number) if kind == "relay" else through_the_command(kind, number)
        done.append({"kind": kind, "number": number, **answer})
        keep(done)
        took_s = time.monotonic() - started
        print(f"{kind} {number}: {answer['verdict']} {answer['speed_ratio']:.4f} ({took_s:.0f} s)")
    if left(done):
        print(f"{len(left(done))} runs are left; call it again to go on.")
        return
    write_record(given.output, figures(done), DEPENDS_ON)
    PARTIAL.unlink()


def left(done: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """What is still to do."""
    known = {(entry["kind"], entry["number"]) for entry in done}
    plan = [(kind, number) for kind, count in RUNS.items() for number in range(count)]
    return [entry for entry in plan if entry not in known]


def kept() -> list[dict[str, Any]]:
    """Runs of the same code that an earlier call left."""
    if not PARTIAL.exists():
        return []
    partial = json.loads(PARTIAL.read_text(encoding="utf-8"))
    return list(partial["runs"]) if partial["of"] == measured_with() else []


def keep(done: list[dict[str, Any]]) -> None:
    PARTIAL.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"of": measured_with(), "runs": done}, indent=1)
    temporary = PARTIAL.with_suffix(".tmp")
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(PARTIAL)


def measured_with() -> dict[str, str]:
    return {**trees(DEPENDS_ON), "engine": "llama-server" if SERVER else "embedded"}


def through_the_command(change: str, number: int) -> dict[str, Any]:
    """One run of ``velollm bench --ab``, with prompts of its own."""
    command = [
        *(sys.executable, "-m", "velollm_core.cli", "--backend", "llamacpp"),
        *("-X", "=".join(*ENGINE.items()), "--model", "demo"),
        *("bench", "--ab", change, "--workload", "short", "--requests", str(REQUESTS)),
        *("--launches", str(PAIRS), "--seed", str(number), "--json", "--quiet"),
    ]
    deadline = time.monotonic() + _AT_REST_S
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "VELOLLM_DATA_DIR": folder}
        while True:
            done = subprocess.run(
                command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
            )
            if done.returncode in {0, 4} and done.stdout:
                return checked(json.loads(done.stdout)["comparisons"][0])
            # It refuses to measure while something else is at work here.
            if "not at rest" not in done.stderr or time.monotonic() > deadline:
                raise SystemExit(done.stderr)
            time.sleep(10)


def relayed(number: int) -> dict[str, Any]:
    """One run with both arms behind a relay, one of which is slower by a known part."""
    deadline = time.monotonic() + _AT_REST_S
    while (found := spoilers(os.cpu_count() or 1, ())) and time.monotonic() < deadline:
        time.sleep(10)
    if found:
        raise SystemExit("; ".join(found))
    backend = LlamaCpp()
    installation = backend.probe(ENGINE, os.environ)[0]
    plugins = load(os.environ)
    model = resolve("demo", plugins.model_sources(), progress=lambda *_: None, environ=os.environ)
    settings = backend.defaults(installation, model)
    workload = plugins.workloads()["short"]
    arms = tuple(
        Arm(
            name=name,
            backend=Relayed(stretch),
            installation=installation,
            model=model,
            settings=settings,
        )
        for name, stretch in (("plain", 1.0), ("stretched", STRETCH))
    )
    experiment = Experiment(
        arms=arms,
        phases=(Phase(workload=workload, requests=REQUESTS),),
        blocks=PAIRS,
        seed=number,
        question=Question(baseline="plain", metric="output_tok_s"),
    )
    result = run(
        experiment,
        journal=RunJournal("relay"),
        clock=SystemClock(),
        surroundings=Surroundings(
            environ=dict(os.environ),
            available_bytes=available_bytes,
            monitor=SystemMonitor(available_bytes),
            hardware_fingerprint="here",
        ),
    )
    assert experiment.question is not None
    row = compare(
        experiment.question,
        [arm_record(arm) for arm in arms],
        [workload_record(phase) for phase in experiment.phases],
        result.trials,
        experiment.blocks,
    )[0]
    return checked(to_plain(row))


def checked(row: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of a run, if it is one of whole pairs."""
    if len(row["pairs"]) != PAIRS:
        raise SystemExit(f"only {len(row['pairs'])} of {PAIRS} pairs: {row['why']}")
    return {name: row[name] for name in ("verdict", "speed_ratio", "low", "high")}


def figures(done: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind, words in (("same", "A/A"), ("threads=1", "one thread"), ("relay", "relay + 10 %")):
        rows = [entry for entry in done if entry["kind"] == kind]
        verdicts = Counter(entry["verdict"] for entry in rows)
        found[f"{words}: runs"] = len(rows)
        for verdict in ("faster", "slower", "no difference", "inconclusive"):
            found[f"{words}: {verdict}"] = verdicts[verdict]
        ratios = sorted(entry["speed_ratio"] for entry in rows)
        found[f"{words}: median ratio"] = ratios[len(ratios) // 2]
        widths = sorted(entry["high"] / entry["low"] - 1 for entry in rows)
        found[f"{words}: median width of the interval, %"] = 100 * widths[len(widths) // 2]
    engine = "llama-server" if SERVER else "embedded"
    return {"engine": engine, **found, "runs one by one": done}


class Relayed(LlamaCpp):
    """llama.cpp behind a relay."""

    def __init__(self, stretch: float) -> None:
        self.stretch = stretch

    def launch(
        self, installation: Installation, model: Model, settings: Settings, place: Place
    ) -> Session:
        inner = super().launch(installation, model, settings, place)
        return RelayedSession(inner, self.stretch)


class RelayedSession(Session):
    def __init__(self, inner: Session, stretch: float) -> None:
        self._inner = inner
        program = Path(__file__).with_name("relay.py")
        port = inner.url.rpartition(":")[2].strip("/")
        self._relay = subprocess.Popen(
            [sys.executable, str(program), port, str(stretch)], stdout=subprocess.PIPE, text=True
        )
        assert self._relay.stdout is not None
        said = self._relay.stdout.readline()
        if not said.strip().isdigit():
            inner.close()
            raise SystemExit("the relay did not start")
        self.url = f"http://127.0.0.1:{int(said)}"
        self._through = LlamaSession(self.url)
        self.pids = (*inner.pids, self._relay.pid)
        self.load_ms = inner.load_ms
        self.capabilities = inner.capabilities

    def generate(self, request: Request) -> Iterator[Event | Finish]:
        return self._through.generate(request)

    def effective(self) -> Config:
        return self._inner.effective()

    def close(self) -> None:
        self._through.close()
        self._inner.close()
        self._relay.kill()
        self._relay.wait()


if __name__ == "__main__":
    main()
