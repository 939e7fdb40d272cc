"""Results that reports are tried on."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from attrs import evolve

from velollm_core.backends.advice import Requirements
from velollm_core.config import Config, LeftOut
from velollm_core.errors import FailureKind
from velollm_core.experiment.comparison import comparisons
from velollm_core.experiment.spec import EngineRecord, Failure, Question
from velollm_core.tune.spec import (
    Answer,
    Conclusion,
    Constraint,
    Fate,
    Objective,
    Point,
    StageRecord,
    TaskRecord,
    Term,
    Tried,
    TuneResult,
)

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Reader(HTMLParser):
    """Reads a page into a tree, as strictly as our own pages deserve."""

    def __init__(self, text):
        super().__init__()
        self.builder = ET.TreeBuilder()
        self.open = []
        self.feed(text)
        self.close()
        assert self.open == []
        self.root = self.builder.close()

    def handle_starttag(self, name, attributes):
        self.builder.start(name, dict(attributes))
        if name in VOID:
            self.builder.end(name)
        else:
            self.open.append(name)

    def handle_endtag(self, name):
        assert name == self.open.pop()
        self.builder.end(name)

    def handle_data(self, data):
        if self.open:
            self.builder.data(data)


def read(page):
    return Reader(page).root


def classes(element):
    return (element.get("class") or "").split()


def words(root):
    """All its text, or of a page what stands in its body and its title."""
    parts = (root.find("body"), root.find("head/title")) if root.tag == "html" else (root,)
    return " ".join("".join(part.itertext()) for part in parts)


def section(root, title):
    (found,) = [one for one in root.iter("section") if one.find("h2").text == title]
    return found


def titles(root):
    return [one.find("h2").text for one in root.iter("section")]


def marks(root):
    """The tooltips of what is drawn."""
    return [group.find("title").text for group in root.iter("g") if group.find("title") is not None]


def cells(root, caption):
    """The table of this caption, row by row, with its headings."""
    (table,) = [
        one for one in root.iter("table") if "".join(one.find("caption").itertext()) == caption
    ]
    return [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]


@pytest.fixture(scope="session")
def pages():
    """Reads pages: ``pages.read(html)`` is a tree, the others look into one."""
    return SimpleNamespace(
        read=read,
        classes=classes,
        words=words,
        section=section,
        titles=titles,
        marks=marks,
        cells=cells,
    )


@pytest.fixture
def three_concurrencies(build):
    """Two workloads at 1, 4 and 8 clients, three launches, 60 tokens an answer."""

    def launch(block, gap_ms):
        phases = [
            build.phase(
                [
                    build.sample(
                        index,
                        gap_ms=gap_ms * clients,
                        tokens=60,
                        prompt_sha256=f"{name} {clients} {index}",
                    )
                    for index in range(40)
                ],
                name,
                clients,
                wall_ms=20_000.0 / clients**0.5,
            )
            for name in ("short", "summarize")
            for clients in (1, 4, 8)
        ]
        return build.trial(phases, block)

    return build.result([launch(0, 7.9), launch(1, 8.0), launch(2, 8.1)])


@pytest.fixture
def one_launch(build):
    return build.result([build.trial([build.phase([build.sample(i) for i in range(4)])])])


@pytest.fixture
def with_failures(build):
    """Of three launches one ran out of memory; in another a request was refused."""
    samples = [build.sample(index) for index in range(4)]
    refused = evolve(samples[3], error="the server said no", failure=FailureKind.REFUSED)
    lost = Failure(kind=FailureKind.OUT_OF_MEMORY, message="cannot allocate 9 GiB")
    return build.result(
        [
            build.trial([build.phase(samples)], 0),
            build.trial([build.phase([*samples[:3], refused])], 1),
            build.trial([], 2, failure=lost),
        ]
    )


@pytest.fixture
def silent_server(build):
    """A running server that tells neither tokens nor times, and no model that can be read."""
    samples = [
        build.sample(
            index,
            event_tokens=(0,) * 21,
            prompt_tokens=None,
            cached_tokens=None,
            output_tokens=None,
            timings=None,
        )
        for index in range(4)
    ]
    trial = build.trial([build.phase(samples)], load_ms=None, peak_rss_bytes=None)
    arm = build.arm(
        mode="attach",
        engine=EngineRecord(backend="openai", kind="server"),
        config=Config(),
        origins={},
    )
    arm = evolve(arm, model=evolve(arm.model, name="some-model", spec=None))
    return build.result([trial], unit="block", arms=(arm,))


@pytest.fixture
def two_arms(build):
    """The user's own settings against the engine's defaults."""
    arms = (
        build.arm("defaults", config=Config({"slots": 4}), origins={"slots": "engine default"}),
        build.arm(
            "current",
            left_out=(LeftOut("--tools", "environment LLAMA_ARG_TOOLS", "it runs programs"),),
        ),
    )
    phases = [build.phase([build.sample(index) for index in range(4)])]
    trials = [build.trial(phases, block, arm.name) for block in (0, 1) for arm in arms]
    return build.result(trials, arms=arms)


@pytest.fixture
def versus(build):
    """``versus(...)`` measures two arms by turns on a machine that slows down by 6 % meanwhile.

    ``changed`` takes ``factor`` times as long a token; in the blocks ``lost`` it fails.
    """

    def measure(*, pairs=12, factor=0.9, cells=(("short", 1),), lost=(), names=("now", "new")):
        draw = random.Random(8)
        trials = []
        for block in range(pairs):
            for name, slower in zip(names, (1.0, factor), strict=True):
                if name == names[1] and block in lost:
                    failure = Failure(kind=FailureKind.CRASH, message="it fell over")
                    trials.append(build.trial([], block, name, failure=failure))
                    continue
                phases = [
                    build.phase(
                        [
                            build.sample(
                                index,
                                first_ms=(40 + 60 * draw.random() ** 3) * clients,
                                gap_ms=8 * slower * launch * clients**0.6,
                                prompt_sha256=f"{workload} {clients} {block} {index}",
                                output_sha256=f"{workload} {clients} {block} {index}",
                            )
                            for index in range(6)
                        ],
                        workload,
                        clients,
                    )
                    for workload, clients in cells
                    for launch in [draw.gauss(1, 0.02) * (1 + 0.06 * block / pairs)]
                ]
                trials.append(build.trial(phases, block, name))
        question = Question(baseline=names[0], metric="client_decode_tok_s")
        result = evolve(build.result(trials), question=question)
        return evolve(result, comparisons=comparisons(result))

    return measure


@pytest.fixture
def tuned(build, versus):
    """``tuned(...)`` is a tune of threads and batches; what is given replaces its parts.

    It ends with "faster" against both baselines, unless ``factor``, by which a token takes longer
    than before, says otherwise.
    """

    def make(*, factor=0.9, defaults_factor=0.8, **changes):
        answers = []
        for baseline, slower in (("current", factor), ("defaults", defaults_factor)):
            (row,) = versus(names=(baseline, "tuned"), factor=slower).comparisons
            answers.append(Answer(baseline=baseline, overall=row, terms=(row,)))
        arm = build.arm()
        best = Config({"threads": 1, "ubatch": 256})
        decode = Term(workload="short", concurrency=1, metric="client_decode_tok_s")
        return TuneResult(
            **{
                "run": "20261125-070000-0a1b",
                "created_at": "2026-11-25T07:00:00+00:00",
                "complete": True,
                "velollm_version": "0.1.0",
                "task": TaskRecord(
                    objectives=(Objective(name="decode", terms=(decode,)),),
                    constraints=(),
                    requirements=Requirements(),
                    workloads=build.result([build.trial([])]).workloads,
                    budget_s=600,
                    pairs=12,
                    margin=0.02,
                    confidence=0.95,
                    seed=0,
                    mode="launch",
                ),
                "engine": arm.engine,
                "model": arm.model,
                "hardware": build.result([]).hardware,
                "hardware_fingerprint": "beef",
                "current": Config({"threads": 2, "ubatch": 512, "batch": 2048}),
                "defaults": Config({"threads": 4, "ubatch": 512, "batch": 2048}),
                "conclusion": Conclusion.FASTER,
                "why": "threads=1,ubatch=256 is faster than what you have.",
                "changes": best,
                "stages": _stages(best),
                "answers": tuple(answers),
                "noise": 0.021,
                "spent_s": 552.0,
                "trials": 61,
                "failed": 1,
                "untouched": (
                    LeftOut("context", "engine default", "it is a requirement"),
                    LeftOut("kv_type_k", "engine default", "it changes answers"),
                    LeftOut("kv_type_v", "engine default", "it changes answers"),
                ),
                "notes": ("what you have does not keep memory<1GiB",),
                **changes,
            }
        )

    return make


def _stages(best):
    threads = Config({"threads": 1})
    return (
        StageRecord(
            name="baseline",
            summary="what there is",
            incumbent=Config(),
            leader=Config(),
            tried=(
                Tried(
                    changes=Config({"threads": 4}),
                    fate=Fate.UNDECIDED,
                    blocks=3,
                    why="measured for comparison",
                    speed_ratio=0.92,
                    low=0.88,
                    high=0.96,
                ),
            ),
            blocks=3,
            spent_s=60,
        ),
        StageRecord(
            name="screen",
            summary="one setting changed at a time",
            incumbent=Config(),
            leader=threads,
            tried=(
                Tried(
                    changes=threads,
                    fate=Fate.LEADS,
                    blocks=4,
                    why="the fastest, or simpler and as good as that",
                    speed_ratio=1.08,
                    low=1.04,
                    high=1.12,
                ),
                Tried(
                    changes=Config({"threads": 3}),
                    fate=Fate.BEATEN,
                    blocks=2,
                    why="slower than threads=1,ubatch=256",
                    speed_ratio=0.9,
                    low=0.85,
                    high=0.96,
                ),
            ),
            blocks=4,
            spent_s=130,
        ),
        StageRecord(
            name="combine",
            summary="several changed at once, where most is to be expected",
            incumbent=Config(),
            leader=best,
            tried=(
                Tried(
                    changes=best,
                    fate=Fate.LEADS,
                    blocks=6,
                    why="the fastest, or simpler and as good as that",
                    speed_ratio=1.02,
                    low=0.995,
                    high=1.045,
                ),
                Tried(
                    changes=threads | {"ubatch": 2048},
                    fate=Fate.FAILED,
                    blocks=0,
                    why="cannot allocate 9 GiB",
                    failure=FailureKind.OUT_OF_MEMORY,
                ),
                Tried(
                    changes=Config({"ubatch": 1024}),
                    fate=Fate.UNDECIDED,
                    blocks=1,
                    why="not told apart from threads=1,ubatch=256",
                    speed_ratio=1.001,
                ),
                Tried(
                    changes=threads | {"ubatch": 128},
                    fate=Fate.UNTRIED,
                    blocks=0,
                    why="there was no time for it",
                ),
            ),
            blocks=6,
            spent_s=190,
        ),
    )


@pytest.fixture
def kept(tuned):
    """Nothing is proven faster: the interval of the confirmation holds 1."""
    return tuned(
        factor=0.995,
        defaults_factor=0.8,
        conclusion=Conclusion.KEEP,
        changes=Config(),
        why="threads=1,ubatch=256 led the search, but is not proven faster than what you have.",
    )


@pytest.fixture
def two_objectives(tuned):
    """A mix decides, and with a second objective there is a front."""
    result = tuned()
    terms = (
        Term(workload="short", concurrency=1, metric="client_decode_tok_s", weight=2),
        Term(workload="short", concurrency=1, metric="first_token_ms", weight=1),
    )
    mix = Objective(name="decode=2,ttft=1", terms=terms)
    throughput = Objective(
        name="throughput",
        terms=(Term(workload="short", concurrency=4, metric="output_tok_s"),),
    )
    answers = tuple(
        evolve(
            answer,
            overall=evolve(
                answer.overall,
                metric=mix.name,
                pairs=tuple(
                    evolve(pair, baseline=pair.baseline / 50, changed=pair.changed / 50)
                    for pair in answer.overall.pairs
                ),
            ),
            terms=(answer.overall, evolve(answer.overall, metric="first_token_ms")),
        )
        for answer in result.answers
    )
    return evolve(
        result,
        task=evolve(
            result.task,
            objectives=(mix, throughput),
            constraints=(
                Constraint(
                    text="ttft_p95<500ms", figure="ttft", percentile=95, at_most=True, limit=500
                ),
            ),
            requirements=Requirements(context_tokens=4096, parallel=4),
        ),
        answers=answers,
        front=(
            Point(changes=result.changes, speed_ratios=(1.11, 0.97), blocks=6),
            Point(changes=Config(), speed_ratios=(1.0, 1.0), blocks=9),
            Point(changes=Config({"ubatch": 1024}), speed_ratios=(0.96, 1.08), blocks=3),
        ),
    )


@pytest.fixture
def stopped(tuned):
    """Stopped after the first stage."""
    result = tuned()
    return evolve(
        result,
        complete=False,
        conclusion=Conclusion.OPEN,
        why="It was stopped before its end.",
        changes=Config(),
        answers=(),
        stages=result.stages[:1],
        noise=None,
        spent_s=60.0,
        untouched=(),
        notes=(),
    )
