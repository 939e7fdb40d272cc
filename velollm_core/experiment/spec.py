"""The words of measuring: workloads, arms, experiments, and what comes out of them.

``Arm`` and ``Experiment`` hold live objects and describe what is to be done; ``Trial``, ``Sample``
and ``BenchmarkResult`` are plain data, written to the journal and to ``velollm.benchmark/1``
documents. Nothing in them names a host, a user or a home path, and texts are hashed unless they
were asked to be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from attrs import field, frozen

from velollm_core.backends.contract import Mismatch, ServerTimings
from velollm_core.config import Config, LeftOut, Settings
from velollm_core.errors import FailureKind
from velollm_core.hardware.spec import HardwareSpec
from velollm_core.models.spec import ModelSpec
from velollm_core.statistics import MARGIN, Verdict

if TYPE_CHECKING:
    from velollm_core.backends.contract import Backend, Installation, Message
    from velollm_core.models.spec import Model

RUNNER_VERSION = 1
"""Part of a trial's key: raised when trials of before and after can no longer stand in one
comparison."""


@frozen(kw_only=True)
class Workload:
    """A family of prompts: a pure function from (seed, block, index) to a request's messages.

    ``max_tokens`` bounds each answer. ``group`` consecutive indices belong together and are sent in
    order by one client (the turns of a conversation). ``repeats_input`` says that answers repeat
    much of the prompt, on which speculation lives. ``reuses_prefix`` says that prompts share
    prefixes on purpose. ``digest`` changes whenever the prompts change.
    """

    name: str
    summary: str
    max_tokens: int
    messages: Callable[[int, int, int], tuple[Message, ...]] = field(eq=False, repr=False)
    digest: str
    group: int = 1
    repeats_input: bool = False
    reuses_prefix: bool = False


@frozen(kw_only=True)
class Phase:
    """A part of a trial: ``requests`` of one workload by ``concurrency`` clients, after ``warmup``
    more.

    ``max_tokens`` overrides the workload's. ``duration_s``, where given, ends the phase after that
    time instead (``requests`` is then the least number sent).
    """

    workload: Workload
    requests: int
    concurrency: int = 1
    warmup: int = 1
    max_tokens: int | None = None
    duration_s: float | None = None


@frozen(kw_only=True)
class Arm:
    """One configuration that takes part: what to run, and whether to start it or to attach to
    it.
    """

    name: str
    backend: Backend
    installation: Installation
    model: Model
    settings: Settings
    mode: Literal["launch", "attach"] = "launch"


@frozen(kw_only=True)
class Question:
    """What an experiment is to decide, stated before it runs: is any other arm faster than
    ``baseline``?

    ``metric`` names one of ``experiment.measures.METRICS``. ``margin`` is the difference that does
    not matter, as a part of the ratio. ``confidence`` is that of all verdicts together.
    """

    baseline: str
    metric: str
    margin: float = MARGIN
    confidence: float = 0.95


@frozen(kw_only=True)
class Experiment:
    """Every block holds every arm once, in an order shuffled by ``seed``.

    With ``unit="launch"`` each trial starts its own server; with ``unit="block"`` an arm keeps one
    session for the whole experiment and changes it through ``reconfigure``. ``question`` is what
    the arms are compared for. ``keep_text`` keeps answers in the samples. ``force`` measures
    although another server or a foreign load is at work.
    """

    arms: tuple[Arm, ...]
    phases: tuple[Phase, ...]
    blocks: int
    seed: int = 0
    unit: Literal["launch", "block"] = "launch"
    question: Question | None = None
    keep_text: bool = False
    force: bool = False
    launch_timeout_s: float = 180.0
    request_timeout_s: float = 120.0


@frozen(kw_only=True)
class Sample:
    """One request measured.

    Times are milliseconds: ``started_ms`` since the phase began, the others since the request was
    sent. ``event_ms`` holds the arrival of every event with text, ``event_tokens`` how many tokens
    each carried, 0 where the server did not say. Counts and ``timings`` are the server's.
    ``output_sha256`` is the hash of the whole answer. A request that failed has ``error``, and
    whatever came before it.
    """

    index: int
    warmup: bool = False
    started_ms: float
    first_token_ms: float | None = None
    total_ms: float
    event_ms: tuple[float, ...] = ()
    event_tokens: tuple[int, ...] = ()
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    timings: ServerTimings | None = None
    drafted_tokens: int | None = None
    accepted_tokens: int | None = None
    prompt_sha256: str
    output_sha256: str | None = None
    text: str | None = None
    error: str | None = None
    failure: FailureKind | None = None


@frozen(kw_only=True)
class PhaseRecord:
    """What one phase of a trial gave. ``wall_ms`` spans the first measured request's start to the
    last one's end.
    """

    workload: str
    concurrency: int
    wall_ms: float
    samples: tuple[Sample, ...] = ()
    client_cpu_s: float | None = None
    server_cpu_s: float | None = None


@frozen(kw_only=True)
class Failure:
    """How a trial failed, with the engine's own words."""

    kind: FailureKind
    message: str


@frozen(kw_only=True)
class MachineLoad:
    """What else the machine did during a trial.

    ``foreign_cpus`` is the mean number of processors kept busy by neither VeloLLM nor its server.
    ``swapped_bytes`` is how much swap in use grew. ``on_battery`` is ``None`` where there is none.
    """

    foreign_cpus: float | None = None
    load_average_1m: float | None = None
    available_bytes_min: int | None = None
    swapped_bytes: int = 0
    on_battery: bool | None = None
    cpu_mhz: float | None = None


@frozen(kw_only=True)
class Trial:
    """One arm in one block. ``key`` hashes everything that makes it repeatable; see
    ``experiment.keys``.

    ``effective`` was read back from the server; ``mismatches`` lists each knob that the engine did
    not take as expected, and ``unverified`` those that it cannot tell. ``counters`` are the
    server's own: what those named ``*_total`` rose by during the trial, and the others as they
    stood at its end.
    """

    key: str
    arm: str
    block: int
    position: int
    started_at: str
    duration_ms: float
    phases: tuple[PhaseRecord, ...] = ()
    failure: Failure | None = None
    load_ms: float | None = None
    effective: Config = Config()
    mismatches: tuple[Mismatch, ...] = ()
    unverified: tuple[str, ...] = ()
    peak_rss_bytes: int | None = None
    peak_gpu_bytes: Mapping[str, int] = field(factory=dict)
    energy_j: float | None = None
    counters: Mapping[str, float] = field(factory=dict)
    load: MachineLoad = MachineLoad()


@frozen(kw_only=True)
class WorkloadRecord:
    """What a stranger needs to send the same prompts."""

    name: str
    digest: str
    requests: int
    concurrency: int
    warmup: int
    max_tokens: int
    duration_s: float | None = None
    reuses_prefix: bool = False


@frozen(kw_only=True)
class EngineRecord:
    """An engine without anything that names its user: no path and no address."""

    backend: str
    kind: str
    version: str | None = None
    build: str | None = None
    cpu_features: tuple[str, ...] = ()


@frozen(kw_only=True)
class ModelRecord:
    """A model by what it is: its fingerprint and header, and the name it was asked by without
    directories.
    """

    name: str
    fingerprint: str | None = None
    spec: ModelSpec | None = None


@frozen(kw_only=True)
class ArmRecord:
    """One arm as it took part: what was asked for, and where each value came from.

    ``digest`` tells two arms apart whose further arguments, or whose running servers, differ.
    ``extra_flags`` names the user's further arguments without their values, which can hold paths
    and keys.
    """

    name: str
    mode: str
    engine: EngineRecord
    model: ModelRecord
    config: Config = Config()
    digest: str = ""
    extra_flags: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(factory=dict)
    left_out: tuple[LeftOut, ...] = ()


@frozen(kw_only=True)
class Pair:
    """Both arms of a comparison in one block: the metric's values, in its own unit."""

    block: int
    baseline: float
    changed: float


class Because(StrEnum):
    """Why a comparison has its verdict; all but the first leave it open."""

    INTERVAL = "interval"
    TOO_FEW_PAIRS = "too few pairs"
    NO_VALUES = "no values"
    FAULTS = "faults"
    IGNORED = "ignored"
    CUT_SHORT = "cut short"


@frozen(kw_only=True)
class Comparison:
    """One arm against the baseline, in one workload at one concurrency.

    ``speed_ratio`` is above 1 where ``changed`` is the faster one, whichever way ``metric`` points;
    ``low`` and ``high`` bound it with ``confidence``, which is higher than the question's where it
    has several answers. All three are ``None`` below two pairs. ``dropped`` counts the blocks in
    which either arm has no value. ``because`` is the verdict's reason for programs, ``why`` for
    people. ``pairs_to_decide`` is how many would probably settle it, where more would help.
    ``agreement`` is the share of requests that both arms answered with the same text, ``None``
    where they were not asked the same.
    """

    baseline: str
    changed: str
    workload: str
    concurrency: int
    metric: str
    higher_is_better: bool
    margin: float
    confidence: float
    verdict: Verdict
    because: Because
    why: str
    speed_ratio: float | None = None
    low: float | None = None
    high: float | None = None
    pairs: tuple[Pair, ...] = ()
    dropped: int = 0
    pairs_to_decide: int | None = None
    agreement: float | None = None


@frozen(kw_only=True)
class BenchmarkResult:
    """Trials, and everything that a stranger needs to repeat them (``velollm.benchmark/1``).

    ``complete`` is false when the run was cut short; what was measured until then is in ``trials``.
    ``comparisons`` answer ``question``; they follow from the trials.
    """

    run: str
    created_at: str
    complete: bool
    velollm_version: str
    runner_version: int
    python_version: str
    seed: int
    unit: Literal["launch", "block"]
    blocks: int
    arms: tuple[ArmRecord, ...]
    workloads: tuple[WorkloadRecord, ...]
    hardware: HardwareSpec
    hardware_fingerprint: str
    question: Question | None = None
    trials: tuple[Trial, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class ExperimentResult:
    """What :func:`~velollm_core.experiment.runner.run` gives back: every trial, in the order they
    ended.

    ``dropped`` names arms that ``after_block`` took out. ``interrupted`` is set when the user
    stopped it.
    """

    run: str
    trials: tuple[Trial, ...]
    dropped: tuple[str, ...] = ()
    interrupted: bool = False
