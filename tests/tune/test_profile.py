"""Profiles: what they hold, where they are, and what an engine is spared."""

from __future__ import annotations

import json

import pytest
from attrs import define, evolve

from velollm_core.backends.advice import Requirements
from velollm_core.config import Choices, Config, Knob, Range, Role
from velollm_core.documents import dumps
from velollm_core.errors import DocumentError, UsageError
from velollm_core.experiment.spec import EngineRecord, ModelRecord, WorkloadRecord
from velollm_core.testing.fakes import FakeBackend
from velollm_core.tune.constraints import parse_constraint
from velollm_core.tune.profile import (
    fits,
    moved_since,
    name_of,
    place,
    place_to_write,
    profile_of,
    read,
    refuse_unmeasurable,
    settings_of,
    usual_name,
    write,
)
from velollm_core.tune.spec import (
    PROFILE_KIND,
    PROFILE_MAJOR,
    Conclusion,
    Objective,
    TaskRecord,
    Term,
    TuneResult,
)

ENGINE = EngineRecord(backend="fake", kind="binary", version="6721", build="a1b2c3d")
MODEL = ModelRecord(name="Qwen 2.5 (0.5B).gguf", fingerprint="f00d")
THROUGHPUT = Objective(
    name="throughput",
    terms=(Term(workload="short", concurrency=8, metric="output_tok_s"),),
)
LIMIT = parse_constraint("ttft_p95<500ms")


@pytest.fixture
def result(build):
    """A tune that found two threads to be faster than eight."""
    machine = build.result([build.trial([build.phase([build.sample()])])])
    return TuneResult(
        run="20261125-070000-3fa9",
        created_at="2026-11-25T07:00:00+00:00",
        complete=True,
        velollm_version="0.1.0",
        task=TaskRecord(
            objectives=(THROUGHPUT,),
            constraints=(),
            requirements=Requirements(context_tokens=4096),
            workloads=(
                WorkloadRecord(
                    name="short", digest="d1", requests=8, concurrency=8, warmup=1, max_tokens=64
                ),
            ),
            budget_s=600.0,
            pairs=12,
            margin=0.02,
            confidence=0.95,
            seed=0,
            mode="launch",
        ),
        engine=ENGINE,
        model=MODEL,
        hardware=machine.hardware,
        hardware_fingerprint="beef",
        current=Config({"threads": 8, "cache": True}),
        defaults=Config({"threads": 8, "cache": True}),
        conclusion=Conclusion.FASTER,
        why="the whole interval is above 1",
        changes=Config({"threads": 2}),
    )


@pytest.fixture
def profile(result):
    return profile_of(result, "mine")


@pytest.fixture
def engine():
    """``engine()`` is a backend, an installation and a model; with ``knobs`` it has others."""

    def make(knobs=None):
        backend = FakeBackend() if knobs is None else Other(own=knobs)
        (installation,) = backend.probe({}, {})
        (model,) = backend.models(installation)
        return backend, installation, model

    return make


@define
class Other(FakeBackend):
    """A fake with knobs of its own."""

    own: tuple[Knob, ...] = ()

    def knobs(self, installation, model):
        return self.own


def knob(name, domain, **changes):
    fields = {"role": Role.OTHER, "summary": "one of its own", "source": "a test", **changes}
    return Knob(name=name, domain=domain, **fields)


def test_a_profile_holds_what_was_proven_and_where_it_holds(result, profile):
    assert profile.config == Config({"threads": 2})
    assert profile.base == result.current
    assert (profile.engine, profile.model, profile.hardware_fingerprint) == (ENGINE, MODEL, "beef")
    assert (profile.objective, profile.workloads) == (THROUGHPUT, result.task.workloads)
    assert profile.requirements.context_tokens == 4096
    assert profile.run == result.run


def test_a_profile_keeps_the_limits_that_it_was_chosen_under(result, tmp_path):
    limited = evolve(result, task=evolve(result.task, constraints=(LIMIT,)))
    path = place(tmp_path, "mine")
    write(path, profile_of(limited, "mine"))
    assert read(tmp_path, "mine").constraints == (LIMIT,)
    document = json.loads(path.read_text())
    del document["constraints"]  # as it was written before
    path.write_text(json.dumps(document))
    assert read(tmp_path, "mine").constraints == ()


def test_a_profile_that_was_checked_again_keeps_all_that_it_set(result):
    again = evolve(
        result,
        task=evolve(result.task, proposed=Config({"threads": 2, "cache": True})),
        changes=Config({"threads": 2}),
    )
    assert profile_of(again, "mine").config == Config({"threads": 2, "cache": True})


@pytest.mark.parametrize("conclusion", [Conclusion.KEEP, Conclusion.OPEN])
def test_there_is_no_profile_of_what_was_not_proven(result, conclusion):
    with pytest.raises(UsageError, match=f"proven to be faster: {conclusion}"):
        profile_of(evolve(result, conclusion=conclusion, changes=Config()), "mine")


def test_what_is_written_is_read_again_by_name_and_by_path(profile, tmp_path):
    folder = tmp_path / "data" / "profiles"
    path = place(folder, "mine")
    write(path, profile)
    assert read(folder, "mine") == profile
    assert read(tmp_path, str(path)) == profile
    assert json.loads(path.read_text())["schema"] == "velollm.profile/1"


def test_what_a_run_made_is_found_among_whatever_else_lies_there(profile, tmp_path):
    assert name_of(tmp_path / "none", profile.run) is None
    (tmp_path / "a b.json").write_text("{}")
    (tmp_path / "broken.json").write_text("{")
    write(place(tmp_path, "mine"), profile)
    write(place(tmp_path, "other"), evolve(profile, run="another"))
    assert name_of(tmp_path, profile.run) == "mine"
    assert name_of(tmp_path, "nothing") is None


def test_a_profile_that_is_not_there_is_named_with_those_that_are(profile, tmp_path):
    write(place(tmp_path, "mine"), profile)
    with pytest.raises(UsageError, match=r"there is no profile 'yours'; there are: mine\."):
        read(tmp_path, "yours")


@pytest.mark.parametrize("name", ["", "..", "../mine", "a/b", "-x", "a b", "ü", "x" * 101, "C:x"])
def test_a_name_cannot_lead_out_of_the_folder(tmp_path, name):
    with pytest.raises(UsageError, match="a profile cannot be called"):
        place(tmp_path, name)


def test_a_file_that_no_profile_can_be_called_by_is_read_and_not_written(profile, tmp_path):
    odd = str(tmp_path / "my profile.json")
    write(place(tmp_path, odd), profile)
    assert read(tmp_path, odd) == profile
    with pytest.raises(UsageError, match="a profile cannot be called 'my profile'"):
        place_to_write(tmp_path, odd)
    fine = str(tmp_path / "my.profile.json")
    assert place_to_write(tmp_path, fine) == place(tmp_path, fine)


def test_where_no_profile_can_be_written_is_known_beforehand(tmp_path):
    assert place_to_write(tmp_path, str(tmp_path / "not" / "yet" / "p.json"))
    assert not (tmp_path / "not").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file is no folder, or not yours"):
        place_to_write(tmp_path, str(tmp_path / "file" / "p.json"))


def test_a_profile_has_a_usual_name_that_is_one(result, tmp_path):
    assert usual_name(result) == "Qwen-2.5-0.5B-throughput"
    for model, objective in [("../../x", "decode=2,ttft=1"), ("ü", "é"), ("m" * 300, "decode")]:
        odd = evolve(
            result,
            model=evolve(MODEL, name=model),
            task=evolve(result.task, objectives=(evolve(THROUGHPUT, name=objective),)),
        )
        assert place(tmp_path, usual_name(odd)).parent == tmp_path


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("argv", ["--tools", "all"], "constructor for Profile: argv"),
        ("extra_env", {"LD_PRELOAD": "/tmp/x.so"}, "constructor for Profile: extra_env"),
        ("config", {"threads": [2]}, "expected a boolean, number or text"),
        ("config", {"threads": 1e999}, "Infinity|finite"),
        ("name", 7, "expected str"),
    ],
)
def test_a_file_that_holds_something_else_is_refused_by_its_key(
    profile, tmp_path, key, value, told
):
    path = tmp_path / "x.json"
    document = json.loads(dumps(PROFILE_KIND, PROFILE_MAJOR, profile))
    path.write_text(json.dumps({**document, key: value}))
    with pytest.raises(DocumentError, match=told):
        read(tmp_path, str(path))


def test_what_the_engine_takes_is_set_with_its_origin(profile, engine):
    settings = settings_of(profile, *engine())
    assert settings.config == Config({"threads": 2})
    assert dict(settings.origins) == {"threads": "profile mine"}
    assert (settings.extra_args, dict(settings.extra_env)) == ((), {})


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"tools": "all"}, "there is no knob 'tools'"),
        ({"threads": 65}, "threads cannot be 65"),
        ({"threads": True}, "threads cannot be on"),
        ({"threads": "2; rm -rf /"}, "threads cannot be 2; rm -rf /"),
        ({"cache": 1}, "cache cannot be 1"),
    ],
)
def test_a_value_that_no_knob_takes_is_refused(profile, engine, config, told):
    with pytest.raises(UsageError, match=f"profile mine: .*{told}"):
        settings_of(evolve(profile, config=Config(config)), *engine())


def test_a_setting_that_holds_beyond_the_server_is_refused(profile, engine):
    knobs = (knob("threads", Range(1, 64)), knob("turbo", Choices((True, False)), scope="host"))
    wide = evolve(profile, config=Config({"threads": 2, "turbo": True}))
    with pytest.raises(UsageError, match="sets turbo, which is not the server's own"):
        settings_of(wide, *engine(knobs))


def test_a_profile_of_another_backend_is_refused(profile, engine):
    with pytest.raises(UsageError, match="is for backend other, not for fake"):
        settings_of(evolve(profile, backend="other"), *engine())


def objective(*terms):
    return {"objective": Objective(name="x", terms=terms)}


def term(**changes):
    return evolve(THROUGHPUT.terms[0], **changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (objective(), r"objective\.terms is empty"),
        (
            objective(term(), term(metric="beauty")),
            r"terms\[1\]\.metric is 'beauty', .*decode_tok_s",
        ),
        (objective(term(weight=0.0)), r"terms\[0\]\.weight is 0, where it takes a number above 0"),
        (objective(term(weight=-1.0)), r"terms\[0\]\.weight is -1"),
        (objective(term(weight=float("nan"))), r"terms\[0\]\.weight is nan"),
        (objective(term(weight=1e308)), r"terms\[0\]\.weight is 1e\+308"),
        (objective(term(workload="long")), r"terms\[0\] counts 'long' x8, .*its workloads"),
        (objective(term(concurrency=1)), r"terms\[0\] counts 'short' x1, .*its workloads"),
        ({"workloads": ()}, r"terms\[0\] counts 'short' x8"),
        ({"constraints": (evolve(LIMIT, figure="beauty"),)}, r"constraints\[0\] is not what"),
        ({"constraints": (LIMIT, evolve(LIMIT, at_most=False))}, r"constraints\[1\] is not what"),
        ({"constraints": (evolve(LIMIT, text="nice"),)}, r"constraints\[0\] .*'nice'"),
    ],
)
def test_what_cannot_be_measured_as_it_says_is_refused_by_its_key(profile, changes, told):
    with pytest.raises(UsageError, match=f"profile mine: .*{told}") as refused:
        refuse_unmeasurable(evolve(profile, **changes))
    assert "velollm tune" in refused.value.hint


@pytest.mark.parametrize(
    ("name", "count"),
    [("requests", 0), ("concurrency", 10**6), ("warmup", -1), ("max_tokens", 0)],
)
def test_a_workload_that_cannot_be_sent_is_refused_by_its_key(profile, name, count):
    (work,) = profile.workloads
    broken = evolve(profile, workloads=(evolve(work, **{name: count}),))
    with pytest.raises(UsageError, match=rf"workloads\[0\]\.{name} is {count}, where it takes"):
        refuse_unmeasurable(broken)
    with pytest.raises(UsageError, match=r"workloads\[1\] is 'short' x8 once more"):
        refuse_unmeasurable(evolve(profile, workloads=(work, work)))


def test_a_profile_that_a_tune_wrote_can_be_measured_again(profile, tmp_path):
    limits = (LIMIT, parse_constraint("memory<6GiB"))
    write(place(tmp_path, "mine"), evolve(profile, constraints=limits))
    again = read(tmp_path, "mine")
    refuse_unmeasurable(again)
    assert (again.constraints, again.workloads) == (limits, profile.workloads)


def test_where_everything_is_as_it_was_measured_nothing_is_said(profile, result):
    renamed = evolve(MODEL, name="renamed.gguf")
    for measured in (profile, result):
        assert fits(measured, "beef", ENGINE, MODEL) == ()
        assert fits(measured, "beef", ENGINE, renamed) == ()


def test_another_build_model_or_machine_is_named(profile):
    newer = evolve(ENGINE, version="7000", build=None)
    assert fits(profile, "beef", newer, MODEL) == (
        "it was measured with fake 6721 (binary, build a1b2c3d), and this is fake 7000 (binary)",
    )
    unknown = evolve(MODEL, name="b.gguf", fingerprint=None)
    assert fits(profile, "cafe", ENGINE, unknown) == (
        "it was measured with model Qwen 2.5 (0.5B).gguf, and this is b.gguf",
        "it was measured on another machine",
    )


def test_own_settings_that_have_changed_since_are_named_unless_the_profile_sets_them(profile):
    assert moved_since(profile, Config({"threads": 3, "cache": True, "new": 1})) == ()
    assert moved_since(profile, Config({"threads": 8, "cache": False})) == (
        "cache is off, and was on",
    )
