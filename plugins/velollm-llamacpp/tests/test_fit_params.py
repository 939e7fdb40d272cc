"""llama.cpp's own planner beside the llama-server, where there is one."""

from __future__ import annotations

import pytest
from attrs import evolve
from velollm_llamacpp.engines import examine_wheel
from velollm_llamacpp.fit_params import planned
from velollm_llamacpp.settings import completed

from velollm_core.config import Config
from velollm_core.errors import Unavailable
from velollm_core.models.memory import Part, Use, plan_memory

MIB = 1 << 20


def part(weights, cache, compute):
    return Part(weights_bytes=weights * MIB, kv_bytes=cache * MIB, compute_bytes=compute * MIB)


@pytest.fixture
def planner(program, demo):
    """Asks a planner whose script is ``body``, for a context of 1000 in two slots."""

    def ask(body):
        server = program("")
        path = server.with_name("llama-fit-params")
        path.write_bytes(program(body).read_bytes())
        path.chmod(0o755)
        engine = examine_wheel()
        complete = completed(engine, {"context": 1000, "slots": 2})
        return planned(server, engine, demo.path, complete)

    return ask


def test_its_rows_are_read_by_device(planner):
    told = planner("print('noise'); print('CUDA0 90 30 5'); print('Host 1 0 2')")
    assert told == {"CUDA0": part(90, 30, 5), "Host": part(1, 0, 2)}


def test_it_is_told_the_configuration(planner):
    told = planner("""
        import sys
        words = sys.argv
        told = [words[words.index(flag) + 1] for flag in ("--ctx-size", "--parallel")]
        print("Host", *told, 0)
    """)
    assert told == {"Host": part(1000, 2, 0)}


def test_where_there_is_none_or_it_says_nothing_there_is_no_figure(planner, program, demo):
    engine = examine_wheel()
    assert planned(program(""), engine, demo.path, completed(engine, {})) is None
    assert planner("print('usage: ...')") is None


def test_one_that_fails_says_why(planner):
    with pytest.raises(Unavailable, match="llama-fit-params failed: no such model"):
        planner("import sys; print('Host 1 2 3'); sys.exit('what?\\nno such model')")
    with pytest.raises(Unavailable, match="exit code 7"):
        planner("import sys; sys.exit(7)")


def test_one_that_cannot_be_run_is_named(program, demo):
    server = program("")
    path = server.with_name("llama-fit-params")
    path.write_text("no program", encoding="utf-8")
    engine = examine_wheel()
    with pytest.raises(Unavailable, match="llama-fit-params cannot be used"):
        planned(server, engine, demo.path, completed(engine, {}))


def test_the_wheel_and_a_running_server_have_no_planner(backend, embedded, demo):
    assert backend.own_plan(embedded, demo, Config()) is None
    attached = evolve(embedded, kind="server", location="http://127.0.0.1:1")
    assert backend.own_plan(attached, demo, Config()) is None


def test_a_real_one_agrees_with_what_is_computed(backend, native, demo):
    said = backend.own_plan(native, demo, Config({"context": 4096, "slots": 2}))
    if said is None:
        pytest.skip("this llama-server has no llama-fit-params beside it")
    plan = plan_memory(demo.spec, Use(context_tokens=4096, slots=2, unified_kv=False)).host
    assert sum(told.weights_bytes for told in said.values()) == pytest.approx(
        plan.weights_bytes, abs=2 * MIB
    )
    assert sum(told.kv_bytes for told in said.values()) == pytest.approx(plan.kv_bytes, abs=2 * MIB)
    assert sum(told.compute_bytes for told in said.values()) >= plan.compute_bytes
