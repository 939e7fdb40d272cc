"""Is the instrument right, and is it light?

1. Against a scripted server whose schedule is known to the microsecond, 16 streams of 100 events a
   second: the error of the time to first token and of the gaps between events.
2. At 2,000 events a second over 16 streams: processor time of the client an event.
3. On a real llama.cpp and the demo model, 30 ``medium`` requests: the client's decode rate, from
   its own time stamps, against the server's; and whether a time to first token was ever below the
   server's prompt time.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from record import arguments, percentile, write_record
from served import engine, started
from velollm_llamacpp.backend import LlamaCpp
from velollm_llamacpp.session import LlamaSession

from velollm_core.backends.contract import Event, Finish, Message, Request, Session
from velollm_core.experiment.phases import measure
from velollm_core.experiment.spec import Sample
from velollm_core.models.references import resolve
from velollm_core.plugins import load

STREAMS = 16
STAGGER_S = 0.06
ROUNDS = 5
PROMPT = (Message(role="user", content="scripted"),)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--requests", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    figures: dict[str, object] = {}
    figures |= schedule(gap_ms=10.0, seconds=given.seconds)
    figures |= cost(gap_ms=8.0, seconds=given.seconds)
    figures |= against_llama_cpp(given.requests)
    write_record(
        given.output,
        figures,
        [
            "velollm_core/backends",
            "velollm_core/experiment",
            "plugins/velollm-llamacpp/velollm_llamacpp",
            "benchmarks/instrument.py",
            "benchmarks/scripted_server.py",
            "benchmarks/served.py",
        ],
    )


@contextmanager
def scripted(first_ms: float, gap_ms: float) -> Iterator[Session]:
    """A session with the scripted server, which runs in a process of its own."""
    program = Path(__file__).with_name("scripted_server.py")
    server = subprocess.Popen(
        [sys.executable, str(program), str(first_ms), str(gap_ms)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        with LlamaSession(f"http://127.0.0.1:{int(server.stdout.readline())}") as session:
            yield session
    finally:
        server.kill()
        server.wait()


def schedule(gap_ms: float, seconds: float) -> dict[str, object]:
    """Error of what the client saw against what the server did, both on one steady clock."""
    count = int(1000 / gap_ms)
    first_errors: list[float] = []
    gap_errors: list[float] = []
    late: list[float] = []
    with scripted(50.0, gap_ms) as session:

        def client() -> None:
            for _ in range(int(seconds)):
                arrivals, sent = [], []
                read = 0.0
                for item in session.generate(Request(prompt=PROMPT, max_tokens=count)):
                    if isinstance(item, Event):
                        arrivals.append(item.at_ms)
                        words = item.text.split()
                        read, moment = float(words[0]) * 1000, float(words[1]) * 1000
                        sent.append(moment)
                first_errors.append(abs(arrivals[0] - (sent[0] - read)))
                late.append(max(sent[k] - read - 50.0 - k * gap_ms for k in range(count)))
                for index in range(1, len(arrivals)):
                    seen = arrivals[index] - arrivals[index - 1]
                    gap_errors.append(abs(seen - (sent[index] - sent[index - 1])))

        together(client, STAGGER_S)
    return {
        "schedule: streams": STREAMS,
        "schedule: events a second and stream": 1000 / gap_ms,
        "schedule: events": len(gap_errors) + len(first_errors),
        "schedule: error of time to first token, p99 ms": percentile(first_errors, 0.99),
        "schedule: requests": len(first_errors),
        "schedule: lateness of the server itself, p99 ms": percentile(late, 0.99),
        "schedule: error of gaps, p50 ms": percentile(gap_errors, 0.5),
        "schedule: error of gaps, p99 ms": percentile(gap_errors, 0.99),
    }


def cost(gap_ms: float, seconds: float) -> dict[str, object]:
    """Processor time of this process an event, all that a benchmark does with one included."""
    count = int(seconds * 1000 / gap_ms)
    rates: list[float] = []
    costs: list[float] = []
    for _ in range(ROUNDS):
        samples: list[Sample] = []
        with scripted(50.0, gap_ms) as session:

            def client(session: Session = session, samples: list[Sample] = samples) -> None:
                blank = Sample(index=0, started_ms=0.0, total_ms=0.0, prompt_sha256="")
                request = Request(prompt=PROMPT, max_tokens=count)
                samples.append(measure(session, request, blank, keep_text=False))

            started_s, wall_s = time.process_time(), time.perf_counter()
            together(client)
            used_s, elapsed_s = time.process_time() - started_s, time.perf_counter() - wall_s
        events = sum(len(sample.event_ms) for sample in samples)
        rates.append(events / elapsed_s)
        costs.append(used_s / events * 1e6)
    return {
        "cost: rounds": ROUNDS,
        "cost: events a second, median": statistics.median(rates),
        "cost: client CPU an event, median us": statistics.median(costs),
        "cost: client CPU an event, worst us": max(costs),
    }


def together(client: object, stagger_s: float = 0.0) -> None:
    """Run one client a stream, and wait for all."""
    threads = [threading.Thread(target=client) for _ in range(STREAMS)]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
        # Sixteen requests in one instant would measure how the scripted server accepts them.
        time.sleep(stagger_s)
    for thread in threads:
        thread.join()


def against_llama_cpp(requests: int) -> dict[str, object]:
    """The client's own rate against the server's, request by request."""
    plugins = load(dict(os.environ))
    workload = plugins.workloads()["medium"]
    installation = engine()
    model = resolve(
        "demo", plugins.model_sources(), progress=lambda *_: None, environ=dict(os.environ)
    )
    ratios, leads, client_rates, server_rates = [], [], [], []
    config = LlamaCpp().defaults(installation, model).config
    with started(installation, model, config) as (session, _):
        for index in range(-1, requests):
            request = Request(prompt=workload.messages(0, 0, index), max_tokens=workload.max_tokens)
            items = list(session.generate(request))
            events = [item for item in items if isinstance(item, Event)]
            end = items[-1]
            assert isinstance(end, Finish)
            assert end.timings is not None
            assert end.output_tokens is not None
            if index < 0:
                continue
            span_ms = events[-1].at_ms - events[0].at_ms
            client_rates.append((end.output_tokens - 1) / span_ms * 1000)
            server_rates.append((end.output_tokens - 1) / end.timings.predicted_ms * 1000)
            ratios.append(client_rates[-1] / server_rates[-1])
            leads.append(events[0].at_ms - end.timings.prompt_ms)
    return {
        "llama.cpp: requests": requests,
        "llama.cpp: decode rate by the client, median tok/s": statistics.median(client_rates),
        "llama.cpp: decode rate by the server, median tok/s": statistics.median(server_rates),
        "llama.cpp: client to server, median ratio": statistics.median(ratios),
        "llama.cpp: client to server, worst ratio": max(ratios, key=lambda ratio: abs(ratio - 1)),
        "llama.cpp: least of time to first token less prompt time, ms": min(leads),
    }


if __name__ == "__main__":
    main()
