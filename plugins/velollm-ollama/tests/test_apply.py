"""Where settings are kept: the right file, what it held before, and what is to be run."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from velollm_ollama.apply import plan_apply
from velollm_ollama.sources import llama_config, unit_environment, units

from velollm_core.backends.contract import Installation
from velollm_core.config import Config, Settings
from velollm_core.errors import UsageError
from velollm_core.hardware.probe import Finished, Probe
from velollm_core.models.spec import Model

PRIVATE = Installation(backend="ollama", kind="binary", location="/usr/bin/ollama")
SERVER = Installation(backend="ollama", kind="server", location="http://127.0.0.1:11434")
EXPERIMENTAL = Installation(
    backend="ollama", kind="binary", location="ollama", options={"experimental": "on"}
)
MODEL = Model(reference="llama3.2:3b", served_name="llama3.2:3b")
SYSTEM = "/etc/systemd/system"
OWN = "/home/somebody/.config/systemd/user"
UNIT = "[Service]\nExecStart=/usr/bin/ollama serve\n"
HOSTILE = st.one_of(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0"),
    st.sampled_from("'\"\\$`%\n\r;&| #=!{}()\u2018\u2019"),
)
BASH = shutil.which("bash")


class Machine:
    def __init__(self, folder):
        self.root = folder / "machine"
        self.config = folder / "it's my config"
        self.system = "Linux"
        self.answers = {}

    def execute(self, argv, timeout_s, environ):
        if argv[0] not in self.answers:
            raise FileNotFoundError(argv[0])
        return Finished(0, self.answers[argv[0]])

    def plant(self, path, text):
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    @property
    def probe(self):
        environ = {"HOME": "/home/somebody", "VELOLLM_CONFIG_DIR": str(self.config)}
        return Probe(root=self.root, system=self.system, environ=environ, execute=self.execute)

    def changes(self, config, target=None, installation=PRIVATE, model=MODEL, **extra_env):
        told = Settings(config=Config(config), extra_env=extra_env)
        return plan_apply(installation, model, told, target, probe=self.probe)

    def change(self, *arguments, **more):
        (change,) = self.changes(*arguments, **more)
        return change

    def write(self, change):
        change.path.parent.mkdir(parents=True, exist_ok=True)
        change.path.write_bytes(change.content)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def variables(change):
    return {v.name: v.text for v in unit_environment(change.content.decode(), "x")}


def test_nothing_is_nothing(machine):
    assert machine.changes({}) == ()


def test_options_of_the_model_go_to_a_modelfile_of_a_new_model(machine):
    change = machine.change({"num_ctx": 8192})
    assert change.path == machine.config / "ollama" / "llama3.2%3A3b-velollm.modelfile"
    assert change.content.decode().splitlines()[1:] == [
        "FROM llama3.2:3b",
        "PARAMETER num_ctx 8192",
    ]
    assert "llama3.2:3b-velollm" in change.summary
    assert not change.needs_root


@pytest.mark.skipif(BASH is None, reason="there is no bash here")
def test_the_command_that_makes_the_model_is_quoted(machine):
    elsewhere = Installation(backend="ollama", kind="server", location="http://x'; touch pwned:1")
    change = machine.change({"num_ctx": 8192}, installation=elsewhere)
    says = 'ollama() { printf "%s\\0" "$OLLAMA_HOST" "$@"; }\n'
    done = subprocess.run(
        (BASH, "--norc"), input=says + change.then[0], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\0")[:-1] == [
        elsewhere.location,
        "create",
        "llama3.2:3b-velollm",
        "-f",
        str(change.path),
    ]


@pytest.mark.skipif(BASH is None, reason="there is no bash here")
@given(hosts=st.lists(st.text(HOSTILE, max_size=20), min_size=1, max_size=20))
@settings(database=None, max_examples=8, deadline=None)
def test_no_host_leaves_its_quotes(hosts, tmp_path_factory):
    machine = Machine(tmp_path_factory.getbasetemp())
    where = [f"http://{host}:1" for host in hosts]
    said = 'ollama() { printf "%s\\0" "$OLLAMA_HOST"; }\n'
    for location in where:
        elsewhere = evolve(SERVER, location=location)
        said += machine.change({"num_ctx": 8192}, installation=elsewhere).then[0] + "\n"
    done = subprocess.run(
        (BASH, "--norc"), input=said.encode(), capture_output=True, check=True, cwd="/"
    )
    assert done.stdout.decode().split("\0")[:-1] == where
    assert done.stderr == b""


def test_the_usual_server_needs_no_host(machine):
    change = machine.change({"num_ctx": 8192}, installation=SERVER)
    assert change.then[0].startswith("ollama create ")


@given(name=st.text(min_size=1, max_size=20))
@settings(database=None)
def test_no_name_of_a_model_leaves_the_folder(name, tmp_path_factory):
    machine = Machine(tmp_path_factory.getbasetemp())
    model = Model(reference="x", served_name=name)
    try:
        change = machine.change({"num_ctx": 8192}, model=model)
    except UsageError:
        return
    assert change.path.parent == machine.config / "ollama"


def test_the_users_own_unit_gets_a_drop_in(machine):
    machine.plant(f"{OWN}/ollama.service", UNIT)
    machine.plant(f"{SYSTEM}/ollama.service", UNIT)
    change = machine.change({"num_parallel": 4})
    assert change.path == machine.root / f"{OWN}/ollama.service.d/velollm.conf".lstrip("/")
    assert variables(change) == {"OLLAMA_NUM_PARALLEL": "4"}
    assert not change.needs_root
    assert change.then == ("systemctl --user daemon-reload", "systemctl --user restart ollama")


def test_the_systems_unit_is_only_shown(machine):
    machine.plant("/usr/lib/systemd/system/ollama.service", UNIT)
    change = machine.change({"num_parallel": 4})
    assert change.path == machine.root / "etc/systemd/system/ollama.service.d/velollm.conf"
    assert change.needs_root
    assert "sudo systemctl restart ollama" in change.then


def test_what_was_written_is_what_the_unit_then_has(machine):
    machine.plant(f"{OWN}/ollama.service", f"{UNIT}Environment=OLLAMA_NUM_PARALLEL=2\n")
    machine.plant(
        f"{OWN}/ollama.service.d/override.conf", "[Service]\nEnvironment=OLLAMA_NUM_PARALLEL=3\n"
    )
    machine.write(machine.change({"num_parallel": 4, "keep_alive": -1}))
    (unit,) = units(machine.probe)
    assert {v.name: v.text for v in unit.variables} == {
        "OLLAMA_NUM_PARALLEL": "4",
        "OLLAMA_KEEP_ALIVE": "-1",
    }


def test_what_an_earlier_change_keeps_there_stays(machine):
    machine.plant(f"{OWN}/ollama.service", UNIT)
    machine.write(machine.change({"num_parallel": 4, "keep_alive": -1}))
    change = machine.change({"num_parallel": 2, "max_queue": 9})
    assert variables(change) == {
        "OLLAMA_NUM_PARALLEL": "2",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_MAX_QUEUE": "9",
    }


@pytest.mark.parametrize("place", ["/etc/ollama", f"{SYSTEM}/ollama.service.d/zz.conf"])
def test_a_drop_in_that_would_not_count_is_refused(machine, place):
    machine.plant(f"{SYSTEM}/ollama.service", f"{UNIT}EnvironmentFile=/etc/ollama\n")
    line = "OLLAMA_NUM_PARALLEL=2\n"
    machine.plant(place, line if place == "/etc/ollama" else f"[Service]\nEnvironment={line}")
    with pytest.raises(UsageError, match=f"set in {place}"):
        machine.changes({"num_parallel": 4})
    assert machine.changes({"max_queue": 4})


def test_without_a_unit_a_shell_sources_a_file(machine):
    change = machine.change({"num_parallel": 4}, CUDA_VISIBLE_DEVICES="it's 1")
    assert change.path == machine.config / "ollama.sh"
    machine.write(change)
    change = machine.change({"max_queue": 4})
    assert change.content.decode().splitlines()[1:] == [
        "export OLLAMA_NUM_PARALLEL=4",
        "export CUDA_VISIBLE_DEVICES='it'\"'\"'s 1'",
        "export OLLAMA_MAX_QUEUE=4",
    ]
    assert change.then[1] == "ollama serve"


def test_lines_that_somebody_added_to_a_file_of_ours_stay(machine):
    machine.write(machine.change({"num_parallel": 4, "max_queue": 4}))
    path = machine.config / "ollama.sh"
    added = path.read_text() + '\nexport HF_HOME="/data"  # mine\nexport OLLAMA_DEBUG=1\n'
    path.write_text(added)
    changed = machine.change({"num_parallel": 2, "keep_alive": -1}).content.decode()
    assert changed == added.replace("PARALLEL=4", "PARALLEL=2") + "export OLLAMA_KEEP_ALIVE=-1\n"


def test_a_line_that_somebody_wrote_in_another_way_stays_and_ours_counts(machine):
    machine.config.mkdir()
    (machine.config / "ollama.sh").write_text('export OLLAMA_MAX_QUEUE="9"\n')
    assert machine.change({"max_queue": 4}).content.decode().splitlines()[1:] == [
        'export OLLAMA_MAX_QUEUE="9"',
        "export OLLAMA_MAX_QUEUE=4",
    ]


def test_a_file_that_is_no_text_is_left_alone(machine):
    machine.config.mkdir()
    (machine.config / "ollama.sh").write_bytes(b"export \xff\n")
    with pytest.raises(UsageError, match="not UTF-8"):
        machine.changes({"max_queue": 4})


def test_lines_that_somebody_added_to_a_drop_in_of_ours_stay(machine):
    machine.plant(f"{OWN}/ollama.service", UNIT)
    change = machine.change({"num_parallel": 4, "max_queue": 9})
    text = change.content.decode()
    added = text + "Environment=HF_HOME=/data OTHER=1\nNice=5\n\n[Unit]\nAfter=mine.mount\n"
    machine.write(evolve(change, content=added.encode()))
    changed = machine.change({"num_parallel": 2, "keep_alive": -1}).content.decode()
    assert changed == added.replace("PARALLEL=4", "PARALLEL=2").replace(
        "\n\n[Unit]", '\n\nEnvironment="OLLAMA_KEEP_ALIVE=-1"\n[Unit]'
    )


def test_a_line_further_down_in_that_drop_in_that_counts_more_is_named(machine):
    machine.plant(f"{OWN}/ollama.service", UNIT)
    change = machine.change({"num_parallel": 4})
    added = change.content + b"Environment=A=1 OLLAMA_NUM_PARALLEL=8\n"
    machine.write(evolve(change, content=added))
    with pytest.raises(UsageError, match="set again in"):
        machine.changes({"num_parallel": 2})


def test_a_server_that_runs_without_a_unit_is_stopped_first(machine):
    assert machine.change({"num_parallel": 4}).then[0].startswith(". ")
    change = machine.change({"num_parallel": 4}, installation=SERVER)
    assert change.then[0] == "pkill -x ollama"
    assert change.then[2] == "ollama serve"


def test_what_a_container_reads_is_not_written_to_a_file_for_a_shell(machine):
    machine.answers["docker"] = "abc123 0.0.0.0:11434->11434/tcp\n"
    with pytest.raises(UsageError, match="runs in the container abc123") as caught:
        machine.changes({"num_parallel": 4}, installation=SERVER)
    assert "--form docker" in caught.value.hint
    assert machine.changes({"num_parallel": 4}, "env", installation=SERVER)
    assert machine.changes({"num_ctx": 512}, installation=SERVER)
    machine.answers["docker"] = "abc123 0.0.0.0:8080->11434/tcp\n"
    assert machine.changes({"num_parallel": 4}, installation=SERVER)


def test_on_a_mac_launchd_is_told(machine):
    machine.system = "Darwin"
    machine.write(machine.change({"num_parallel": 4}))
    change = machine.change({"max_queue": 4})
    assert change.content.decode().splitlines()[1:] == [
        "launchctl setenv OLLAMA_NUM_PARALLEL 4",
        "launchctl setenv OLLAMA_MAX_QUEUE 4",
    ]


def test_on_windows_powershell_is_told(machine):
    machine.system = "Windows"
    machine.write(machine.change({"num_parallel": 4}, CUDA_VISIBLE_DEVICES="it's 1"))
    change = machine.change({"max_queue": 4})
    assert change.path.name == "ollama.ps1"
    assert change.content.decode().splitlines()[1:] == [
        "$env:OLLAMA_NUM_PARALLEL = '4'",
        "$env:CUDA_VISIBLE_DEVICES = 'it''s 1'",
        "$env:OLLAMA_MAX_QUEUE = '4'",
    ]


def test_each_setting_goes_where_it_lives(machine):
    machine.plant(f"{OWN}/ollama.service", UNIT)
    config = {"num_ctx": 8192, "num_parallel": 4, "ngram_mod_n_max": 32, "spec_type": "ngram-mod"}
    changes = machine.changes(config, installation=EXPERIMENTAL)
    assert sorted(change.path.name for change in changes) == [
        "config.ini",
        "llama3.2%3A3b-velollm.modelfile",
        "velollm.conf",
    ]


def test_a_configuration_file_of_llama_cpp_keeps_what_it_has(machine):
    path = "/home/somebody/.config/llama.cpp/config.ini"
    machine.plant(
        path,
        "spec-ngram-mod-n-max = 8\n[default]\nthreads = 4\nspec-ngram-mod-n-max = 7\n[*]\n"
        "spec-ngram-mod-n-max = 9\nmlock = on\n[my-model]\nspec-ngram-mod-n-max = 6\n",
    )
    change = machine.change({"ngram_mod_n_max": 32}, installation=EXPERIMENTAL)
    assert change.path == machine.root / path.lstrip("/")
    machine.write(change)
    told = {(v.name, v.text) for v in llama_config(machine.probe, path)}
    assert told == {("spec-ngram-mod-n-max", "32"), ("mlock", "on"), ("threads", "4")}
    assert change.content.endswith(b"[my-model]\nspec-ngram-mod-n-max = 6\n")
    assert "every llama-server" in change.summary
    assert change.then == ("ollama stop llama3.2:3b",)


def test_what_is_no_text_is_left_alone(machine):
    path = machine.root / "home/somebody/.config/llama.cpp/config.ini"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"[*]\nx = \xff\n")
    with pytest.raises(UsageError, match="not UTF-8"):
        machine.changes({"ngram_mod_n_max": 32}, installation=EXPERIMENTAL)


def test_on_windows_that_file_is_only_shown(machine):
    machine.system = "Windows"
    with pytest.raises(UsageError, match="not written on Windows"):
        machine.changes({"ngram_mod_n_max": 32}, installation=EXPERIMENTAL)


def test_of_a_service_it_is_the_machines_file_and_only_shown(machine):
    machine.plant(f"{SYSTEM}/ollama.service", UNIT)
    change = machine.change({"ngram_mod_n_max": 32}, installation=EXPERIMENTAL)
    assert change.path == machine.root / "etc/llama.cpp/config.ini"
    assert change.needs_root


@pytest.mark.parametrize(
    ("config", "target", "match"),
    [
        ({"num_parallel": 4}, "modelfile", "cannot hold num_parallel"),
        ({"num_thread": 4}, "env", "cannot hold num_thread"),
        ({"num_parallel": 4}, "systemd-user", "no ollama.service of yours"),
        ({"num_parallel": 4}, "systemd", "no ollama.service of the system"),
        ({"num_parallel": 4}, "registry", "no target 'registry'"),
        ({"num_parallel": 0}, None, "num_parallel cannot be 0"),
        ({"spec_type": "ngram-mod"}, None, "no knob 'spec_type'"),
    ],
)
def test_what_cannot_be_kept_is_refused(machine, config, target, match):
    with pytest.raises(UsageError, match=match):
        machine.changes(config, target)


def test_choices_of_devices_do_not_belong_to_a_model(machine):
    with pytest.raises(UsageError, match="cannot hold CUDA_VISIBLE_DEVICES"):
        machine.changes({"num_ctx": 8192}, "modelfile", CUDA_VISIBLE_DEVICES="0")


def test_of_a_server_elsewhere_only_models_are_tuned_from_here(machine):
    machine.plant(f"{SYSTEM}/ollama.service", UNIT)
    elsewhere = Installation(backend="ollama", kind="server", location="http://192.168.1.9:11434")
    change = machine.change({"num_ctx": 8192}, installation=elsewhere)
    assert change.then[0].startswith("OLLAMA_HOST=http://192.168.1.9:11434 ollama create")
    with pytest.raises(UsageError, match="num_parallel cannot be kept here"):
        machine.changes({"num_parallel": 2}, installation=elsewhere)


def test_a_target_of_ones_own(machine):
    machine.plant(f"{SYSTEM}/ollama.service", UNIT)
    assert machine.change({"num_ctx": 8192}, "env").content.endswith(
        b"export OLLAMA_CONTEXT_LENGTH=8192\n"
    )
