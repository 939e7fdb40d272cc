"""One phase of a trial: clients that send requests and measure the answers."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Literal

from attrs import astuple, evolve

from velollm_core.backends.contract import (
    Event,
    Finish,
    Message,
    Request,
    Sampling,
    ServerTimings,
    Session,
)
from velollm_core.errors import FailureKind, RequestError, VeloError
from velollm_core.experiment.clock import Clock
from velollm_core.experiment.spec import Experiment, Failure, Phase, PhaseRecord, Sample

_PHASE_STRIDE = 1_008_000
"""Distance between the prompt numbers of two phases, so that no prompt is sent twice to one server.

A multiple of every group size up to 10, so that conversations stay whole."""

_CLOSING_S = 10.0
_MOST_FAILURES = 20
"""So many failed requests in a row say enough, above all where only a duration ends the phase."""
_FATAL = frozenset({FailureKind.CRASH, FailureKind.OUT_OF_MEMORY, FailureKind.TIMEOUT})

Tell = Callable[[Literal["warming", "measuring"], int, Sample | None], None]


class PhaseStopped(Exception):  # noqa: N818 - not an error of ours, an outcome
    """A phase ended early; ``record`` holds what was measured until then."""

    def __init__(self, record: PhaseRecord, failure: Failure) -> None:
        super().__init__(failure.message)
        self.record = record
        self.failure = failure


def run_phase(
    session: Session,
    experiment: Experiment,
    *,
    number: int,
    block: int,
    nonce: str | None,
    clock: Clock,
    tell: Tell,
    danger: Sequence[Failure] = (),
) -> PhaseRecord:
    """Warm up, then measure phase ``number`` of ``experiment`` in ``block``.

    Args:
        session: the running server; closed when the phase has to be stopped.
        experiment: what to do; ``phases[number]`` is done here.
        number: which phase.
        block: which block; arms of one block get the same prompts.
        nonce: put before each prompt where arms share a server, so that none finds another's cache.
        clock: the time.
        tell: told after each request, from the client's thread.
        danger: filled from elsewhere when the trial has to end, with why.

    Raises:
        PhaseStopped: the server failed, or the user stopped the run.
    """
    phase = experiment.phases[number]
    clients = _Clients(
        session,
        experiment,
        number=number,
        block=block,
        nonce=nonce,
        clock=clock,
        tell=tell,
        danger=danger,
    )
    group = phase.workload.group
    first_warm = -(-phase.warmup // group) * group
    clients.run("warming", iter(range(-first_warm, -first_warm + phase.warmup)), 1)
    started_ms = clock.now_ms()
    clients.run("measuring", _indices(phase, clock, started_ms), phase.concurrency)
    return clients.record()


def _indices(phase: Phase, clock: Clock, started_ms: float) -> Iterator[int]:
    """Numbers of the measured requests: as many as asked, or until the time is over."""
    index = 0
    while index < phase.requests or (
        phase.duration_s is not None and clock.now_ms() - started_ms < phase.duration_s * 1000.0
    ):
        yield index
        index += 1


class _Clients:
    """Closed-loop clients: each sends its next request when its last one is answered."""

    def __init__(
        self,
        session: Session,
        experiment: Experiment,
        *,
        number: int,
        block: int,
        nonce: str | None,
        clock: Clock,
        tell: Tell,
        danger: Sequence[Failure],
    ) -> None:
        self._danger = danger
        self._failed_in_a_row = 0
        self._session = session
        self._experiment = experiment
        self._phase = experiment.phases[number]
        self._number = number
        self._block = block
        self._nonce = nonce
        self._clock = clock
        self._tell = tell
        self._samples: list[Sample] = []
        self._failure: Failure | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._origin_ms = clock.now_ms()

    def record(self) -> PhaseRecord:
        measured = [sample for sample in self._samples if not sample.warmup]
        starts = [sample.started_ms for sample in measured]
        ends = [sample.started_ms + sample.total_ms for sample in measured]
        return PhaseRecord(
            workload=self._phase.workload.name,
            concurrency=self._phase.concurrency,
            wall_ms=max(ends) - min(starts) if measured else 0.0,
            samples=tuple(
                sorted(self._samples, key=lambda sample: (sample.started_ms, sample.index))
            ),
        )

    def run(
        self, event: Literal["warming", "measuring"], indices: Iterator[int], concurrency: int
    ) -> None:
        self._tell(event, 0, None)
        threads = [
            threading.Thread(
                target=self._client, args=(event, indices), name=f"velollm-client-{k}", daemon=True
            )
            for k in range(concurrency)
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    # A bounded wait lets Ctrl-C through on every system.
                    thread.join(0.2)
        except KeyboardInterrupt:
            # A second Ctrl-C hurries the closing, and must not cost what was measured.
            with suppress(KeyboardInterrupt):
                self._fail(Failure(kind=FailureKind.INTERRUPTED, message="stopped by the user."))
            with suppress(KeyboardInterrupt):
                for thread in threads:
                    if thread.ident is not None:
                        thread.join(_CLOSING_S)
        if self._failure is not None:
            raise PhaseStopped(self.record(), self._failure)

    def _client(self, event: Literal["warming", "measuring"], indices: Iterator[int]) -> None:
        try:
            while not self._stop.is_set():
                with self._lock:
                    group = self._take(indices)
                if not group:
                    return
                for index in group:
                    if self._stop.is_set():
                        return
                    self._one(event, index)
        except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to; the trial fails
            self._fail(Failure(kind=FailureKind.CRASH, message=f"{type(error).__name__}: {error}"))

    def _take(self, indices: Iterator[int]) -> list[int]:
        """The next requests that belong together: the turns of one conversation go to one
        client.
        """
        size = self._phase.workload.group
        group: list[int] = []
        for index in indices:
            group.append(index)
            if (index + 1) % size == 0:
                break
        return group

    def _one(self, event: Literal["warming", "measuring"], index: int) -> None:
        sample = self._measure(index, warmup=event == "warming")
        with self._lock:
            stopped = self._stop.is_set() and sample.error is not None
            if not stopped or sample.event_ms:
                self._samples.append(sample)
            done = sum(entry.warmup == sample.warmup for entry in self._samples)
            self._failed_in_a_row = 0 if sample.error is None else self._failed_in_a_row + 1
        self._tell(event, done, sample)
        if self._danger:
            self._fail(self._danger[0])
        elif sample.failure in _FATAL or self._failed_in_a_row >= _MOST_FAILURES:
            kind = sample.failure or FailureKind.REFUSED
            self._fail(Failure(kind=kind, message=sample.error or ""))

    def _fail(self, failure: Failure) -> None:
        with self._lock:
            first = self._failure is None
            if first:
                self._failure = failure
        if first:
            self._stop.set()
            # Clients that still wait for an answer are woken by the closing of their connections.
            self._session.close()

    def _measure(self, index: int, *, warmup: bool) -> Sample:
        phase = self._phase
        messages = phase.workload.messages(
            self._experiment.seed, self._block, self._number * _PHASE_STRIDE + index
        )
        if self._nonce is not None:
            messages = _with_nonce(messages, f"{self._nonce}/{index}")
        request = Request(
            prompt=messages,
            max_tokens=phase.max_tokens or phase.workload.max_tokens,
            sampling=Sampling(temperature=0.0, seed=self._experiment.seed),
            timeout_s=self._experiment.request_timeout_s,
        )
        blank = Sample(
            index=index,
            warmup=warmup,
            started_ms=self._clock.now_ms() - self._origin_ms,
            total_ms=0.0,
            prompt_sha256=_sha256("\x00".join(f"{m.role}\x00{m.content}" for m in messages)),
        )
        return measure(self._session, request, blank, keep_text=self._experiment.keep_text)


def measure(session: Session, request: Request, blank: Sample, *, keep_text: bool) -> Sample:
    """Send ``request`` and fill ``blank`` with what came back. Never raises for a failed
    request.
    """
    arrivals: list[float] = []
    counts: list[int] = []
    texts: list[str] = []
    finish: Finish | None = None
    error: VeloError | None = None
    sent = time.perf_counter()
    try:
        for item in session.generate(request):
            if isinstance(item, Event):
                if item.text:
                    arrivals.append(item.at_ms)
                    counts.append(item.tokens or 0)
                    texts.append(item.text)
            else:
                finish = item
        if finish is None:
            error = RequestError(
                "the answer ended without its end.", "The server died or was stopped."
            )
    except VeloError as fault:
        error = fault
    text = "".join(texts)
    sample = evolve(
        blank,
        first_token_ms=arrivals[0] if arrivals else None,
        total_ms=arrivals[-1] if arrivals else 0.0,
        event_ms=tuple(arrivals),
        event_tokens=tuple(counts),
        output_sha256=_sha256(text),
        text=text if keep_text else None,
    )
    if error is not None or finish is None:
        kind = error.kind if isinstance(error, RequestError) else FailureKind.REFUSED
        waited_ms = (time.perf_counter() - sent) * 1000.0
        return evolve(
            sample, total_ms=max(sample.total_ms, waited_ms), error=str(error), failure=kind
        )
    return evolve(
        sample,
        total_ms=finish.at_ms,
        finish_reason=finish.reason,
        prompt_tokens=finish.prompt_tokens,
        cached_tokens=finish.cached_tokens,
        output_tokens=finish.output_tokens,
        timings=_finite(finish.timings),
        drafted_tokens=finish.drafted_tokens,
        accepted_tokens=finish.accepted_tokens,
    )


def _finite(timings: ServerTimings | None) -> ServerTimings | None:
    """``timings``, unless the server sent what is no number: JSON has no infinity."""
    if timings is None or all(math.isfinite(value or 0.0) for value in astuple(timings)):
        return timings
    return None


def _with_nonce(messages: tuple[Message, ...], nonce: str) -> tuple[Message, ...]:
    first, *rest = messages
    return (evolve(first, content=f"[{_sha256(nonce)[:8]}] {first.content}"), *rest)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
