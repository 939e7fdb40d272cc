"""``velollm optimize`` on an engine that is planted: what it says, writes and measures."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from attrs import evolve

from velollm_core.backends.changes import Change, apply, undo
from velollm_core.cli.optimize import command
from velollm_core.config import Config, Kept, LeftOut, Suggestion
from velollm_core.documents import loads
from velollm_core.errors import LaunchError, UsageError
from velollm_core.models.spec import LayerShape, ModelSpec
from velollm_core.optimize.outcome import Outcome
from velollm_core.optimize.spec import KIND, MAJOR
from velollm_core.testing.fakes import Script

FOUR = Suggestion(
    assignments=Config({"threads": 4}),
    reason="There are four cores.",
    effect="Every thread has a core.",
    source="the fake's manual",
)
VERIFY = (
    *("--verify", "--force", "--launches", "6", "--workload", "short"),
    *("--requests", "1", "--max-tokens", "4", "--warmup", "0"),
)


@pytest.fixture
def optimize(planted_command):
    """Runs the command in this process: ``optimize(*words, **planted)``."""

    def run(*words, **planted):
        offered = (FOUR, Kept(knobs=("cache",), reason="It is cheap."))
        done = planted_command(command, *words, **{"offered": offered, **planted})
        run.backend = planted_command.backend
        return done

    return run


def words_of(text: str) -> str:
    return " ".join(text.split())


def test_each_value_is_shown_with_its_reason_and_nothing_is_changed(optimize, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    done = optimize()
    assert done.code == 0
    said = words_of(done.out)
    assert "threads: 8 (engine default) -> 4" in said
    assert "why There are four cores." in said
    assert "expect Every thread has a core. (medium confidence)" in said
    assert "source the fake's manual" in said
    assert "Left alone cache It is cheap." in said
    assert "Nothing is changed." in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_in_force_already_is_not_proposed_again(optimize, tmp_path):
    (tmp_path / "fake.conf").write_text("threads = 4")
    done = optimize("-o", str(tmp_path / "velollm.sh"))
    assert done.code == 0
    assert "Keep what you have" in done.out
    assert "It is 4 already." in words_of(done.out)
    (line,) = (tmp_path / "velollm.sh").read_text().splitlines()
    assert line.startswith("# ")


def test_a_script_that_is_in_force_is_not_emptied(optimize, tmp_path):
    script = tmp_path / "velollm.sh"
    assert optimize("-o", str(script)).code == 0
    before = script.read_text()
    done = optimize("-o", str(script), environ={"FAKE_THREADS": "4"})
    assert "stays as it is" in done.err
    assert script.read_text() == before


def test_without_any_advice_what_there_is_is_kept(optimize):
    done = optimize("--apply", "--verify", offered=())
    assert done.code == 0
    assert "Keep what you have" in done.out
    assert "nothing to measure and nothing to write" in done.err


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_the_script_holds_exports_that_a_shell_takes(optimize, tmp_path):
    script = tmp_path / "velollm.sh"
    assert optimize("-o", str(script)).code == 0
    assert all(line.startswith(("export ", "#")) for line in script.read_text().splitlines())
    subprocess.run(["bash", "-n", str(script)], check=True)
    shell = ["bash", "-c", '. "$1" && printf %s "$FAKE_THREADS"', "bash", str(script)]
    assert subprocess.run(shell, check=True, capture_output=True, text=True).stdout == "4"


def test_a_form_without_a_file_is_printed_instead_of_the_report(optimize):
    assert optimize("--form", "sh").out == "export FAKE_THREADS=4\n"


def test_a_script_keeps_what_the_shell_has_from_the_one_that_it_replaces(optimize, tmp_path):
    script = tmp_path / "velollm.sh"
    before = {"FAKE_THREADS": "8", "FAKE_CACHE": "False"}
    assert optimize("-o", str(script), environ=before).code == 0
    assert script.read_text() == "export FAKE_CACHE=False\nexport FAKE_THREADS=4\n"
    assert optimize("--form", "sh").out == "export FAKE_THREADS=4\n"


def test_what_a_form_cannot_say_is_not_measured_for_it(optimize, tmp_path):
    words = (*VERIFY, "-o", str(tmp_path / "x.sh"))
    done = optimize(*words, unsayable=("threads",))
    assert done.code == 2
    assert "the form sh cannot say threads" in done.err
    assert optimize.backend.measured == []
    assert optimize(*words, unsayable=("cache",)).code == 0


def test_a_document_holds_the_whole_plan(optimize):
    done = optimize("--json")
    told = loads(done.out, KIND, MAJOR, Outcome, "standard output")
    (proposal,) = told.plan.proposals
    (move,) = proposal.moves
    assert (move.knob, move.current, move.proposed) == ("threads", 8, 4)
    assert told.plan.kept == (Kept(knobs=("cache",), reason="It is cheap."),)
    assert (told.verification, told.files) == (None, ())
    assert json.loads(done.out)["schema"] == "velollm.optimize/1"


def test_goal_and_requirements_reach_the_rules_and_the_report(optimize):
    seen = []
    done = optimize(
        *("--goal", "memory", "--context", "4096", "--parallel", "3"),
        rules=lambda context: seen.append(context) or (),
    )
    (context,) = seen
    assert context.goal == "memory"
    assert (context.requirements.context_tokens, context.requirements.parallel) == (4096, 3)
    assert "memory; at least 4096 tokens a request and 3 requests at once" in words_of(done.out)


def test_the_rule_of_the_documentation_works(optimize):
    page = Path(__file__).parents[2] / "docs" / "how-to" / "optimize-llamacpp.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    module = {}
    exec(code, module)
    done = optimize(rules=module["velollm_suggest"], offered=())
    assert "music" in done.out or "Few processors" in done.out


def test_a_broken_rule_costs_its_advice_and_one_line(optimize):
    def broken(context):
        raise RuntimeError("the rule is tired")

    done = optimize(rules=broken)
    assert done.code == 0
    assert "threads: 8 (engine default) -> 4" in done.out
    assert "the rule is tired" in done.err


def test_lossy_and_experimental_advice_says_so(optimize):
    risky = Suggestion(
        assignments=Config({"threads": 2}), reason="r", effect="e", source="s", experimental=True
    )
    assert "Not proposed threads=2 It is experimental" in words_of(optimize(offered=(risky,)).out)
    said = words_of(optimize("--experimental", offered=(risky,)).out)
    assert "threads: 8 (engine default) -> 2" in said
    assert "beware experimental" in said


def test_what_moves_along_without_changing_is_no_change(optimize):
    both = evolve(FOUR, assignments=Config({"threads": 4, "cache": True}))
    assert "threads: 8 (engine default) -> 4 cache stays on" in words_of(
        optimize(offered=(both,)).out
    )


def test_what_has_no_effect_is_named(optimize):
    left = LeftOut("FAKE_TREADS", "environment FAKE_TREADS", "nothing reads it")
    said = words_of(optimize(left_out=(left,)).out)
    assert "Without effect here FAKE_TREADS nothing reads it" in said


HUGE = ModelSpec(
    architecture="llama",
    parameter_count=10**15,
    layers=2,
    embedding_length=64,
    context_length=4096,
    type_bytes={"F16": 2 * 10**15},
    **dict.fromkeys(("heads", "kv_heads"), (1, 1)),
    **dict.fromkeys(("head_dims_k", "head_dims_v"), (64, 64)),
    layer_bytes=(10**15, 10**15),
    expert_bytes=(0, 0),
    shapes=(LayerShape(),) * 2,
)


def test_a_model_that_cannot_fit_gets_no_advice_and_the_answer_is_no(optimize, tmp_path):
    words = ("--apply", *VERIFY, "-o", str(tmp_path / "x.sh"))
    done = optimize(*words, spec=HUGE)
    assert done.code == 1
    assert "GiB" in done.out
    assert "Keep what you have" not in done.out
    assert not (tmp_path / "x.sh").exists()
    assert not (tmp_path / "fake.conf").exists()


def test_a_model_that_cannot_fit_is_said_where_the_settings_are_to_be_printed(optimize):
    done = optimize("--form", "sh", spec=HUGE)
    assert (done.code, done.out) == (1, "")
    assert "GiB" in done.err


def test_what_a_plugin_says_cannot_steer_a_terminal_or_a_page(optimize):
    evil = Suggestion(
        assignments=Config({"threads": 4}),
        reason="\x1b]0;owned\x07 [link](http://x) <b>",
        effect="e",
        source="s",
    )
    assert "\x1b" not in optimize(offered=(evil,)).out
    page = optimize("--format", "markdown", offered=(evil,)).out
    assert "\x1b" not in page
    assert "<b>" not in page.replace("\\<b>", "")
    assert "](http" not in page


def test_the_report_fits_a_narrow_terminal(optimize, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    many = Kept(knobs=("cache", "threads"), reason="They are as they should be, all of them.")
    done = optimize(offered=(many,))
    assert max(map(len, done.out.splitlines())) <= 40


def test_what_is_applied_is_taken_back_byte_for_byte(optimize, tmp_path):
    file = tmp_path / "fake.conf"
    file.write_bytes(b"\xff\r\nthreads = 8")
    done = optimize("--apply", environ={"FAKE_THREADS": "8"})
    assert done.code == 0, done.err
    assert file.read_text() == "# mine\nthreads = 4"
    assert f"written: {file}" in done.err
    assert "velollm undo" in done.err
    undo(tmp_path / "DATA" / "undo")
    assert file.read_bytes() == b"\xff\r\nthreads = 8"


def test_what_counts_for_more_than_the_file_is_named(optimize):
    done = optimize("--apply", environ={"FAKE_THREADS": "8"})
    assert "threads is 4 in what was written, but stays 8" in words_of(done.err)
    assert "environment FAKE_THREADS" in done.err


def test_a_dry_run_shows_the_lines_that_would_change_and_writes_nothing(optimize, tmp_path):
    file = tmp_path / "fake.conf"
    file.write_text("# mine\nthreads = 8")
    done = optimize("--apply", "--dry-run")
    assert done.code == 0
    assert "would be written" in done.out
    assert "-threads = 8\n+threads = 4" in done.out
    assert "# mine" not in done.out
    assert file.read_text() == "# mine\nthreads = 8"
    assert not (tmp_path / "DATA").exists()


def test_what_needs_root_is_shown_and_not_done(optimize, tmp_path):
    done = optimize("--apply", needs_root=True, then=("sudo systemctl restart fake",))
    assert done.code == 1
    assert "needs root, so it is left to you" in words_of(done.out)
    assert "+threads = 4" in done.out
    assert "sudo systemctl restart fake" in done.out
    (entry,) = json.loads(optimize("--apply", "--json", needs_root=True).out)["files"]
    assert (entry["written"], entry["content"]) == (False, "# mine\nthreads = 4")
    assert not (tmp_path / "fake.conf").exists()


def test_a_change_that_was_cut_short_is_taken_back_first_and_what_became_of_it_is_said(
    optimize, tmp_path
):
    other, folder = tmp_path / "other.conf", tmp_path / "DATA" / "undo"
    other.write_bytes(b"old")
    apply([Change(path=other, content=b"new", summary="another")], folder)
    (record,) = folder.glob("*.json")
    record.write_bytes(record.read_bytes().replace(b'"applied"', b'"applying"'))
    other.write_bytes(b"the user's own")
    done = optimize("--apply")
    assert done.code == 0
    assert f"{other} (another): edited since, left alone" in done.err
    (kept,) = folder.glob("*.before")
    assert str(kept) in done.err


def test_a_change_that_takes_effect_later_says_after_what(optimize, tmp_path):
    done = optimize("--apply", "--json", then=("fake reload",))
    assert done.code == 0
    (entry,) = json.loads(done.out)["files"]
    assert (entry["written"], entry["then"]) == (True, ["fake reload"])
    assert entry["content"] is None
    assert (tmp_path / "fake.conf").exists()


@pytest.mark.parametrize(
    ("token_ms", "code", "kept"),
    [
        (lambda config: 2.0 * config["threads"], 0, True),
        (lambda config: 16.0 / config["threads"], 1, False),
        (lambda config: 8.0, 0, True),
    ],
)
def test_a_proposal_is_applied_only_if_it_is_not_slower(optimize, tmp_path, token_ms, code, kept):
    done = optimize("--apply", *VERIFY, script=Script(token_ms=token_ms))
    assert done.code == code, done.err
    assert (tmp_path / "fake.conf").exists() == kept
    assert "Proposed against current" in done.out
    assert ("Keep what you have; nothing was changed" in done.err) == (not kept)
    settings = [config for _, config in optimize.backend.measured]
    assert settings.count({"threads": 8, "cache": True}) == 6
    assert settings.count({"threads": 4, "cache": True}) == 6


def test_an_answer_that_stays_open_changes_nothing(optimize, tmp_path):
    script = Script(token_ms=lambda _: 8.0, launch_noise=0.3)
    done = optimize("--apply", "-o", str(tmp_path / "x.sh"), *VERIFY, script=script)
    assert done.code == 4
    assert "stays open, so nothing was changed" in done.err
    assert not (tmp_path / "fake.conf").exists()
    assert not (tmp_path / "x.sh").exists()


def test_a_proposal_that_does_not_start_is_not_applied(optimize, tmp_path):
    def fails(config):
        if config["threads"] == 4:
            raise UsageError("four is too many")
        return 8.0

    done = optimize("--apply", *VERIFY, script=Script(token_ms=fails))
    assert done.code in {3, 4}
    assert not (tmp_path / "fake.conf").exists()


def test_a_proposal_that_crashes_now_and_then_is_not_applied(optimize, tmp_path):
    """Where it answers, the interval rules out that it is slower."""
    launches = []

    def crashes(config):
        if config["threads"] == 8:
            return 8.0
        launches.append(config)
        if len(launches) % 2:
            raise LaunchError("the fake went out")
        return 8.0 if len(launches) % 4 else 7.2

    done = optimize("--apply", *VERIFY, "--launches", "12", script=Script(token_ms=crashes))
    assert done.code == 4, done.err
    assert "proposed failed in 6 of 12: every request of short failed" in words_of(done.err)
    assert "proposed failed in 6 of 12" in words_of(done.out)
    assert "nothing was changed" in done.err
    assert not (tmp_path / "fake.conf").exists()


def test_the_document_holds_the_verdict_too(optimize):
    script = Script(token_ms=lambda config: 2.0 * config["threads"])
    done = optimize("--json", *VERIFY, script=script)
    told = loads(done.out, KIND, MAJOR, Outcome, "standard output").verification
    assert told.slower is False
    assert told.comparisons[0].verdict == "faster"
    assert f"kept as run {told.run}" in done.err


def test_a_knob_that_a_running_server_cannot_change_is_measured_beside_it(optimize):
    done = optimize(*VERIFY, kinds=("server", "binary"))
    assert done.code == 0, done.err
    assert "on one that VeloLLM starts beside it" in words_of(done.err)
    assert {kind for kind, _ in optimize.backend.measured} == {"binary"}


def test_what_is_experimental_is_measured_with_its_knobs(optimize):
    done = optimize(*VERIFY, "--experimental", kinds=("server", "binary"))
    assert done.code == 0, done.err
    assert optimize.backend.started_with[0] == {"experimental": "on"}
    optimize(*VERIFY, kinds=("server", "binary"))
    assert optimize.backend.started_with[0] == {}


def test_beside_a_server_that_holds_the_model_nothing_is_measured_unless_it_is_wanted(optimize):
    held = {"fake-model": "fake stop fake-model"}
    calm = [word for word in VERIFY if word != "--force"]
    done = optimize(*calm, kinds=("server", "binary"), held=held)
    assert done.code == 4
    assert "holds fake-model in memory" in words_of(done.err)
    assert "fake stop fake-model" in done.err
    assert optimize.backend.measured == []
    done = optimize(*VERIFY, kinds=("server", "binary"), held=held)
    assert done.code == 0
    assert "holds fake-model in memory" in words_of(done.err)


def test_beside_a_server_that_holds_another_model_it_is_said(optimize):
    done = optimize(*VERIFY, kinds=("server", "binary"), held={"other": "fake stop other"})
    assert done.code == 0
    assert "holds other in memory" in words_of(done.err)


def test_a_knob_that_a_running_server_cannot_change_is_named_where_nothing_can_be_started(
    optimize,
):
    done = optimize(*VERIFY, kinds=("server",))
    assert done.code == 2
    assert "threads cannot be changed on a server that runs already" in done.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--launches", "3"], "Add --verify"),
        (["--metric", "total_ms"], "Add --verify"),
        (["--target", "file"], "Add --apply"),
        (["--dry-run", "--verify"], "--dry-run measures and writes nothing"),
        (["--dry-run", "-o", "x.sh"], "--dry-run measures and writes nothing"),
        (["-o", "-"], "To print the settings use --form"),
        (["-o", "nowhere/x.sh"], "there is no folder"),
        (["--json", "--form", "sh"], "Name a file"),
        (["--apply", "--form", "sh"], "Name a file"),
        (["--apply", "--dry-run", "--form", "sh"], "Name a file"),
        (["--form", "punchcard"], "has no form 'punchcard'"),
        (["--apply", "--target", "moon"], "no target 'moon'"),
        (["--goal", "beauty"], "beauty"),
        (["--context", "0"], "not in the range"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(optimize, tmp_path, words, told):
    before = sorted(tmp_path.rglob("*"))
    done = optimize(*words)
    assert done.code == 2
    assert told in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_help_shows_an_example_and_imports_no_engine(help_of):
    text, loaded = help_of("optimize", {"rich", "xllamacpp", "velollm_llamacpp"})
    assert "Example: velollm optimize" in text
    assert not loaded
