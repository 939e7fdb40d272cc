"""Where a user's own settings of Ollama stand: shell, systemd, launchd, Docker, a running server.

They are read and never run. The values are kept as they are written, with the place.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping

from attrs import frozen

from velollm_core.backends import ini
from velollm_core.hardware.probe import Probe

UNIT = "ollama.service"
DROP_INS = f"{UNIT}.d"
_SYSTEM = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
_USER = (
    "~/.config/systemd/user",
    "/etc/systemd/user",
    "/run/systemd/user",
    "~/.local/share/systemd/user",
    "/usr/local/lib/systemd/user",
    "/usr/lib/systemd/user",
)
LLAMA_CONFIG = "/etc/llama.cpp/config.ini"
"""llama.cpp's configuration file of the machine, which every ``llama-server`` reads."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PUBLISHED = re.compile(r":(\d{1,5})(?:-(\d{1,5}))?->", re.ASCII)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|[0-7]{3}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_LETTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "s": " ", "t": "\t", "v": "\v"}


@frozen
class Variable:
    """A variable of the environment: its text as written, and where."""

    name: str
    text: str
    origin: str


@frozen(kw_only=True)
class Unit:
    """Ollama's unit of systemd, the drop-ins included.

    ``own`` says that it is one of the user's own, ``folder`` is where a drop-in of the user's or
    the administrator's goes. ``files`` are the ``EnvironmentFile`` that win over ``Environment``.
    """

    own: bool
    folder: str
    variables: tuple[Variable, ...] = ()
    files: tuple[str, ...] = ()


def shell(environ: Mapping[str, str]) -> tuple[Variable, ...]:
    """The variables of this shell."""
    return tuple(
        Variable(name, text, f"environment {name}") for name, text in sorted(environ.items())
    )


def units(probe: Probe) -> tuple[Unit, ...]:
    """The units that would run Ollama here, the user's own first."""
    if probe.system != "Linux":
        return ()
    home = probe.environ.get("HOME", "").rstrip("/")
    own = [folder.replace("~", home, 1) for folder in _USER if home or not folder.startswith("~")]
    found = (_unit(probe, own, own=True), _unit(probe, list(_SYSTEM), own=False))
    return tuple(unit for unit in found if unit is not None)


def _unit(probe: Probe, folders: list[str], *, own: bool) -> Unit | None:
    main = next((path for f in folders if probe.exists(path := f"{f}/{UNIT}")), None)
    if main is None:
        return None
    drop_ins = {
        name: f"{folder}/{DROP_INS}/{name}"
        for folder in reversed(folders)
        for name in probe.names(f"{folder}/{DROP_INS}")
        if name.endswith(".conf")
    }
    variables: dict[str, Variable] = {}
    files: list[str] = []
    unset: set[str] = set()
    for path in (main, *(drop_ins[name] for name in sorted(drop_ins))):
        for key, value in service_lines(probe.read(path) or ""):
            if key == "Environment":
                if not value:
                    variables.clear()
                variables |= {v.name: v for v in _assigned(split(value), shown(probe, path))}
            elif key == "EnvironmentFile":
                files = [*files, value.lstrip("-")] if value else []
            elif key == "UnsetEnvironment":
                unset = unset.union(split(value)) if value else set()
    for path in files:
        read = environment_file(probe.read(path) or "", shown(probe, path))
        variables |= {variable.name: variable for variable in read}
    return Unit(
        own=own,
        folder=f"{folders[0]}/{DROP_INS}",
        variables=tuple(v for v in variables.values() if v.name not in unset),
        files=tuple(files),
    )


def shown(probe: Probe, path: str) -> str:
    """``path`` without the name of a home."""
    home = probe.environ.get("HOME", "").rstrip("/")
    return f"~{path.removeprefix(home)}" if home and path.startswith(f"{home}/") else path


def service_lines(text: str) -> Iterator[tuple[str, str]]:
    """Keys and values in the section ``[Service]`` of a unit, in their order."""
    section = ""
    for line in _logical_lines(text):
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line:
            key, _, value = line.partition("=")
            yield key.strip(), value.strip()


def _logical_lines(text: str) -> Iterator[str]:
    """Lines without comments, those that a backslash continues put together."""
    pending = ""
    for line in text.split("\n"):
        if line.lstrip().startswith(("#", ";")):
            continue
        joined = pending + line.strip()
        if joined.endswith("\\"):
            pending = joined[:-1] + " "
            continue
        pending = ""
        if joined:
            yield joined
    if pending.strip():
        yield pending.strip()


def split(text: str) -> list[str]:
    """The words of a value as systemd takes them apart (``man systemd.syntax``); none where a quote
    does not end.
    """
    words: list[str] = []
    word: str | None = None
    quote = ""
    position = 0
    while position < len(text):
        char = text[position]
        escape = _ESCAPE.match(text, position)
        if escape:
            word = (word or "") + _unescaped(escape[1])
            position = escape.end()
            continue
        position += 1
        if quote:
            if char == quote:
                quote = ""
            else:
                word = (word or "") + char
        elif char in "\"'":
            quote, word = char, word or ""
        elif char.isspace():
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + char
    if quote:
        return []
    return words if word is None else [*words, word]


def _unescaped(code: str) -> str:
    if code[0] in "xuU" and len(code) > 1:
        return _character(int(code[1:], 16))
    if len(code) > 1:
        return _character(int(code, 8))
    return _LETTERS.get(code, code)


def _character(number: int) -> str:
    return chr(number) if number <= 0x10FFFF else ""


def unit_environment(text: str, origin: str) -> Iterator[Variable]:
    """What one file of a unit sets with ``Environment``."""
    for key, value in service_lines(text):
        if key == "Environment":
            yield from _assigned(split(value), origin)


def _assigned(words: Iterable[str], origin: str) -> Iterator[Variable]:
    for word in words:
        name, mark, text = word.partition("=")
        if mark and _NAME.fullmatch(name):
            yield Variable(name, text.replace("%%", "%"), origin)


def environment_file(text: str, origin: str) -> Iterator[Variable]:
    """What an ``EnvironmentFile`` of systemd sets."""
    for line in _logical_lines(text):
        name, mark, value = line.partition("=")
        value = value.strip()
        if value.startswith(('"', "'")):
            try:
                value = "".join(shlex.split(value)[:1])
            except ValueError:
                continue
        if mark and _NAME.fullmatch(name.strip()):
            yield Variable(name.strip(), value, origin)


def launchd(probe: Probe, names: Iterable[str]) -> tuple[Variable, ...]:
    """Those of ``names`` that ``launchctl setenv`` has set for programs of the desktop (macOS)."""
    if probe.system != "Darwin":
        return ()
    asked = tuple(names)
    answers = probe.run_all(*(("launchctl", "getenv", name) for name in asked), quiet=True)
    return tuple(
        Variable(name, answer.strip(), f"launchctl getenv {name}")
        for name, answer in zip(asked, answers, strict=True)
        if answer and answer.strip()
    )


def running(probe: Probe, pid: int) -> Mapping[str, str] | None:
    """The environment of a process, ``None`` where it may not be seen."""
    if probe.system != "Linux":
        import psutil

        return probe.bounded("environment of Ollama", lambda: psutil.Process(pid).environ())
    content = probe.read_bytes(f"/proc/{pid}/environ")
    return _pairs(content.decode("utf-8", "replace").split("\0")) if content else None


def container(probe: Probe, port: int) -> str | None:
    """The container that publishes something at ``port`` of this machine, as Docker tells it."""
    listed = probe.run("docker", "ps", "--format", "{{.ID}} {{.Ports}}", quiet=True) or ""
    rows = (line.partition(" ") for line in listed.splitlines())
    found = [name for name, _, ports in rows if _publishes(ports, port)]
    return found[0] if len(found) == 1 else None


def _publishes(ports: str, port: int) -> bool:
    """Whether ``0.0.0.0:11434->11434/tcp, [::]:8000-8010->8000-8010/tcp`` has the port of the
    machine.
    """
    ranges = (range(int(low), int(high or low) + 1) for low, high in _PUBLISHED.findall(ports))
    return any(port in ports for ports in ranges)


def docker(probe: Probe, port: int) -> tuple[Variable, ...]:
    """The environment of the container that publishes ``port``, as Docker tells it."""
    name = container(probe, port)
    if name is None:
        return ()
    told = probe.run("docker", "inspect", "--format", "{{json .Config.Env}}", name) or ""
    try:
        entries = json.loads(told)
    except ValueError:
        return ()
    texts = entries if isinstance(entries, list) else []
    pairs = _pairs(text for text in texts if isinstance(text, str))
    return tuple(Variable(key, text, f"container {name}") for key, text in pairs.items())


def _pairs(entries: Iterable[str]) -> dict[str, str]:
    split_up = (entry.partition("=") for entry in entries)
    return {name: text for name, mark, text in split_up if mark}


def parameters(text: str) -> dict[str, str]:
    """The parameters of a model as ``/api/show`` prints them; of a repeated one the last."""
    split_up = (line.split(maxsplit=1) for line in text.splitlines())
    return {words[0]: words[1].strip() for words in split_up if len(words) == 2}


def llama_config_of(environ: Mapping[str, str]) -> str:
    """llama.cpp's configuration file of the user whose environment this is."""
    folder = environ.get("XDG_CONFIG_HOME") or f"{environ.get('HOME', '').rstrip('/')}/.config"
    return f"{folder.rstrip('/')}/llama.cpp/config.ini"


def llama_config(probe: Probe, own: str | None) -> Iterator[Variable]:
    """What llama.cpp's configuration files say to a ``llama-server``, the stronger last: the user's
    file over the machine's, and in a file its section ``default``, or none, over ``*``.

    Args:
        probe: what they are read through.
        own: the file of the user that the server runs as, if it is known.
    """
    for path in (LLAMA_CONFIG, *((own,) if own is not None else ())):
        try:
            sections = ini.held((probe.read_bytes(path) or b"").decode("utf-8", "replace"))
        except ValueError:  # a llama-server would not start with it
            continue
        for section in ("*", "default"):
            for key, text in sorted(sections.get(section, {}).items()):
                yield Variable(key, text, shown(probe, path))
