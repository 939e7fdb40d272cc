"""Settings written down are the settings that llama.cpp, and VeloLLM, then go by."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as property_settings
from hypothesis import strategies as st
from velollm_llamacpp import apply, forms, settings
from velollm_llamacpp.arguments import arguments, settable
from velollm_llamacpp.engines import Engine
from velollm_llamacpp.flags import parse_help
from velollm_llamacpp.knobs import BY_NAME
from velollm_llamacpp.readback import read_log
from velollm_llamacpp.record import recorded_flags
from velollm_llamacpp.sources import arguments as read_arguments

from velollm_core.backends import changes
from velollm_core.backends.contract import Installation
from velollm_core.config import Choices, Config, Settings
from velollm_core.errors import UsageError
from velollm_core.models.spec import Model

FLAGS = recorded_flags()
ENGINE = Engine(version="1", build=None, flags=FLAGS, gpus=("CUDA0",), cpu_features=())
MODEL = Model(reference="a 'model'; touch owned #", path=Path("/models/o'hara $(x) [1].gguf"))
SOME = Config({"threads": 3, "cache_type_k": "q8_0", "kv_unified": False, "slots": 2})
SPECULATION = Config(
    {"spec_type": "ngram-simple", "ngram_simple_size_n": 3, "ngram_simple_size_m": 8}
)
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")


def render(config, form, flags=FLAGS):
    return forms.render(flags, "/opt/llama server", MODEL, Settings(config=Config(config)), form)


def values_of(knob):
    if isinstance(knob.domain, Choices):
        return st.sampled_from(knob.domain.values)
    if knob.domain.integral:
        return st.integers(knob.domain.low, knob.domain.high)
    return st.floats(knob.domain.low, knob.domain.high)


KNOBS = settable(FLAGS, gpus=True)
CONFIGS = st.dictionaries(st.sampled_from(KNOBS), st.none(), min_size=1, max_size=6).flatmap(
    lambda chosen: st.fixed_dictionaries({knob.name: values_of(knob) for knob in chosen})
)
WITH_VARIABLE = frozenset(
    knob.name for knob in KNOBS if FLAGS.first(BY_NAME[knob.name].names).environ is not None
)
some = property_settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def sourced(script, folder, environ):
    """The environment of a bash that has sourced ``script``."""
    path = folder / "velollm.sh"
    path.write_text(script, encoding="utf-8")
    subprocess.run(["bash", "-n", str(path)], check=True, timeout=30)
    done = subprocess.run(
        ["bash", "-c", 'set -eu; source "$0"; env -0', str(path)],
        capture_output=True,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": str(folder / "home"), **environ},
        timeout=30,
    )
    assert done.stderr == b""
    pairs = (entry.partition("=") for entry in done.stdout.decode().split("\0") if entry)
    return {name: text for name, _, text in pairs}


@needs_bash
@some
@given(config=CONFIGS, embedded=st.booleans())
def test_what_is_sourced_is_what_velollm_then_measures(config, embedded, tmp_path):
    """Over variables that said otherwise, for a llama-server and for the engine in the wheel."""
    sayable = {name: value for name, value in config.items() if name in WITH_VARIABLE}
    assume(sayable)
    before = {"LLAMA_ARG_THREADS": "61", "LLAMA_ARG_NO_CACHE_PROMPT": "1", "LLAMA_ARG_FIT": "off"}
    environ = sourced(render(sayable, "sh"), tmp_path, before)
    current = settings.current(ENGINE, environ, embedded=embedded, root=tmp_path / "root")
    assert {name: current.config[name] for name in sayable} == sayable
    assert environ["LLAMA_ARG_FIT"] == "off"


@needs_bash
def test_a_script_holds_exports_and_comments_and_runs_nothing(tmp_path):
    script = render({**SOME, "gpu_layers": 12}, "sh")
    for line in script.splitlines():
        assert re.match(r"#|export LLAMA_ARG_\w+=[\w.+-]+$|unset LLAMA_ARG_NO_\w+$", line), line
    sourced(script, tmp_path, {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["velollm.sh"]


@needs_bash
def test_a_script_says_how_to_take_it_back(tmp_path):
    script = render(SOME, "sh")
    undo = re.search(r"open a new shell: (unset .*)", script).group(1)
    environ = sourced(f"{script}{undo}\n", tmp_path, {})
    assert not [name for name in environ if name.startswith("LLAMA_ARG")]


@pytest.mark.parametrize(
    ("form", "set_to", "left"),
    [
        ("fish", "set -gx LLAMA_ARG_CACHE_TYPE_K q8_0", "set -e LLAMA_ARG_CTX_SIZE"),
        ("powershell", "$env:LLAMA_ARG_CACHE_TYPE_K = 'q8_0'", "$env:LLAMA_ARG_CTX_SIZE = $null"),
        ("sh", "export LLAMA_ARG_CACHE_TYPE_K=q8_0", "unset LLAMA_ARG_CTX_SIZE"),
    ],
)
def test_every_shell_sets_values_and_leaves_to_llamacpp_what_is_its_choice(form, set_to, left):
    lines = render({"cache_type_k": "q8_0", "context": 0}, form).splitlines()
    assert set_to in lines
    assert left in lines


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish here")
def test_fish_sets_what_it_is_told(tmp_path):
    path = tmp_path / "velollm.fish"
    path.write_text(render(SOME, "fish"))
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {path}; env"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        timeout=30,
    )
    assert "LLAMA_ARG_THREADS=3\n" in done.stdout
    assert "LLAMA_ARG_KV_UNIFIED=0\n" in done.stdout
    assert done.stderr == ""


def test_a_knob_without_a_variable_is_left_out_with_what_belongs_to_it(caplog):
    script = render({**SPECULATION, "threads": 3}, "sh")
    assert "export LLAMA_ARG_THREADS=3\n" in script
    assert "export LLAMA_ARG_SPEC_TYPE" not in script
    assert "# Left out, for want of variables for all of it: --spec-ngram-simple-size-m 8" in script
    assert "ngram_simple_size_n=3, spec_type=ngram-simple: llama-server has no" in caplog.text
    assert "export LLAMA_ARG_SPEC_TYPE=ngram-mod\n" in render({"spec_type": "ngram-mod"}, "sh")


def test_a_form_in_which_nothing_can_be_said_is_refused():
    with pytest.raises(UsageError, match=r"(?s)no variable for threads_batch.*argv or ini"):
        render({"threads_batch": 4}, "sh")
    with pytest.raises(UsageError, match="no form 'toml'"):
        render(SOME, "toml")
    extra = Settings(config=SOME, extra_args=("--host", "0.0.0.0"))
    with pytest.raises(UsageError, match="only knobs are written down"):
        forms.render(FLAGS, "llama-server", MODEL, extra, "sh")


@some
@given(config=CONFIGS)
def test_a_command_line_is_one_that_means_the_settings(config):
    words = shlex.split(render(config, "argv"))
    assert words[:3] == ["/opt/llama server", "--model", str(MODEL.path.absolute())]
    assert tuple(words[3:]) == arguments(FLAGS, Config(config))
    given_flags = {found.flag.name for found in read_arguments(FLAGS, words[3:], "here")}
    assert len(given_flags) <= len(config)


def test_a_command_line_says_auto_and_warns_of_what_it_has_no_word_for(caplog):
    words = shlex.split(render({"gpu_layers": -1, "flash_attention": "auto"}, "argv"))
    assert words[3:] == ["--flash-attn", "auto", "--gpu-layers", "auto"]
    assert caplog.text == ""
    assert "--ctx-size" not in render({"context": 0, "threads": 3}, "argv")
    assert "leaves context to llama.cpp" in caplog.text


@pytest.mark.parametrize(
    ("form", "lacking"),
    [
        (
            "sh",
            {"threads_batch", "spec_type", "ngram_simple_size_n", "ngram_simple_size_m", "poll"},
        ),
        ("argv", {"context"}),
        ("ini", {"context"}),
        ("preset", {"context"}),
    ],
)
def test_what_a_form_leaves_out_is_known_before(form, lacking):
    config = {"threads": 3, "threads_batch": 4, "context": 0, **SPECULATION, "poll": 0}
    assert set(forms.omitted(FLAGS, config, form)) == lacking


def current_of(text, folder, **variables):
    """The settings with ``text`` as the user's configuration file."""
    path = folder / "llama.cpp" / "config.ini"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    environ = {"XDG_CONFIG_HOME": str(folder), "APPDATA": str(folder), **variables}
    return settings.current(ENGINE, environ, embedded=True, root=folder / "root")


@some
@given(config=CONFIGS)
def test_the_configuration_file_means_the_settings(config, tmp_path):
    current = current_of(render(config, "ini"), tmp_path)
    assert {name: current.config[name] for name in config} == config


OWN = """\
# mine
threads-batch = 61   ; why not
[*]
t = 61
no-kv-unified = 1
ctx-size = 6100
alias = mine # and this
[other]
threads = 61
"""


@some
@given(config=CONFIGS)
def test_the_users_own_file_is_edited_in_place(config, tmp_path):
    plain, edited = current_of(OWN, tmp_path), forms.with_texts(OWN, FLAGS, config)
    current = current_of(edited, tmp_path)
    assert {name: current.config[name] for name in config} == config
    untouched = {
        name: value
        for name, value in plain.config.items()
        if name not in config and not {"slots", "kv_unified"} & {name, *config}
    }
    assert {name: current.config[name] for name in untouched} == untouched
    for line in ("# mine", "alias = mine # and this", "[other]\nthreads = 61\n"):
        assert line in edited


def test_what_is_left_to_llamacpp_is_taken_out_of_the_file():
    assert forms.with_texts(OWN, FLAGS, {"context": 0}) == OWN.replace("ctx-size = 6100\n", "")
    assert "# context is left to llama.cpp" in render({"context": 0}, "ini")
    assert "gpu-layers = auto\n" in render({"gpu_layers": -1}, "ini")


def test_a_preset_is_a_section_of_the_model():
    config = {**SPECULATION, "threads": 3}
    model = Model(reference="x", path=Path("/models/small.gguf"))
    path = str(model.path.absolute())
    text = forms.render(FLAGS, "llama-server", model, Settings(config=Config(config)), "preset")
    assert f"[small]\nmodel = {path}\n" in text
    assert "spec-ngram-simple-size-n = 3\n" in text
    again = forms.with_preset(f"[*]\nt = 1\n\n{text}\n[z]\nt = 2\n", FLAGS, model, {"threads": 5})
    assert again == f"[*]\nt = 1\n\n{text}\n[z]\nt = 2\n".replace("threads = 3", "threads = 5")


@pytest.mark.parametrize("name", ["a]b", "*", "default", "a;b", "a\nb"])
def test_a_model_whose_name_cannot_be_a_section_is_refused(name):
    with pytest.raises(UsageError):
        forms.section_of(Model(reference="x", served_name=name, path=Path("/m.gguf")))


def test_a_model_that_is_no_file_has_no_command_line():
    model = Model(reference="served", served_name="served")
    with pytest.raises(UsageError, match="no file that a llama-server could be given"):
        forms.render(FLAGS, "llama-server", model, Settings(config=SOME), "argv")


OLDER = parse_help(
    """
-t,    --threads N                      number of threads (default: -1)
                                        (env: LLAMA_ARG_THREADS)
-fa,   --flash-attn                     enable Flash Attention (default: disabled)
                                        (env: LLAMA_ARG_FLASH_ATTN)
--mlock                                 force system to keep model in RAM
                                        (env: LLAMA_ARG_MLOCK)
--no-mmap                               do not memory-map model
                                        (env: LLAMA_ARG_NO_MMAP)
"""
)


def test_an_older_build_is_told_in_its_own_words():
    script = render({"load_mode": "none", "flash_attention": "on"}, "sh", OLDER)
    assert "export LLAMA_ARG_NO_MMAP=1\n" in script
    assert "unset LLAMA_ARG_MLOCK\n" in script
    assert "export LLAMA_ARG_FLASH_ATTN=1\n" in script
    assert "unset LLAMA_ARG_FLASH_ATTN\n" in render({"flash_attention": "off"}, "sh", OLDER)
    assert render({"load_mode": "none"}, "ini", OLDER).endswith("[*]\nno-mmap = 1\n")
    assert arguments(OLDER, {"load_mode": "none"}) == ("--no-mmap",)
    with pytest.raises(UsageError, match="has no flag --cache-ram"):
        render({"cache_ram": 0}, "sh", OLDER)


READABLE = Config(
    {"threads": 1, "batch": 512, "ubatch": 128, "context": 1024, "slots": 2, "kv_unified": True}
) | {"cache_type_k": "q8_0", "cache_type_v": "q8_0", "flash_attention": "on", "load_mode": "none"}


@pytest.mark.engine
@pytest.mark.parametrize("form", ["sh", "ini", "argv"])
def test_a_real_llama_server_goes_by_what_is_written(form, backend, native, demo, tmp_path):
    """Started as a user would, not by VeloLLM; what it then says of itself is compared."""
    speculation = {"spec_type": "ngram-mod"} if form == "sh" else SPECULATION
    config = READABLE | {"cache_ram": 64, "ctx_checkpoints": 4} | speculation
    written = backend.render(native, demo, Settings(config=config), form)
    ends = ("--host", "127.0.0.1", "--port", "0", "--offline", "--verbosity", "4")
    script = written if form == "sh" else ""
    command = written
    if form != "argv":
        command = shlex.join((native.location, "--model", str(demo.path)))
    (tmp_path / "llama.cpp").mkdir()
    if form == "ini":
        (tmp_path / "llama.cpp" / "config.ini").write_text(written)
    path = tmp_path / "start.sh"
    path.write_text(f"{script}exec {command.rstrip()} {shlex.join(ends)}\n")
    log = tmp_path / "log"
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    with log.open("wb") as file:
        server = subprocess.Popen(["bash", path], stdout=file, stderr=file, env=environ)
    try:
        deadline = time.monotonic() + 60
        while set(config) - set(told := read_log(log.read_text(errors="replace"))):
            assert server.poll() is None, log.read_text(errors="replace")[-2000:]
            assert time.monotonic() < deadline, set(config) - set(told)
            time.sleep(0.1)
    finally:
        server.kill()
        server.wait()
    assert {name: told[name] for name in config} == dict(config)


def plan(config, target, home):
    environ = {"HOME": str(home), "APPDATA": str(home / ".config")}
    return apply.plan(FLAGS, MODEL, Config(config), target, environ)


def test_settings_are_applied_to_the_users_file_and_taken_back_byte_for_byte(tmp_path):
    path = tmp_path / ".config" / "llama.cpp" / "config.ini"
    path.parent.mkdir(parents=True)
    path.write_bytes(OWN.replace("\n", "\r\n").encode())
    before = path.read_bytes()
    changes.apply(plan(SOME, None, tmp_path), tmp_path / "undo")
    environ = {"HOME": str(tmp_path), "APPDATA": str(tmp_path / ".config")}
    current = settings.current(ENGINE, environ, embedded=False, root=tmp_path / "root")
    assert {name: current.config[name] for name in SOME} == dict(SOME)
    assert b"\n" not in path.read_bytes().replace(b"\r\n", b"")
    assert plan(SOME, "config", tmp_path)[0].content == path.read_bytes()
    changes.undo(tmp_path / "undo")
    assert path.read_bytes() == before


def test_a_file_that_llamacpp_would_refuse_is_not_touched(tmp_path):
    path = tmp_path / ".config" / "llama.cpp" / "config.ini"
    path.parent.mkdir(parents=True)
    path.write_text("[*]\nnonsense\n")
    with pytest.raises(UsageError, match="line 2 is no KEY = VALUE"):
        plan(SOME, None, tmp_path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read"):
        plan(SOME, None, tmp_path)


def test_a_preset_goes_where_it_is_told_and_says_what_to_start(tmp_path):
    model = Model(reference="x", path=tmp_path / "m.gguf")
    target = tmp_path / "my presets.ini"
    (change,) = apply.plan(FLAGS, model, SOME, f"preset={target}", {})
    assert change.path == target
    assert change.content.startswith(b"[m]\nmodel = ")
    assert change.then == (f"llama-server --models-preset '{target}'",)


def test_a_home_that_is_nobodys_is_a_name_like_any_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = Model(reference="x", path=tmp_path / "m.gguf")
    (change,) = apply.plan(FLAGS, model, SOME, "preset=~nobody-of-that-name/m.ini", {})
    assert change.path == tmp_path / "~nobody-of-that-name" / "m.ini"


def test_a_build_that_reads_no_files_is_given_none(tmp_path):
    older = evolve(FLAGS, reads_files=False)
    with pytest.raises(UsageError, match=r"too old(.|\n)*-o velollm\.sh"):
        apply.plan(older, MODEL, SOME, None, {"HOME": str(tmp_path)})
    with pytest.raises(UsageError, match="too old"):
        render(SOME, "ini", older)
    with pytest.raises(UsageError, match="too old to serve several models"):
        apply.plan(OLDER, MODEL, SOME, f"preset={tmp_path / 'm.ini'}", {})
    assert "LLAMA_ARG_THREADS" in render(SOME, "sh", older)


def test_whom_the_users_file_reaches_is_said(tmp_path):
    assert "all programs of llama.cpp" in plan(SOME, None, tmp_path)[0].summary
    assert "Ollama" in plan(SOME, None, tmp_path)[0].summary
    assert "Ollama" in render(SOME, "ini").splitlines()[1]


@pytest.mark.parametrize("target", ["elsewhere", "preset="])
def test_an_unknown_target_is_named(target, tmp_path):
    with pytest.raises(UsageError, match="config, preset=PATH"):
        plan(SOME, target, tmp_path)
    with pytest.raises(UsageError, match="there is no home"):
        apply.plan(FLAGS, MODEL, SOME, None, {})


def test_a_server_of_unknown_build_has_no_forms(backend):
    server = Installation(backend="llamacpp", kind="server", location="http://127.0.0.1:1")
    assert backend.forms(server) == ()
    for refused in (
        lambda: backend.render(server, MODEL, Settings(config=SOME), "sh"),
        lambda: backend.plan_apply(server, MODEL, Settings(config=SOME), None),
    ):
        with pytest.raises(UsageError, match="does not tell which flags"):
            refused()


def test_the_engine_in_the_wheel_is_written_down_as_a_llama_server(backend, embedded):
    assert backend.forms(embedded)[0] == "sh"
    written = backend.render(embedded, MODEL, Settings(config=SOME), "argv")
    assert written.startswith("llama-server --model ")
