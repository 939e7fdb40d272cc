"""Settings in every form: Ollama or a shell reads what was meant, and never anything more."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import yaml
from attrs import evolve
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from velollm_ollama import forms
from velollm_ollama.entries import ENTRIES
from velollm_ollama.places import DEVICES
from velollm_ollama.sources import unit_environment

from velollm_core.backends.contract import Installation
from velollm_core.config import Choices, Config, Settings
from velollm_core.errors import UsageError
from velollm_core.models.spec import Model

PRIVATE = Installation(backend="ollama", kind="binary", location="/usr/local/bin/ollama")
EXPERIMENTAL = evolve(PRIVATE, options={"experimental": "on"})
MODEL = Model(reference="llama3.2:3b", served_name="llama3.2:3b")
SERVER = {"num_parallel": 4, "keep_alive": 3600, "kv_cache_type": "q8_0"}
NAME = "CUDA_VISIBLE_DEVICES"
HOSTILE = (
    "'; touch pwned; '",
    '"; touch pwned; "',
    "$(touch pwned)",
    "`touch pwned`",
    "a\ntouch pwned\n",
    "a\r\ntouch pwned",
    "\\'; touch pwned #",
    "%n %%",
    "$HOME ${HOME} $$",
    "-e X=1",
    "\u2018; touch pwned \u2019",
    "=ls",
    "it's",
    "one\u2028two\u0085three",
    " # no comment",
    "a\\",
    "\t x",
    "{} [] , : & * ! | >",
    "",
)
PROGRAMS = {name: shutil.which(name) for name in ("bash", "fish", "systemd-analyze")}
PROGRAMS["powershell"] = shutil.which("pwsh") or shutil.which("powershell")


def needs(name):
    return pytest.mark.skipif(PROGRAMS[name] is None, reason=f"there is no {name} here")


def run(*argv, text):
    """What a program says that reads ``text``, each word of it ended by a NUL."""
    done = subprocess.run(
        argv, input=text.encode(), capture_output=True, timeout=60, check=True, cwd="/"
    )
    assert done.stderr == b""
    return done.stdout.decode().split("\0")[:-1]


def rendered(config=None, form="sh", installation=PRIVATE, model=MODEL, **extra_env):
    told = Settings(config=Config(config or {}), extra_env=extra_env)
    return forms.render(installation, model, told, form)


def test_the_forms_that_there_are():
    assert forms.forms(PRIVATE) == (
        "sh",
        "fish",
        "powershell",
        "systemd",
        "launchctl",
        "docker",
        "compose",
        "modelfile",
    )
    assert forms.forms(EXPERIMENTAL)[-1] == "ini"


def test_exports_for_a_shell():
    assert rendered(SERVER).splitlines() == [
        "export OLLAMA_KEEP_ALIVE=3600s",
        "export OLLAMA_KV_CACHE_TYPE=q8_0",
        "export OLLAMA_NUM_PARALLEL=4",
    ]


def test_a_drop_in_for_systemd():
    assert rendered({"keep_alive": -1}, "systemd") == (
        '[Service]\nEnvironment="OLLAMA_KEEP_ALIVE=-1"\n'
    )


def test_words_for_launchd_where_nothing_is_unset():
    assert rendered({"num_parallel": 2, "flash_attention": "auto"}, "launchctl").splitlines() == [
        "launchctl unsetenv OLLAMA_FLASH_ATTENTION",
        "launchctl setenv OLLAMA_NUM_PARALLEL 2",
    ]


def test_lines_for_docker_are_one_command():
    assert rendered({"num_parallel": 2, "sched_spread": True}, "docker") == (
        "--env 'OLLAMA_NUM_PARALLEL=2' \\\n--env 'OLLAMA_SCHED_SPREAD=1'\n"
    )


def test_an_environment_for_compose():
    told = yaml.safe_load(rendered({"num_parallel": 2}, "compose"))
    assert told == {"environment": {"OLLAMA_NUM_PARALLEL": "2"}}


def test_a_modelfile_for_the_options_of_the_model():
    config = {"num_ctx": 8192, "num_thread": 0, "use_mmap": "off", "num_batch": 0}
    assert rendered(config, "modelfile").splitlines() == [
        "FROM llama3.2:3b",
        "PARAMETER num_ctx 8192",
        "PARAMETER num_thread 0",
        "PARAMETER use_mmap false",
    ]


def test_a_configuration_file_of_llama_cpp_for_what_only_it_can_say():
    config = {"spec_type": "ngram-mod", "ngram_mod_n_match": 16}
    assert rendered(config, "ini", EXPERIMENTAL).splitlines() == [
        "# spec_type is not here: it is a variable of Ollama's server, see --form sh.",
        "[*]",
        "spec-ngram-mod-n-match = 16",
    ]
    assert "export LLAMA_ARG_SPEC_TYPE=ngram-mod\n" in rendered(config, "sh", EXPERIMENTAL)


def test_the_context_is_a_variable_of_the_server_too_and_its_limits_are_said():
    lines = rendered({"num_ctx": 8192}).splitlines()
    assert lines == [
        "# OLLAMA_CONTEXT_LENGTH counts for every model that has no num_ctx of its own.",
        "export OLLAMA_CONTEXT_LENGTH=8192",
    ]


def test_what_lives_elsewhere_is_a_comment_that_says_where():
    assert rendered({"num_parallel": 2, "num_thread": 4}).splitlines() == [
        "# num_thread is not here: it is a parameter of the model, for --form modelfile.",
        "export OLLAMA_NUM_PARALLEL=2",
    ]


def test_what_lives_elsewhere_is_known_before_it_is_written():
    config = {**SERVER, "num_thread": 4}
    assert forms.omitted(config, "sh") == ("num_thread",)
    assert forms.omitted(config, "modelfile") == tuple(SERVER)


def test_a_modelfile_refuses_what_only_the_server_reads_and_says_where_it_goes():
    with pytest.raises(UsageError, match="cannot hold num_parallel") as caught:
        rendered({"num_parallel": 2}, "modelfile")
    assert "--form sh" in caught.value.hint


@pytest.mark.parametrize("form", ["sh", "systemd", "docker"])
def test_a_shell_refuses_what_only_the_model_has(form):
    with pytest.raises(UsageError, match="cannot hold num_thread"):
        rendered({"num_thread": 2}, form)


@pytest.mark.parametrize(
    ("config", "extra"),
    [
        ({"num_parallel": 0}, {}),
        ({"kv_cache_type": "q8_0; touch pwned"}, {}),
        ({"num_parallel; touch pwned": 1}, {}),
        ({"OLLAMA_NUM_PARALLEL": 1}, {}),
        ({"spec_type": "ngram-mod"}, {}),
        ({}, {"LD_PRELOAD": "x.so"}),
        ({}, {"X=1; touch pwned": "1"}),
    ],
)
def test_nothing_but_knobs_and_choices_of_devices_is_written(config, extra):
    for form in forms.forms(PRIVATE):
        with pytest.raises(UsageError):
            rendered(config, form, **extra)


def test_a_form_that_there_is_not_is_refused_with_those_that_there_are():
    with pytest.raises(UsageError, match="no form 'bat'") as caught:
        rendered({"num_parallel": 2}, "bat")
    assert "powershell" in caught.value.hint


# Quotes


def texts(size):
    """Values that may be said everywhere but in NUL-ended words."""
    characters = st.characters(exclude_categories=("Cs",), exclude_characters="\0")
    alphabet = st.one_of(characters, st.sampled_from("'\"\\$`%\n\r;&| #=!{}()\u2018\u2019"))
    return st.lists(st.text(alphabet, max_size=20), min_size=1, max_size=size)


SOME = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


def scripts(form, values, after):
    """One script that sets each value in turn and says it."""
    return "".join(rendered(form=form, **{NAME: text}) + after for text in values)


@needs("bash")
@SOME
@given(texts(60))
@example(list(HOSTILE))
def test_bash_reads_back_every_value(values):
    script = scripts("sh", values, f"printf '%s\\0' \"${NAME}\"\n")
    assert run(PROGRAMS["bash"], "--norc", text=script) == values


@needs("bash")
@SOME
@given(texts(60))
@example(list(HOSTILE))
def test_docker_and_launchd_are_given_every_value(values):
    says = 'says() { printf \'%s\\0\' "$@"; }\nlaunchctl() { says "$@"; }\n'
    told = run(
        PROGRAMS["bash"],
        "--norc",
        text=says + "".join(f"says {rendered(form='docker', **{NAME: text})}" for text in values),
    )
    assert told == [word for text in values for word in ("--env", f"{NAME}={text}")]
    told = run(PROGRAMS["bash"], "--norc", text=says + scripts("launchctl", values, ""))
    expected = [("setenv", NAME, text) if text else ("unsetenv", NAME) for text in values]
    assert told == [word for words in expected for word in words]


@needs("fish")
@SOME
@given(texts(60))
@example(list(HOSTILE))
def test_fish_reads_back_every_value(values):
    script = scripts("fish", values, f"printf '%s\\0' \"${NAME}\"\n")
    assert run(PROGRAMS["fish"], "--no-config", text=script) == values


@needs("powershell")
@settings(SOME, max_examples=1)
@given(texts(60))
@example(list(HOSTILE))
def test_powershell_reads_back_every_value(values):
    say = f'[Console]::Out.Write("$($env:{NAME})" + [char]0)\n'
    script = scripts("powershell", values, say)
    utf8 = "[Console]::OutputEncoding = [Text.Encoding]::UTF8\n"
    argv = (PROGRAMS["powershell"], "-NoProfile", "-NonInteractive", "-Command", "-")
    assert run(*argv, text=utf8 + script) == values


@SOME
@given(texts(20))
@example(list(HOSTILE))
def test_compose_reads_back_every_value(values):
    for text in values:
        told = yaml.safe_load(rendered(form="compose", **{NAME: text}))
        told = told["environment"].pop(NAME)
        assert told.replace("$$", "").count("$") == 0
        assert told.replace("$$", "$") == text


def units(values):
    """The values that systemd can be told, each in its drop-in."""
    for text in values:
        try:
            yield text, rendered(form="systemd", **{NAME: text})
        except UsageError:
            continue


@SOME
@given(texts(40))
@example(list(HOSTILE))
def test_a_drop_in_is_read_back_as_systemd_reads_it(values):
    for text, unit in units(values):
        (told,) = unit_environment(unit, "x")
        assert (told.name, told.text) == (NAME, text)
        assert unit.count("\n") == 2


@needs("systemd-analyze")
def test_systemd_has_nothing_against_a_drop_in(tmp_path):
    lines = [unit.splitlines()[1] for _, unit in units(HOSTILE)]
    assert len(lines) > len(HOSTILE) // 2
    unit = tmp_path / "ollama.service"
    head = rendered(SERVER, "systemd")
    unit.write_text("\n".join((head, *lines, f"ExecStart={shutil.which('true')}\n")))
    done = subprocess.run(
        (PROGRAMS["systemd-analyze"], "verify", "--man=no", unit),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@given(st.text(min_size=1, max_size=30) | st.sampled_from(HOSTILE[:-1]))
@example("llama3\nPARAMETER stop x")
@example("/etc/passwd")
@example("../weights.gguf")
@example('"""')
def test_a_modelfile_names_its_model_and_no_more(name):
    model = Model(reference="x", served_name=name)
    try:
        text = rendered({"num_ctx": 8192}, "modelfile", model=model)
    except UsageError:
        return
    lines = text.split("\n")
    assert lines[0].removeprefix("FROM ") in {name, f"{name}:latest"}
    assert not name.startswith(("/", ".", "~"))
    assert lines[1:] == ["PARAMETER num_ctx 8192", ""]


@settings(max_examples=20)
@given(st.data())
def test_every_knob_can_be_written_where_it_lives(data):
    for entry in ENTRIES:
        domain = entry.knob.domain
        if isinstance(domain, Choices):
            value = data.draw(st.sampled_from(domain.values))
        else:
            value = data.draw(st.integers(domain.low, domain.high))
        for form in forms.forms(PRIVATE):
            if forms.belongs(entry, form):
                assert rendered({entry.knob.name: value}, form)


def test_every_variable_that_may_be_written_is_a_name():
    assert all(name.replace("_", "").isalnum() and name.isupper() for name in DEVICES)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("llama3.2", "llama3.2:velollm"),
        ("llama3.2:latest", "llama3.2:velollm"),
        ("llama3.2:3b", "llama3.2:3b-velollm"),
        ("llama3.2:3b-velollm", "llama3.2:3b-velollm"),
        ("llama3.2:velollm", "llama3.2:velollm"),
        ("hf.co/someone/Model:Q4_K_M", "hf.co/someone/Model:Q4_K_M-velollm"),
    ],
)
def test_a_tuned_model_has_a_name_of_its_own(name, variant):
    assert str(forms.variant_of(forms.name_in_full(Model(reference=f"ollama:{name}")))) == variant


if sys.platform == "win32":
    pytestmark = pytest.mark.skip(reason="the shells of this machine are others")
