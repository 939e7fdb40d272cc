"""What ``velollm doctor`` asks about Ollama: variables that nothing reads, or that are misread."""

from __future__ import annotations

import re
from collections.abc import Iterator

from velollm_core.doctor.spec import Check, Context, Cost, Finding
from velollm_ollama import believed, sources
from velollm_ollama.knobs import BY_VARIABLE
from velollm_ollama.sources import Variable
from velollm_ollama.values import read

_EXPRESSION = re.compile("[$`]")
_ASSIGNMENT = re.compile(r"(?<![\w$])(OLLAMA_[A-Z_]+)=(\"[^\"]*\"|'[^']*'|[^\s;&|]*)")


def unread_variables(context: Context) -> Iterator[Finding]:
    """Variables that many believe in and Ollama ignores."""
    for variable in _variables(context):
        if variable.name in believed.BELIEVED:
            option = believed.BELIEVED[variable.name]
            yield Finding(
                statement=f"Ollama does not read {variable.name}.",
                evidence=f"{variable.origin} is set; {option} is a parameter of a model, and no "
                "variable of that name exists",
                cost=Cost(text="whatever it was meant to bring", basis="seen"),
                advice=f"Use {believed.instead_of(variable.name, variable.text)}.",
                costs_speed=False,
            )


def malformed_values(context: Context) -> Iterator[Finding]:
    """Values that Ollama reads as something else, or not at all."""
    for variable in _variables(context):
        entry = BY_VARIABLE.get(variable.name)
        if entry is None or not variable.name.startswith("OLLAMA_"):
            continue
        if _EXPRESSION.search(variable.text):
            continue  # a shell has yet to work it out
        reading = read(entry, variable.text)
        if reading.remark and not (reading.foreign and entry.form == "number"):
            yield Finding(
                statement=f"{variable.name} is not what Ollama can read.",
                evidence=f"{variable.origin}: {reading.remark}",
                cost=Cost(text="something else is in force", basis="seen"),
                advice=f"It takes {_takes(entry.form)}.",
                costs_speed=False,
            )


def _takes(form: str) -> str:
    return {
        "boolean": "1 or 0",
        "duration": "a duration such as 10m or 1h30m, or a number of seconds",
        "number": "a whole number without a sign or a unit",
    }.get(form, "one of the types that Ollama's documentation names")


def _variables(context: Context) -> Iterator[Variable]:
    """Those of the shell, of units of systemd and of scripts that were named."""
    yield from sources.shell(context.environ)
    for unit in sources.units(context.probe):
        yield from unit.variables
    for script in context.scripts:
        for number, line in enumerate(script.text.splitlines(), 1):
            for name, text in _ASSIGNMENT.findall(line.partition("#")[0]):
                yield Variable(name, text, f"{script.shown}, line {number}")


CHECKS = (
    Check(
        code="ollama-unread-variables",
        looks_at="variables that Ollama does not read",
        explains="OLLAMA_NUM_CTX, OLLAMA_NUM_BATCH, OLLAMA_NUM_GPU and OLLAMA_NUM_THREAD, which "
        "are parameters of a model, in the environment, in units of systemd and in scripts.",
        look=unread_variables,
    ),
    Check(
        code="ollama-malformed-values",
        looks_at="values of Ollama's variables",
        explains="Numbers, durations and booleans that Ollama misreads: OLLAMA_FLASH_ATTENTION=off "
        "turns it on.",
        look=malformed_values,
    ),
)
