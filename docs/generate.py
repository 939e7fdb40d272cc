"""Writes docs/reference/ from the code; with --check it only says what is out of date."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from attrs import evolve

from velollm_core import errors, hookspecs
from velollm_core.cli.app import COMMANDS, cli
from velollm_core.config import Knob, Role

REFERENCE = Path(__file__).parent / "reference"

ENVIRONMENT = {
    "VELOLLM_CACHE_DIR": "Folder of fetched models, instead of the platform's cache folder.",
    "VELOLLM_CONFIG_DIR": "Folder of `config.toml`, instead of the platform's own.",
    "VELOLLM_DATA_DIR": "Folder of the journal, of profiles, and of what `undo` takes back, "
    "instead of the platform's data folder.",
    "VELOLLM_DISABLE_PLUGINS": "Names of plugins, separated by commas, that are not loaded.",
    "VELOLLM_PLUGINS": "Names of plugins, separated by commas: only these, beside the core's own.",
    "VELOLLM_TRACEBACK": "Any value: an unexpected error shows where it arose.",
    "VELOLLM_TRACE_PLUGINS": "Any value: each call of a hook is told, with its time.",
}
"""Variables that belong to no option."""

HOOKS = """A plugin is a module named by an entry point of group `velollm`. It implements any of
these with `velollm_core.hookimpl`, and may take fewer arguments than a hook offers. This is set
{number}: a plugin may set `VELOLLM_HOOKS = {number}`, and is left out by a VeloLLM of another set.
[examples/velollm-echo](../../examples/velollm-echo) is a whole plugin."""

VARIABLES = """Each option of the command line can be given as a variable; the command line goes
first, then the variable, then `config.toml`. These belong to no option:"""

INDEX = """A knob is one thing that an engine lets you set. `velollm optimize` proposes values,
`velollm bench --set` and `--ab` try one. Rules and tuners go by what a knob is for, so that they
serve engines that they have never seen. What each knob takes, and whether an engine tells it back:
{pages}."""

READ_BACK = """`velollm bench --set KNOB=VALUE` changes one for a run. Read back is what a server
tells that VeloLLM has started."""

ARGUMENT = re.compile(r"^\s*(\w+): (.+)$")


def hooks() -> str:
    """Every hook: signature, contract, arguments."""
    parts = ["# Hooks", HOOKS.format(number=hookspecs.VELOLLM_HOOKS)]
    for name, function in members(hookspecs, inspect.isfunction, "velollm_"):
        signature = ", ".join(inspect.signature(function).parameters)
        parts += [f"## `{name}({signature})`", markdown(inspect.getdoc(function) or "")]
    return join(parts)


def error_classes() -> str:
    """Every class of error and its exit code."""
    parts = [
        "# Errors",
        "Every error that is shown is one of these.",
        "| class | exit code | meaning |\n|---|---|---|",
    ]
    for name, kind in members(errors, inspect.isclass):
        if issubclass(kind, errors.VeloError):
            summary = (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")
            parts[-1] += f"\n| `{name}` | {kind.exit_code} | {markdown(summary)} |"
    parts.append("A trial that fails is recorded with one of these, and the run goes on:")
    parts.append("\n".join(f"- `{kind.value}`" for kind in errors.FailureKind))
    return join(parts)


def environment() -> str:
    """Every environment variable."""
    parts = [
        "# Environment variables",
        VARIABLES,
        "| variable | meaning |\n|---|---|\n"
        + "\n".join(f"| `{name}` | {text} |" for name, text in sorted(ENVIRONMENT.items())),
        "These are options:",
        "| variable | option |\n|---|---|",
    ]
    rows = {}
    for path, command in commands():
        for option in options(command):
            variable = option.envvar or "_".join(["velollm", *path[1:], option.name or ""]).upper()
            rows.setdefault(str(variable), f"`{' '.join(path)} {option.opts[-1]}`")
    parts[-1] += "".join(f"\n| `{name}` | {text} |" for name, text in sorted(rows.items()))
    return join(parts)


def command_line() -> str:
    """The help of every command."""
    parts = ["# Command line"]
    for path, command in commands():
        context = click.Context(
            command,
            info_name=" ".join(path),
            auto_envvar_prefix="_".join(path).upper(),
            terminal_width=90,
            max_content_width=90,
        )
        parts += [f"## `{' '.join(path)}`", f"```\n{command.get_help(context)}\n```"]
    return join(parts)


def knob_index() -> str:
    """What each kind of knob is called by each backend."""
    tables = [table() for _, table in BACKENDS.values()]
    rows = [f"| what for | {' | '.join(title for title, _ in BACKENDS.values())} |"]
    rows.append("|---" * (len(BACKENDS) + 1) + "|")
    for role in Role:
        named = [
            ", ".join(f"`{knob.name}`" for knob in table if knob.role is role) for table in tables
        ]
        if any(named):
            rows.append(f"| {role.replace('_', ' ')} | {' | '.join(named)} |")
    pages = (f"[{title}](knobs-{name}.md)" for name, (title, _) in BACKENDS.items())
    return join(["# Knobs", INDEX.format(pages=", ".join(pages)), "\n".join(rows)])


def knob_page(title: str, table: Callable[[], tuple[Knob, ...]]) -> Callable[[], str]:
    """The knobs of a backend: what can be set, and what cannot be read back, with the reason."""

    def page() -> str:
        rows = ["| knob | takes | numerics | change | what it does | read back |", "|---" * 6 + "|"]
        for knob in table():
            takes = f"{knob.domain} {knob.unit or ''}".strip().replace("|", "\\|")
            back = f"no: {knob.unreadable}" if knob.unreadable else "yes"
            cells = (f"`{knob.name}`", takes, knob.numerics, knob.change, knob.summary, back)
            rows.append(f"| {' | '.join(cells)} |")
        return join(
            [
                f"# Knobs of {title}",
                READ_BACK,
                "\n".join(rows),
            ]
        )

    return page


def llamacpp_knobs() -> tuple[Knob, ...]:
    """All that VeloLLM knows, whatever a build lacks."""
    from velollm_llamacpp.knobs import KNOBS

    return KNOBS


def ollama_knobs() -> tuple[Knob, ...]:
    """The experimental group included; read back as from a server that VeloLLM starts."""
    from velollm_ollama.entries import ENTRIES
    from velollm_ollama.experimental import EXPERIMENTAL
    from velollm_ollama.readback import unreadable

    return tuple(
        evolve(entry.knob, unreadable=unreadable(entry.knob.name, seen=True, private=True))
        for entry in (*ENTRIES, *EXPERIMENTAL)
    )


def openai_knobs() -> tuple[Knob, ...]:
    """What a request can carry."""
    from velollm_openai.knobs import KNOBS

    return KNOBS


def checks() -> str:
    """Every check of ``velollm doctor``, by the plugin that brings it."""
    parts = [
        "# What doctor looks at",
        "`velollm doctor` asks all of these; [how to use it](../how-to/doctor.md).",
    ]
    for plugin, module in DIAGNOSES.items():
        offered = importlib.import_module(module).velollm_diagnose()
        rows = [f"| `{check.code}` | {check.explains} |" for check in offered]
        parts += [f"## From {plugin}", "\n".join(["| code | what it finds |", "|---|---|", *rows])]
    return join(parts)


def commands() -> Iterator[tuple[list[str], click.Command]]:
    """Every command and subcommand with its path."""
    yield ["velollm"], cli
    for name in sorted(COMMANDS):
        command = importlib.import_module(f"velollm_core.cli.{name}").command
        yield ["velollm", name], command
        for child in sorted(getattr(command, "commands", {})):
            yield ["velollm", name, child], command.commands[child]


def options(command: click.Command) -> list[click.Option]:
    """The options of a command that a variable can set."""
    return [
        entry
        for entry in command.params
        if isinstance(entry, click.Option) and entry.name not in {"version", "help"}
    ]


def members(
    module: object, test: Callable[[object], bool], prefix: str = ""
) -> list[tuple[str, object]]:
    """Names that ``module`` itself defines, in the order of its text."""
    own = [
        (name, entry)
        for name, entry in vars(module).items()
        if test(entry)
        and name.startswith(prefix)
        and getattr(entry, "__module__", "") == module.__name__
    ]
    return sorted(own, key=lambda pair: inspect.getsourcelines(pair[1])[1])


def markdown(docstring: str) -> str:
    """A docstring with its argument list and its cross references as Markdown."""
    text = re.sub(r":\w+:`~?([^`]+)`", lambda found: f"`{found[1].rpartition('.')[2]}`", docstring)
    text = text.replace("``", "`")
    lines: list[str] = []
    for line in text.splitlines():
        argument = ARGUMENT.match(line) if line.startswith("    ") else None
        if line.strip() == "Args:":
            lines.append("Arguments:\n")
        elif argument:
            lines.append(f"- `{argument[1]}`: {argument[2]}")
        else:
            lines.append(f"  {line.strip()}" if line.startswith("        ") else line.strip())
    return "\n".join(lines).strip()


def join(parts: list[str]) -> str:
    """Parts as one page."""
    return "\n\n".join(parts) + "\n"


DIAGNOSES = {
    "core-doctor": "velollm_core.doctor.hooks",
    "llamacpp": "velollm_llamacpp.plugin",
    "ollama": "velollm_ollama.plugin",
}
"""Modules whose checks are listed, by the name of their plugin."""

BACKENDS = {
    "llamacpp": ("llama.cpp", llamacpp_knobs),
    "ollama": ("Ollama", ollama_knobs),
    "openai": ("OpenAI-compatible servers", openai_knobs),
}
"""What each backend is called, and its knobs."""

PAGES = {
    "doctor.md": checks,
    "hooks.md": hooks,
    "errors.md": error_classes,
    "environment.md": environment,
    "command-line.md": command_line,
    "knobs.md": knob_index,
    **{f"knobs-{name}.md": knob_page(*place) for name, place in BACKENDS.items()},
}


def main(arguments: list[str]) -> int:
    """Write or check every page."""
    check = "--check" in arguments
    stale = []
    REFERENCE.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        path, text = REFERENCE / name, page()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text, encoding="utf-8")
    for name in stale:
        print(f"{name} is out of date: run nox -s docs" if check else f"wrote {name}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    os.environ["COLUMNS"] = "90"
    sys.exit(main(sys.argv[1:]))
