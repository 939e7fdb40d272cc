"""``velollm models fit``: machines that one does not own, and what fits on them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st

from velollm_core import hookimpl
from velollm_core.backends.contract import Backend, Installation
from velollm_core.cli import fit as fit_command
from velollm_core.cli.state import State
from velollm_core.cli.what_if import imagined
from velollm_core.config import Knob, Range, Role
from velollm_core.errors import Unavailable, UsageError, VeloError
from velollm_core.hardware.spec import CpuInfo, GpuInfo, HardwareSpec, MemoryInfo, OsInfo
from velollm_core.models.memory import Part
from velollm_core.plugins import Plugins
from velollm_core.testing.gguf_files import mixture_of_experts, transformer

GIB = 1 << 30
HERE = HardwareSpec(
    cpu=CpuInfo(model="CPU", architecture="x86_64", logical=2, physical=2),
    memory=MemoryInfo(
        total_bytes=8 * GIB,
        available_bytes=6 * GIB,
        limit_bytes=4 * GIB,
        bandwidth_bytes_per_s=2e10,
        bandwidth_method="measured",
    ),
    os=OsInfo(system="Linux", release="6"),
    gpus=(GpuInfo(uuid="0", vendor="nvidia", name="here", memory_total_bytes=GIB),),
)


def test_what_is_named_stands_in_for_what_is_there():
    found = imagined(HERE, " gpu=24GiB@936GB/s, gpu=12.5GiB,ram=64GiB,bandwidth=50GB/s")
    assert [gpu.memory_free_bytes for gpu in found.gpus] == [24 * GIB, int(12.5 * GIB)]
    assert [gpu.memory_bandwidth_bytes_per_s for gpu in found.gpus] == [936e9, None]
    assert found.memory.usable_bytes == 64 * GIB
    assert found.memory.bandwidth_bytes_per_s == 50e9
    assert found.cpu == HERE.cpu


def test_what_is_not_named_stays():
    found = imagined(HERE, "ram=16GB")
    assert found.memory.usable_bytes == 16_000_000_000
    assert found.memory.bandwidth_bytes_per_s == 2e10
    assert found.gpus == HERE.gpus
    assert imagined(HERE, "gpu=0GiB").gpus == ()
    assert imagined(HERE, "bandwidth=1GB/s").memory.usable_bytes == HERE.memory.usable_bytes


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gpu=24GiB,disk=1TB", "'disk=1TB' cannot be used: there is no key 'disk'"),
        ("gpu=24", "'gpu=24' cannot be used: '24' is no size"),
        ("gpu=24GiB@936", "'gpu=24GiB@936' cannot be used: '936' is no rate"),
        ("gpu=24GiB@", "'' is no rate"),
        ("ram=-1GiB", "'-1GiB' is no size"),
        ("ram=lots", "'lots' is no size"),
        ("bandwidth=50GB", "'50GB' is no rate"),
        ("bandwidth=0GB/s", "'0GB/s' is no rate"),
        ("gpu", "it is not of the form KEY=VALUE"),
        ("gpu=", "it is not of the form KEY=VALUE"),
        ("", "it is not of the form KEY=VALUE"),
        ("ram=8GiB,,gpu=1GiB", "it is not of the form KEY=VALUE"),
    ],
)
def test_a_part_that_is_wrong_is_named_with_an_example(text, told):
    with pytest.raises(UsageError) as caught:
        imagined(HERE, text)
    assert told in caught.value.message
    assert caught.value.message.startswith("--what-if: ")
    assert "gpu=24GiB" in caught.value.hint


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_in_one_sentence(text):
    told = ""
    try:
        imagined(HERE, text)
    except UsageError as error:
        told = error.message
    assert not told or told.startswith("--what-if: ")


def test_the_table_shows_what_fits_and_what_is_worth_having(velollm):
    parts = "gpu=1200MiB@500GB/s,ram=4GiB"
    done = velollm("models", "fit", "demo", "--what-if", parts, env={"COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    for words in (
        "30 layers",
        "4.00 GiB may be taken",
        "GPU 0",
        "What fits",
        "of 31",
        "Placements worth having, with a context of 8,192",
        "not measured",
    ):
        assert words in done.stdout
    longest = max(map(len, map(str.rstrip, done.stdout.splitlines())))
    assert longest <= 80, done.stdout


def test_the_document_holds_uses_candidates_and_the_front(velollm):
    words = ["--what-if", "gpu=24GiB@936GB/s,ram=64GiB", "--context", "10000", "--parallel", "2"]
    done = velollm("models", "fit", "demo", "--json", *words)
    document = json.loads(done.stdout)
    assert document["schema"] == "velollm.fit/1"
    assert {row["use"]["type_k"] for row in document["rows"]} == {"f16", "q8_0"}
    assert all(row["use"]["context_tokens"] == 20000 for row in document["rows"])
    assert all(row["placement"]["gpu_layers"] == 31 for row in document["rows"])
    best = document["candidates"][document["front"][0]]
    assert best["placement"]["gpu_layers"] == 31
    assert best["largest_context_tokens"] == 2 * 8192
    trained, prompts = document["notes"]
    assert trained == "the model was trained for a context of 8,192 tokens"
    assert prompts.startswith("no speed of reading prompts is predicted for imagined GPU 0: ")
    assert best["prefill"] is None
    assert best["decode"]["tokens_per_s"] > 0
    assert best["decode"]["binds"] in {"bandwidth", "arithmetic", "link", "overhead"}


def test_a_model_that_fits_nowhere_is_shown_as_such(velollm):
    done = velollm("models", "fit", "demo", "--what-if", "ram=64MiB")
    assert done.returncode == 0, done.stderr
    assert "nowhere" in done.stdout
    assert "worth having" not in done.stdout


def test_a_mistake_is_told_in_one_sentence(velollm):
    done = velollm("models", "fit", "demo", "--what-if", "gpu=24")
    assert done.returncode == 2
    assert done.stderr.startswith("velollm: --what-if: 'gpu=24' cannot be used")
    assert done.stdout == ""


@define
class Planner(Backend):
    """An engine whose planner says that all of it is one mebibyte, and keeps what it was asked."""

    name: str = "planner"
    found: bool = True
    fault: str = ""
    asked: list = field(factory=list)

    def probe(self, options, environ):
        here = Installation(backend=self.name, kind="binary", location="/opt/planner")
        return (here,) if self.found else ()

    def models(self, installation):
        return ()

    def knobs(self, installation, model):
        roles = {"context": Role.CONTEXT, "layers": Role.PLACEMENT}
        return tuple(
            Knob(name=name, role=role, domain=Range(0, 1 << 20), summary="", source="the planner")
            for name, role in roles.items()
        )

    def own_plan(self, installation, model, config):
        if self.fault:
            raise Unavailable(self.fault)
        self.asked.append(dict(config))
        return {"Host": Part(weights_bytes=1 << 20)}


@pytest.fixture
def fit_note(monkeypatch, tmp_path, capsys):
    """What the last note says of ``engine`` for the model that ``write`` writes, on ``machine``."""

    def run(engine, write=transformer, machine=HERE, name="planner"):
        @hookimpl
        def velollm_register_backends(register):
            register(engine)

        state = State()
        state.environ = {}
        state.backend, state.json = name, True
        state.plugins = Plugins()
        plugin = SimpleNamespace(velollm_register_backends=velollm_register_backends)
        state.plugins.add(lambda: plugin, "planner")
        monkeypatch.setattr(fit_command, "_machine", lambda *_: machine)
        path = write(tmp_path / "model.gguf")
        words = [str(path), "--context", "256", "--parallel", "1"]
        with fit_command.fit.make_context("fit", words, obj=state) as context:
            fit_command.fit.invoke(context)
        document = json.loads(capsys.readouterr().out)
        shown = [document["candidates"][position]["placement"] for position in document["front"]]
        return document["notes"][-1], shown

    return run


FAST = evolve(HERE.cpu, clock_hz=3e9, instruction_sets=("AVX2",))
SLOW_GPU = evolve(
    HERE.gpus[0], memory_total_bytes=8 * GIB, memory_bandwidth_bytes_per_s=1e8, name="slow"
)


def test_the_engine_s_own_planner_is_asked_about_the_placement_shown_first(fit_note):
    engine = Planner()
    note, shown = fit_note(engine, machine=evolve(HERE, cpu=FAST, gpus=(SLOW_GPU,)))
    assert shown[0]["gpu_layers"] == 0
    assert engine.asked == [{"context": 256, "layers": 0}]
    assert note.startswith("of 'main memory' planner's own planner says: weights 1 MiB")
    assert "% in all" in note
    engine = Planner()
    note, shown = fit_note(engine, machine=evolve(HERE, gpus=(SLOW_GPU,)))
    assert engine.asked == [{"context": 256, "layers": shown[0]["gpu_layers"]}]
    assert note.startswith("of 'GPU' planner's")


def test_a_planner_that_cannot_be_told_where_experts_lie_is_not_asked_about_something_else(
    fit_note,
):
    engine = Planner()
    card = evolve(SLOW_GPU, memory_total_bytes=GIB + (20 << 20))
    note, shown = fit_note(engine, mixture_of_experts, evolve(HERE, gpus=(card,)))
    assert all(entry["cpu_expert_layers"] for entry in shown)
    assert engine.asked == []
    assert note == "planner was not asked: it cannot be told where experts lie"


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        (Planner(found=False), "planner could not be asked: backend planner found no engine."),
        (Planner(fault="it crashed."), "planner could not be asked: it crashed."),
    ],
)
def test_what_fits_is_shown_even_where_the_named_engine_fails(engine, said, fit_note):
    note, shown = fit_note(engine)
    assert note == said
    assert shown


def test_a_backend_that_does_not_exist_is_a_mistake(fit_note):
    with pytest.raises(VeloError, match="'typo'"):
        fit_note(Planner(), name="typo")
