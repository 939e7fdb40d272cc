"""What doctor says of llama.cpp: builds, settings, scripts. Each is found, and it alone."""

from __future__ import annotations

import os
import shlex
import time

import pytest
from attrs import evolve
from velollm_llamacpp import diagnose, engines, sources
from velollm_llamacpp.commands import Assignment, Command, of_script, of_unit
from velollm_llamacpp.diagnose_commands import faults
from velollm_llamacpp.flags import parse_help
from velollm_llamacpp.record import recorded_flags

from velollm_core.backends.contract import Installation
from velollm_core.doctor.diagnosis import diagnose as ask
from velollm_core.doctor.spec import KIND, MAJOR, Context, Engine, Script
from velollm_core.documents import dumps
from velollm_core.errors import Interrupted, Unsettled
from velollm_core.experiment.activity import Activity, Process
from velollm_core.experiment.spec import Because, Comparison, Pair
from velollm_core.hardware.probe import Probe, execute
from velollm_core.hardware.spec import CpuInfo, GpuInfo, HardwareSpec, MemoryInfo, OsInfo
from velollm_core.statistics import Verdict

GIB = 1 << 30
HELP = """
-h,    --help                           print usage
-t,    --threads N                      threads (default: -1)
                                        (env: LLAMA_ARG_THREADS)
-c,    --ctx-size N                     context (default: 0)
                                        (env: LLAMA_ARG_CTX_SIZE)
-m,    --model FNAME                    model
-fa,   --flash-attn [on|off|auto]       flash attention (default: 'auto')
                                        (env: LLAMA_ARG_FLASH_ATTN)
--port PORT                             port (default: 8080)
--api-key KEY                           key
                                        (env: LLAMA_API_KEY)
--load-mode MODE                        how to load (default: auto)
--mlock-all                             another flag
--spec-type none,ngram-mod              speculation (default: none)
                                        (env: LLAMA_ARG_SPEC_TYPE)
--spec-ngram-mod-n-max N                longest draft (default: 64)
--draft, --draft-max N                  the argument has been removed. use --spec-draft-n-max or
                                        --spec-ngram-mod-n-max
                                        (env: LLAMA_ARG_DRAFT_MAX)
"""
FLAGS = parse_help(HELP)
SERVER = f"""
import sys
if "--help" in sys.argv:
    print({HELP!r})
    print("--list-devices                          print devices")
if "--list-devices" in sys.argv:
    print("Available devices:")
if "-m" in sys.argv:
    print("system_info: n_threads = 4 | CPU : AVX2 = 1 | FMA = 1 | F16C = 1 | ", file=sys.stderr)
"""
FULL = ("SSE3", "AVX", "AVX2", "FMA", "F16C", "AVX512", "AVX512_VBMI", "AVX512_VNNI")


class Machine:
    """A machine with 8 cores and one llama-server that has all that the processor has."""

    def __init__(self, root, backend, installation):
        self.root = root
        self.environ = {"HOME": "/home/somebody"}
        self.cpu = CpuInfo(
            model="Planted 9000",
            architecture="x86_64",
            logical=16,
            physical=8,
            instruction_sets=("AVX2", "FMA", "F16C"),
        )
        self.engine = Engine(
            backend=backend,
            installation=installation,
            model=None,
            settings=None,
        )
        self.gpus = ()
        self.processes = ()
        self.scripts = ()
        self.compare = None

    def plant(self, path, text):
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def run(self, words):
        self.processes += (Process(pid=7, argv=tuple(words.split())),)

    def script(self, text):
        self.scripts = (Script(shown="run.sh", text=text),)

    def diagnosis(self):
        context = Context(
            hardware=HardwareSpec(
                cpu=self.cpu,
                memory=MemoryInfo(total_bytes=32 * GIB, available_bytes=20 * GIB),
                os=OsInfo(system="Linux", release="6.8"),
                gpus=self.gpus,
            ),
            probe=Probe(root=self.root, system="Linux", environ=self.environ),
            activity=Activity(watched_s=0.5, processes=self.processes),
            engines=(self.engine,) if self.engine else (),
            scripts=self.scripts,
            compare=self.compare,
        )
        told, failures = ask({"llamacpp": diagnose.CHECKS}, context)
        assert failures == ()
        return told

    def findings(self):
        return [(e.code, finding) for e in self.diagnosis().checks for finding in e.findings]

    def only(self, code):
        (found,) = self.findings()
        assert found[0] == code
        return found[1]

    def unseen(self):
        return {e.code: e.unseen for e in self.diagnosis().checks if e.unseen is not None}


@pytest.fixture
def machine(tmp_path, backend, program):
    path = program(SERVER)
    (found,) = backend.probe({"server": str(path)}, os.environ)
    return Machine(tmp_path / "machine", backend, found)


def test_a_clean_machine_has_none(machine):
    told = machine.diagnosis()
    assert [entry for entry in told.checks if entry.findings or entry.unseen] == []


# The build


def test_an_avx2_build_on_a_processor_with_avx512(machine):
    machine.cpu = evolve(machine.cpu, instruction_sets=FULL)
    found = machine.only("llamacpp-build-features")
    assert found.costs_speed
    assert found.statement.endswith("without AVX512 and AVX512_VNNI, which the processor has.")
    assert (found.cost.basis, found.cost.source) == ("cited", "llama.cpp pull request 933")
    assert "GGML_NATIVE" in found.advice


def test_the_wheel_on_a_processor_with_avx512(machine, embedded):
    machine.cpu = evolve(machine.cpu, instruction_sets=(*embedded.cpu_features, "AMX_INT8"))
    machine.engine = evolve(machine.engine, installation=embedded)
    found = machine.only("llamacpp-build-features")
    assert found.statement.startswith("The embedded llama.cpp was built without AMX_INT8")


def test_a_generic_build_is_the_worst(machine):
    generic = evolve(machine.engine.installation, cpu_features=("SSE3",))
    machine.engine = evolve(machine.engine, installation=generic)
    found = machine.only("llamacpp-build-features")
    assert found.cost.source == "nixpkgs issue 518204"
    assert "AVX2, F16C and FMA" in found.statement


def test_an_arm_build_without_dot_products(machine):
    machine.cpu = evolve(machine.cpu, instruction_sets=("NEON", "DOTPROD", "SVE"))
    plain = evolve(machine.engine.installation, cpu_features=("NEON", "ARM_FMA"))
    machine.engine = evolve(machine.engine, installation=plain)
    assert "without DOTPROD" in machine.only("llamacpp-build-features").statement


def test_sets_that_come_with_others_are_not_missed(machine):
    sets = (*machine.cpu.instruction_sets, "AVX512_VBMI", "AVX_VNNI", "BMI2", "SSSE3")
    machine.cpu = evolve(machine.cpu, instruction_sets=sets)
    assert machine.findings() == []


def test_a_build_that_does_not_tell_is_not_judged(machine):
    silent = evolve(machine.engine.installation, cpu_features=())
    machine.engine = evolve(machine.engine, installation=silent)
    assert machine.findings() == []
    assert "does not tell" in machine.unseen()["llamacpp-build-features"]


def better(machine):
    other = Installation(
        backend="llamacpp", kind="binary", location="/opt/native/llama-server", cpu_features=FULL
    )
    machine.cpu = evolve(machine.cpu, instruction_sets=FULL)
    machine.engine = evolve(machine.engine, others=(other,))
    return other


def test_another_build_that_has_them_is_named(machine):
    better(machine)
    found = machine.only("llamacpp-build-features")
    assert "-X server=/opt/native/llama-server" in found.advice
    assert "--measure" in found.advice


def comparison(verdict, ratio, low, high):
    return Comparison(
        baseline="used",
        changed="other",
        workload="short",
        concurrency=1,
        metric="total_ms",
        higher_is_better=False,
        because=Because.INTERVAL,
        margin=0.02,
        confidence=0.95,
        verdict=verdict,
        why="",
        speed_ratio=ratio,
        low=low,
        high=high,
        pairs=tuple(Pair(block=block, baseline=2, changed=1) for block in range(6)),
    )


@pytest.fixture
def measurable(machine, backend, demo, monkeypatch):
    other = better(machine)
    settings = backend.current(machine.engine.installation, demo, {})
    machine.engine = evolve(machine.engine, model=demo, settings=settings)
    real = engines.build_of
    used = machine.engine.installation
    monkeypatch.setattr(
        "velollm_llamacpp.backend._engine",
        lambda installation: real(used if installation == other else installation),
    )
    return machine


def test_what_was_measured_here_is_said_instead_of_what_is_cited(measurable):
    asked = []

    def compare(baseline, changed):
        asked.extend((baseline, changed))
        return (comparison(Verdict.FASTER, 1.42, 1.38, 1.46),)

    measurable.compare = compare
    found = measurable.only("llamacpp-build-features")
    assert found.cost.basis == "measured"
    assert "short 1.42 (1.38 to 1.46, 6 pairs: faster)" in found.cost.text
    assert found.costs_speed
    assert [arm.installation.location for arm in asked][1] == "/opt/native/llama-server"
    assert str(measurable.engine.model.path.parent) not in found.cost.source


def test_a_build_that_is_measured_to_be_no_slower_costs_no_speed(measurable):
    measurable.compare = lambda *_: (comparison(Verdict.NO_DIFFERENCE, 1.0, 0.99, 1.01),)
    found = measurable.only("llamacpp-build-features")
    assert not found.costs_speed
    assert "no difference" in found.cost.text


def test_a_measurement_that_does_not_decide_refutes_nothing(measurable):
    measurable.compare = lambda *_: (
        comparison(Verdict.NO_DIFFERENCE, 1.0, 0.99, 1.01),
        comparison(Verdict.INCONCLUSIVE, 1.1, 0.9, 1.3),
    )
    assert measurable.only("llamacpp-build-features").costs_speed


@pytest.mark.engine
def test_measuring_runs_both_builds_in_turn_and_keeps_it_in_the_journal(
    machine, embedded, demo, tmp_path, monkeypatch
):
    from velollm_core.cli import doctor, measure
    from velollm_core.cli.state import State

    monkeypatch.setattr(doctor, "_PAIRS", 1)
    monkeypatch.setattr(doctor, "_WORKLOADS", {"short": 0})
    monkeypatch.setattr(measure, "spoilers", lambda *_: ())  # other tests may be at work
    state = State()
    state.environ = {**os.environ, "VELOLLM_DATA_DIR": str(tmp_path)}
    missing = evolve(embedded, cpu_features=("SSE3",))
    machine.cpu = evolve(machine.cpu, instruction_sets=("AVX2",))
    machine.engine = evolve(machine.engine, installation=missing, others=(embedded,), model=demo)
    machine.compare = doctor._comparing(state)
    found = machine.only("llamacpp-build-features")
    assert found.cost.text.startswith("times as fast with the other build: short inconclusive")
    (run,) = state.journal.runs()
    assert (run.trials, run.failed) == (2, 0)


def test_what_cannot_be_measured_stays_cited_with_the_reason(measurable):
    def compare(*_):
        raise Unsettled("this machine is not at rest: a battery.")

    measurable.compare = compare
    found = measurable.only("llamacpp-build-features")
    assert found.cost.basis == "cited"
    assert "not at rest" in found.cost.text
    assert found.costs_speed


def test_ctrl_c_while_measuring_ends_the_command(measurable):
    def compare(*_):
        raise Interrupted("stopped.")

    measurable.compare = compare
    with pytest.raises(Interrupted):
        measurable.diagnosis()


def test_a_graphics_card_that_the_build_cannot_use(machine):
    card = GpuInfo(
        uuid="GPU-1",
        vendor="nvidia",
        name="NVIDIA GeForce RTX 4090",
        memory_total_bytes=24 * GIB,
        memory_bandwidth_bytes_per_s=1.008e12,
    )
    machine.gpus = (card,)
    assert "RTX 4090, 1008 GB/s" in machine.only("llamacpp-build-without-gpu").evidence
    machine.environ["CUDA_VISIBLE_DEVICES"] = ""
    assert machine.findings() == []


def test_a_card_that_is_not_worth_it(machine):
    small = GpuInfo(uuid="1", vendor="nvidia", name="GT 710", memory_total_bytes=2 * GIB)
    shared = GpuInfo(
        uuid="2", vendor="amd", name="iGPU", memory_total_bytes=16 * GIB, unified_memory=True
    )
    machine.gpus = (small, shared, GpuInfo(uuid="3", vendor="intel", name="UHD 770"))
    assert machine.findings() == []


def test_without_llamacpp_nothing_is_judged(machine):
    machine.engine = None
    machine.environ["LLAMA_ARG_NONSENSE"] = "1"
    assert machine.findings() == []
    assert "llamacpp-unread-variables" in machine.unseen()


# Settings


def test_a_variable_that_no_flag_reads(machine):
    machine.environ |= {"LLAMA_ARG_CTXSIZE": "4096", "LLAMA_ARG_THREADS": "4"}
    found = machine.only("llamacpp-unread-variables")
    assert "LLAMA_ARG_CTXSIZE" in found.statement
    assert found.advice == "Did you mean LLAMA_ARG_CTX_SIZE?"
    assert not found.costs_speed


def test_a_variable_that_has_been_removed(machine):
    machine.environ["LLAMA_ARG_DRAFT_MAX"] = "8"
    found = machine.only("llamacpp-unread-variables")
    assert found.cost.text == "llama-server does not start"
    assert "use --spec-draft-n-max" in found.advice


@pytest.mark.parametrize(
    ("text", "cost"),
    [("32k", "llama.cpp takes it for 32"), ("many", "llama-server does not start")],
)
def test_a_number_that_is_misread(machine, text, cost):
    machine.environ["LLAMA_ARG_CTX_SIZE"] = text
    assert machine.only("llamacpp-malformed-values").cost.text == cost


@pytest.mark.parametrize("text", ["4096", " 4096", "0"])
def test_a_number_that_is_one(machine, text):
    machine.environ["LLAMA_ARG_CTX_SIZE"] = text
    assert machine.findings() == []


def test_a_configuration_file_that_changes_every_server(machine):
    machine.plant("/home/somebody/.config/llama.cpp/config.ini", "[*]\nctx-size = 4096\n")
    found = machine.only("llamacpp-configuration-files")
    assert found.statement.startswith("~/.config/llama.cpp/config.ini changes every llama-server")
    assert found.evidence == "it sets ctx-size"


def test_a_contradictory_configuration_file(machine):
    machine.plant("/etc/llama.cpp/config.ini", "[*]\nthreads = 4\n")
    machine.environ["LLAMA_ARG_THREADS"] = "6"
    codes = [code for code, _ in machine.findings()]
    assert codes == ["llamacpp-overridden-settings", "llamacpp-configuration-files"]
    found = machine.findings()[0][1]
    assert found.evidence.startswith("4 (")
    assert found.evidence.endswith("6 (environment LLAMA_ARG_THREADS)")
    assert found.cost.text == "6 counts, the others do nothing"


def test_of_a_key_that_is_set_twice_only_the_places_are_told(machine):
    machine.plant("/home/somebody/.config/llama.cpp/config.ini", "[*]\napi-key = sk-SECRET-1\n")
    machine.environ["LLAMA_API_KEY"] = "sk-SECRET-2"
    (code, found), _ = machine.findings()
    assert code == "llamacpp-overridden-settings"
    assert "environment LLAMA_API_KEY" in found.evidence
    assert found.cost.text == "environment LLAMA_API_KEY counts, the others do nothing"
    assert "SECRET" not in dumps(KIND, MAJOR, machine.diagnosis())


def test_the_same_value_twice_is_no_contradiction(machine):
    machine.plant("/etc/llama.cpp/config.ini", "[*]\nthreads = 4\n")
    machine.environ["LLAMA_ARG_THREADS"] = "4"
    assert machine.only("llamacpp-configuration-files")


def test_two_words_for_one_thing_are_no_contradiction(machine):
    machine.plant("/etc/llama.cpp/config.ini", "[*]\nflash-attn = on\n")
    machine.environ["LLAMA_ARG_FLASH_ATTN"] = "1"
    assert machine.only("llamacpp-configuration-files")


def test_a_configuration_file_that_cannot_be_read(machine):
    machine.plant("/home/somebody/.config/llama.cpp/config.ini", "[*\nx\n")
    found = machine.only("llamacpp-configuration-files")
    assert found.cost.text == "llama-server does not start"
    assert set(machine.unseen()) == {"llamacpp-malformed-values", "llamacpp-overridden-settings"}


def test_a_key_that_nothing_knows(machine):
    machine.plant("/home/somebody/.config/llama.cpp/config.ini", "[*]\nnonsense = 1\n")
    assert "nonsense" in machine.only("llamacpp-configuration-files").statement


# Commands


def test_flags_of_another_day_in_a_script(machine):
    machine.script("llama-server -m x.gguf -fa --draft-max 8 --mlock -c 4096\n")
    statements = [finding.statement for _, finding in machine.findings()]
    assert {code for code, _ in machine.findings()} == {"llamacpp-stale-flags"}
    assert statements == [
        "llama-server does not take -fa without a value.",
        "llama-server does not take --draft-max: it has been removed.",
        "llama-server does not take --mlock.",
    ]


def test_a_script_that_is_all_right(machine):
    machine.script('exec llama-server -m "$MODEL" -fa on -c 4096 -t 8 "$@" 2>&1 | tee log\n')
    assert machine.findings() == []


def test_the_wheel_alone_cannot_judge_a_script(machine, embedded):
    machine.engine = evolve(machine.engine, installation=embedded)
    machine.cpu = evolve(machine.cpu, instruction_sets=())
    machine.script("llama-server --mlock\n")
    assert machine.findings() == []
    assert "no llama-server here" in machine.unseen()["llamacpp-stale-flags"]


def test_no_key_in_a_command_is_told(machine):
    machine.script("llama-server --api-key=sk-SECRET --api-key -sk-SECRET --hf-tokn=hf_SECRET\n")
    machine.run("llama-server -t 16 --api-key sk-SECRET")
    text = dumps(KIND, MAJOR, machine.diagnosis())
    assert "Write --api-key VALUE." in text
    assert "--hf-tokn" in text
    assert "running server" in text
    assert "SECRET" not in text


def test_a_script_for_another_build_is_not_judged_by_this_one(machine):
    machine.script("/opt/old/llama-server --mlock\n")
    assert machine.findings() == []
    assert "another llama-server" in machine.unseen()["llamacpp-stale-flags"]
    machine.script(f"{shlex.quote(machine.engine.installation.location)} --mlock\n")
    assert machine.only("llamacpp-stale-flags")


def test_a_unit_of_systemd(machine):
    machine.plant(
        "/etc/systemd/system/llm.service",
        "[Service]\nEnvironment=LLAMA_ARG_TREADS=4\nExecStart=-llama-server --mlock \\\n  -c 1\n",
    )
    (variable, stale) = machine.findings()
    assert [variable[0], stale[0]] == ["llamacpp-unread-variables", "llamacpp-stale-flags"]
    assert variable[1].evidence.startswith("/etc/systemd/system/llm.service, line 2: LLAMA_ARG_TR")
    assert stale[1].evidence.startswith("/etc/systemd/system/llm.service, line 3;")


@pytest.mark.parametrize("threads", ["-1", "0", "16"])
def test_every_hardware_thread_in_a_running_server(machine, threads):
    machine.run(f"/opt/llama-server -m x.gguf -t {threads}")
    found = machine.only("llamacpp-command-threads")
    assert found.costs_speed
    assert "running server (process 7)" in found.evidence


@pytest.mark.parametrize("words", ["-t 8", "--threads 4", "-m x", '-t "$N"', "-tb 16"])
def test_threads_that_the_cores_can_bear(machine, words):
    machine.script(f"llama-server {words}\n")
    machine.run(f"llama-server {words}")
    assert "llamacpp-command-threads" not in {code for code, _ in machine.findings()}


def test_an_underscore_is_a_hyphen_to_llamacpp(machine):
    machine.script("llama-server --ctx_size 1 --load_mode mlock --threads_ 4\n")
    assert "--threads-" in machine.only("llamacpp-stale-flags").statement
    machine.scripts = ()
    machine.run("llama-server --threads_batch 16 --threads 16")
    assert machine.only("llamacpp-command-threads")
    (found,) = sources.arguments(recorded_flags(), ["--no_repack"], "")
    assert found.text == "off"


def test_what_a_substitution_gives_is_not_known_but_what_follows_is_looked_at(machine):
    machine.script('llama-server -t $(nproc) -c "$(cat "$A")" --mlock\n')
    assert "--mlock" in machine.only("llamacpp-stale-flags").statement


def test_a_server_of_the_shell_s_home_is_found(backend, program, monkeypatch):
    path = program(SERVER)
    monkeypatch.setenv("HOME", str(path.parent.parent))
    (found,) = backend.probe({"server": f"~/{path.parent.name}/llama-server"}, os.environ)
    assert found.location == str(path)


def commands(text):
    return [entry.arguments for entry in of_script(text, "x") if isinstance(entry, Command)]


@pytest.mark.parametrize(
    "text",
    [
        "llama-server -c 1",
        "/usr/bin/llama-server -c 1 &",
        "A=b C='d e' llama-server -c 1  # -c 2",
        "cd /x && nohup llama-server -c 1 > log 2>&1 &",
        "sudo -u llm taskset -c 0-3 llama-server -c 1; echo done",
        "if true; then exec llama-server \\\n -c \\\n 1; fi",
        "sh -c 'llama-server -c 1'",
        'env A=b "llama-server" "-c" 1',
        "(llama-server -c 1)",
        "sudo --user=llm -Eu llm nohup env -i A=b nice -n 5 llama-server -c 1",
        "numactl --membind 0 -C0-3 llama-server -c 1",
        "chrt --rr 10 taskset -c 0-3 llama-server -c 1",
        "sudo -- llama-server -c 1",
        "sudo sh -c 'llama-server -c 1'",
        "X=$(nproc) llama-server -c 1",
        "`which nice` x; llama-server -c 1 -t `nproc`",
        "N=$(( $(nproc) / 2 )); llama-server -c 1",
        "$(dirname $0)/llama-server -c 1",
        "cat <<EOF\nllama-server --mlock\nEOF\nllama-server -c 1",
        "cat <<-'E' > x\nllama-server --mlock\n\tE\nllama-server -c 1",
        "x=$((1<<2))\nllama-server -c 1",
        "# cat <<EOF\nllama-server -c 1\necho <<EOF\nEOF",
    ],
)
def test_a_command_is_found_as_a_shell_would_read_it(text):
    (found,) = commands(text)
    assert [word for word in found if word != "2"][:2] == ["-c", "1"]


@pytest.mark.parametrize(
    "text",
    [
        "# llama-server --mlock",
        "echo llama-server --mlock",
        "pkill -f llama-server -9",
        "if pgrep llama-server -a; then",
        "systemctl stop llama-server --now",
        "docker run --rm image llama-server --mlock",
        "echo 'not ended llama-server --mlock",
        "llama-cli --mlock",
        "SERVER=llama-server",
        "sudo journalctl -u llama-server -f",
        "sudo systemctl restart llama-server --no-block",
        "sudo apt-get install llama-server --yes",
        "sudo docker run image llama-server --foo",
        "sudo -u llama-server whoami --mlock",
        "command -v llama-server --mlock",
        "cat <<EOF\nllama-server --mlock\nEOF",
        "llama-server " + "x" * 65536,
        "",
    ],
)
def test_what_starts_no_server_here_is_passed_over(text):
    assert commands(text) == []


def test_a_hostile_script_takes_no_time():
    started = time.perf_counter()
    for text in ("=" * (1 << 16), "sudo " * (1 << 17), "=<<A\n" * (1 << 16), "=$(" * (1 << 14)):
        assert commands(text) == []
    assert commands("a \\\n" * (1 << 18)) == []
    assert time.perf_counter() - started < 20


def test_variables_are_found_where_they_are_set():
    text = (
        "export LLAMA_ARG_A=1 B\nLLAMA_ARG_C='x y' llama-server\nenv LLAMA_ARG_D=2 make\necho E=1\n"
    )
    found = [entry for entry in of_script(text, "x") if isinstance(entry, Assignment)]
    assert [(entry.name, entry.value) for entry in found] == [
        ("LLAMA_ARG_A", "1"),
        ("LLAMA_ARG_C", "x y"),
        ("LLAMA_ARG_D", "2"),
    ]
    unit = of_unit('Environment="A=1 2" B=3\n', "x")
    assert [(entry.name, entry.value) for entry in unit] == [("A", "1 2"), ("B", "3")]


def test_each_kind_of_fault_is_told_with_what_to_do():
    told = dict(faults(["--ctx-size=1", "-fa", "--mlok-all", "-c", "-1", "--draft", "3"], FLAGS))
    assert told == {
        "--ctx-size=...: a value stands behind a space": "Write --ctx-size VALUE.",
        "-fa without a value": "Give it one, one of on, off, auto.",
        "--mlok-all": "Look for its new name in llama-server --help, or leave it out. "
        "Its spelling may be --mlock-all now.",
        "--draft: it has been removed": "Use --spec-draft-n-max or --spec-ngram-mod-n-max.",
    }


def test_no_flag_that_the_recorded_build_takes_is_a_fault():
    flags = recorded_flags()
    for flag in flags.entries:
        for name in flag.names:
            words = [name, "1"] if flag.takes_value else [name]
            assert list(faults(words, flags)) == []


def test_a_native_server_refuses_what_doctor_says_it_refuses(native):
    build = engines.build_of(native)
    for words in (["--ctx-size=1"], ["-fa", "--port", "0"], ["--no-such-flag"]):
        assert list(faults(words, build.flags))
        done = execute((native.location, *words), 10, dict(os.environ))
        assert done.code != 0
        assert "error" in done.err + done.out
