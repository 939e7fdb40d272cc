"""Nothing leaves its quotes: what was written is what a real reader reads, and no more."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from velollm_core.backends import quoting
from velollm_core.errors import UsageError

FORMS = ("sh", "fish", "powershell", "systemd", "ini", "yaml", "compose", "modelfile")
HOSTILE = [
    "",
    "'; touch owned; '",
    '"; touch owned; "',
    "$(touch owned)",
    "`touch owned`",
    "${HOME} $HOME ~ %h %% %",
    "=ls:=ls",
    "a\\",
    "\\'",
    "\\\\' (touch owned) '",
    "'\"'\"'",
    '"""',
    '""',
    "-n",
    "line\nbreak",
    "return\r\nbreak",
    "tab\tand\x1b[31m",
    "# comment ; comment",
    "[section]",
    "\u2018 \u2019 \u201a \u201b; calc",
    "\u0192\u2019",  # in code page 1252 its bytes are those of a typographic quote
    "J\u00f6rg \u65e5\u672c \U0001f600",
    "\ufeff \u2028 \u2029 \u0085 \u00a0",
    "{a,b} * ? [a-z] ! ^ | & < > ( )",
]
# A NUL fits in no environment, and half of a surrogate pair in no file: a test of its own.
TEXTS = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    st.text("'\"\\$`%{}()#;=~!\n\t a\u2019", max_size=20),
)
BATCHES = st.lists(TEXTS, min_size=20, max_size=60)
few = settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"there is no {program} here")


def sayable(form, texts):
    kept = []
    for text in texts:
        try:
            kept.append((text, getattr(quoting, form)(text)))
        except UsageError:
            continue
    return kept


def run_with(argv, script, folder, environ=None):
    """What a shell prints, and that nothing else happened."""
    path = folder / "script"
    path.write_text(script, encoding="utf-8", newline="\n")
    environment = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [*argv, str(path)],
        capture_output=True,
        check=True,
        cwd=folder,
        env=environment | (environ or {}),
        timeout=60,
    )
    assert sorted(entry.name for entry in folder.iterdir()) == ["script"]
    assert done.stderr == b""
    return done.stdout


@pytest.mark.parametrize("shell", [pytest.param(s, marks=needs(s)) for s in ("bash", "sh", "zsh")])
@few
@example(texts=HOSTILE)
@given(texts=BATCHES)
def test_a_shell_that_sources_exports_gets_every_value_and_runs_nothing(shell, texts, tmp_path):
    words = sayable("sh", texts)
    assert len(words) == len(texts)
    exports = [f"export V{number}={word}" for number, (_, word) in enumerate(words)]
    shown = [f'printf "%s\\0" "$V{number}"' for number in range(len(words))]
    printed = run_with([shell], "\n".join(exports + shown), tmp_path)
    assert printed.decode().split("\0")[:-1] == texts


@needs("bash")
@few
@example(texts=HOSTILE)
@given(texts=BATCHES)
def test_a_shell_passes_every_word_of_a_command_on_as_it_is(texts, tmp_path):
    words = [word for _, word in sayable("sh", texts)]
    printed = run_with(["bash"], 'printf "%s\\0" ' + " \\\n  ".join(words), tmp_path)
    assert printed.decode().split("\0")[:-1] == texts


@needs("fish")
@settings(few, max_examples=3)
@example(texts=HOSTILE)
@given(texts=BATCHES)
def test_fish_sets_every_value_and_runs_nothing(texts, tmp_path):
    words = sayable("fish", texts)
    assert len(words) == len(texts)
    exports = [f"set -gx V{number} {word}" for number, (_, word) in enumerate(words)]
    shown = [f'printf "%s\\0" "$V{number}"' for number in range(len(words))]
    printed = run_with(["fish", "--no-config"], "\n".join(exports + shown), tmp_path)
    assert printed.decode().split("\0")[:-1] == texts


@needs("pwsh")
@settings(few, max_examples=2)
@example(texts=HOSTILE)
@given(texts=BATCHES)
def test_powershell_sets_every_value_and_runs_nothing(texts, tmp_path):
    words = sayable("powershell", texts)
    lines = [f"$env:V{number} = {word}" for number, (_, word) in enumerate(words)]
    lines += [
        f"[Convert]::ToHexString([Text.Encoding]::UTF8.GetBytes([string]$env:V{number}))"
        for number in range(len(words))
    ]
    argv = ["pwsh", "-NoProfile", "-NonInteractive", "-File"]
    printed = run_with(argv, "\n".join(lines), tmp_path, {"POWERSHELL_TELEMETRY_OPTOUT": "1"})
    assert [bytes.fromhex(line).decode() for line in printed.decode().splitlines()] == texts


@given(text=TEXTS)
def test_powershell_gets_one_ascii_expression_that_amounts_to_the_text(text):
    """By its grammar: in single quotes only a quote is special, and two of them mean one."""
    word = quoting.powershell(text)
    literal, char = r"'(?:[^'\n]|'')*'", r"\[char\]\d{1,5}"
    assert word.isascii()
    assert re.fullmatch(rf"{literal}|\({literal}(?: \+ (?:{literal}|{char}))*\)", word)
    units = b""
    for part in re.findall(rf"{literal}|{char}", word):
        if part.startswith("'"):
            units += part[1:-1].replace("''", "'").encode("utf-16-le")
        else:
            units += int(part.removeprefix("[char]")).to_bytes(2, "little")
    assert units.decode("utf-16-le") == text


SYSTEMD = Path("/usr/lib/systemd/systemd")
UNIT = """[Service]
Type=oneshot
ExecStart=/bin/true
"""
TARGET = """[Unit]
DefaultDependencies=no
Wants=quoted.service
"""


@pytest.mark.skipif(not SYSTEMD.exists(), reason="there is no systemd here")
@settings(few, max_examples=4)
@example(texts=HOSTILE)
@given(texts=BATCHES)
def test_systemd_reads_every_value_as_one_assignment(texts):
    """Its own manager reads the unit and prints what it made of it; it starts nothing."""
    words = sayable("systemd", [f"V{number}={text}" for number, text in enumerate(texts)])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        units = folder / "units"
        units.mkdir()
        lines = [f"Environment={word}" for _, word in words]
        (units / "quoted.service").write_text(UNIT + "\n".join(lines) + "\n", encoding="utf-8")
        for target in ("default", "basic", "sysinit", "shutdown"):
            (units / f"{target}.target").write_text(TARGET if target == "default" else "[Unit]\n")
        nobody = {}
        if os.geteuid() == 0:  # which it refuses to run as in this mode
            nobody = {"user": 65534, "extra_groups": []}
            for path in (folder, units):
                path.chmod(0o755)
            os.chown(folder, 65534, 65534)
        done = subprocess.run(
            [SYSTEMD, "--user", "--test", "--no-pager"],
            capture_output=True,
            check=False,
            env={
                "PATH": os.environ["PATH"],
                "HOME": "/nowhere",
                "XDG_RUNTIME_DIR": name,
                "SYSTEMD_UNIT_PATH": str(units),
            },
            timeout=60,
            **nobody,
        )
    printed = done.stdout.decode()
    if "Environment: " not in printed:
        pytest.skip(f"systemd does not show units here: {done.stderr.decode()[-200:]}")
    found = re.findall(r"^\t*Environment: (.*)$", printed, re.MULTILINE)
    assert sorted(found) == sorted(text for text, _ in words)


@needs("systemd-analyze")
def test_systemd_finds_nothing_wrong_with_a_hostile_unit(tmp_path):
    words = sayable("systemd", [f"V{number}={text}" for number, text in enumerate(HOSTILE)])
    unit = tmp_path / "quoted.service"
    lines = [f"Environment={word}" for _, word in words]
    unit.write_text(UNIT + "\n".join(lines) + "\n", encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, check=False, timeout=60
    )
    assert b"quoted.service" not in done.stderr


@given(text=TEXTS)
def test_a_value_of_a_configuration_file_is_read_back_or_refused(text):
    try:
        word = quoting.ini(text)
    except UsageError:
        assert not text or text != text.strip(" ") or re.search("[;#\x00-\x1f\x7f-\x9f]", text)
        return
    # The grammar of common/preset.cpp: up to a comment or the end of the line, less white space.
    line = f"key = {word}\n"
    found = re.fullmatch(r"[a-z]+[ \t]*=[ \t]*((?:(?![ \t]*(?:[;#]|[\r\n])).)*)\n", line, re.DOTALL)
    assert found
    assert found.group(1) == text
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.read_string(f"[default]\n{line}other = 1\n")
    assert dict(parser["default"]) == {"key": text.strip(), "other": "1"}


@given(text=TEXTS)
def test_yaml_reads_every_scalar_back(text):
    yaml = pytest.importorskip("yaml")
    document = f"services:\n  - {quoting.yaml(text)}\n  - last\n"
    assert yaml.safe_load(document) == {"services": [text, "last"]}


@given(text=TEXTS)
def test_compose_replaces_no_variable_in_a_scalar(text):
    yaml = pytest.importorskip("yaml")
    scalar = yaml.safe_load(quoting.compose(text))
    assert re.sub(r"\$\$", "", scalar).count("$") == 0
    assert scalar.replace("$$", "$") == text


def read_modelfile(source):
    """The values in a Modelfile, by the rules of Ollama's parser/parser.go."""
    values, value = [], None
    for line in source.split("\n"):
        value = line.partition(" ")[2] if value is None else f"{value}\n{line}"
        stripped = value.strip()
        if stripped.startswith('"""'):
            closed, edge = len(stripped) >= 6 and stripped.endswith('"""'), 3
        elif stripped.startswith('"'):
            closed, edge = len(stripped) >= 2 and stripped.endswith('"'), 1
        else:
            closed, edge = True, 0
        if closed:
            values.append(stripped[edge : len(stripped) - edge])
            value = None
    assert value is None
    return values


@example(texts=HOSTILE)
@given(texts=BATCHES)
def test_a_modelfile_is_read_back_line_by_line(texts):
    words = sayable("modelfile", texts)
    source = "\n".join(f"SYSTEM {word}" for _, word in words)
    assert read_modelfile(source) == [text for text, _ in words] or not words


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", ["a\0b", "half \ud800 a pair"])
def test_what_no_form_can_say_is_refused_in_a_sentence(form, text):
    with pytest.raises(UsageError, match=r"cannot be written in .* it holds"):
        getattr(quoting, form)(text)


@pytest.mark.parametrize("form", ["systemd", "ini", "modelfile"])
@pytest.mark.parametrize("char", ["\n", "\r", "\x1b", "\x7f", "\x85"])
def test_a_line_ends_where_its_form_says(form, char):
    with pytest.raises(UsageError, match="another form"):
        getattr(quoting, form)(f"before{char}after")


@pytest.mark.parametrize("form", ["sh", "fish", "ini", "modelfile"])
def test_plain_values_stay_readable(form):
    for text in ("2", "q8_0", "127.0.0.1:11434", "/models/a-b.gguf", "mmap+mlock"):
        assert getattr(quoting, form)(text) == text
