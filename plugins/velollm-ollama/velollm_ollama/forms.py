"""Settings in the forms that Ollama really reads: variables of its server, and Modelfiles.

Each form holds what belongs there. What does not is a comment that says where it goes; where
nothing is left, the form is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from velollm_core.backends import quoting
from velollm_core.backends.contract import Installation
from velollm_core.config import Settings, Value, problems
from velollm_core.errors import UsageError
from velollm_core.models.spec import Model
from velollm_ollama.entries import Entry
from velollm_ollama.knobs import BY_NAME, is_experimental, knobs, llama_config, options
from velollm_ollama.places import DEVICES
from velollm_ollama.server import name_of
from velollm_ollama.store import Name
from velollm_ollama.values import written

MODELFILE = "modelfile"
INI = "ini"
_VARIANT = "velollm"

Pairs = Sequence[tuple[str, str]]


def _lines(pattern: Callable[[str, str], str]) -> Callable[[Pairs], str]:
    return lambda pairs: "".join(f"{pattern(name, text)}\n" for name, text in pairs)


def _systemd(pairs: Pairs) -> str:
    lines = (f"Environment={quoting.systemd(f'{name}={text}')}\n" for name, text in pairs)
    return "".join(("[Service]\n", *lines))


def _launchctl(name: str, text: str) -> str:
    # An empty value would be no value to Ollama, too; launchd has a word for it.
    return f"launchctl setenv {name} {quoting.sh(text)}" if text else f"launchctl unsetenv {name}"


def _docker(pairs: Pairs) -> str:
    return " \\\n".join(f"--env {quoting.sh(f'{name}={text}')}" for name, text in pairs) + "\n"


def _compose(pairs: Pairs) -> str:
    lines = (f"  {name}: {quoting.compose(text)}\n" for name, text in pairs)
    return "".join(("environment:\n", *lines))


_ENVIRONMENT: Mapping[str, Callable[[Pairs], str]] = {
    "sh": _lines(lambda name, text: f"export {name}={quoting.sh(text)}"),
    "fish": _lines(lambda name, text: f"set -gx {name} {quoting.fish(text)}"),
    "powershell": _lines(lambda name, text: f"$env:{name} = {quoting.powershell(text)}"),
    "systemd": _systemd,
    "launchctl": _lines(_launchctl),
    "docker": _docker,
    "compose": _compose,
}
"""Forms of the server's environment: they count when it is started anew."""

_CONTEXT_NOTE = "# OLLAMA_CONTEXT_LENGTH counts for every model that has no num_ctx of its own.\n"


def forms(installation: Installation) -> tuple[str, ...]:
    """The forms that there are."""
    return (*_ENVIRONMENT, MODELFILE, *((INI,) if is_experimental(installation) else ()))


def render(installation: Installation, model: Model, settings: Settings, form: str) -> str:
    """``settings`` in one form.

    Raises:
        UsageError: there is no such form, nothing of ``settings`` belongs there, or a value cannot
            be said.
    """
    if form not in forms(installation):
        raise UsageError(
            f"backend ollama has no form {form!r}.", f"It has: {', '.join(forms(installation))}."
        )
    vet(installation, model, settings)
    outside = omitted(settings.config, form)
    inside = [name for name in settings.config if name not in outside]
    extra = settings.extra_env if form in _ENVIRONMENT else {}
    if outside and not inside and not extra:
        raise UsageError(
            f"the form {form} cannot hold {', '.join(outside)}.",
            " ".join(_where(name) for name in outside),
        )
    notes = [f"# {name} is not here: {_where(name)}\n" for name in outside]
    chosen = {name: settings.config[name] for name in inside}
    if form == MODELFILE:
        text = _modelfile(model, chosen)
    elif form == INI:
        text = llama_config(chosen) or ""
    else:
        if "num_ctx" in chosen:
            notes.append(_CONTEXT_NOTE)
        text = environment(form, pairs(settings))
    return "".join((*notes, text))


def omitted(config: Mapping[str, Value], form: str) -> tuple[str, ...]:
    """The knobs that ``form`` cannot hold."""
    return tuple(name for name in config if not belongs(BY_NAME[name], form))


def environment(form: str, variables: Pairs) -> str:
    """Variables in one of the forms of the server's environment."""
    return _ENVIRONMENT[form](variables)


def vet(installation: Installation, model: Model, settings: Settings) -> None:
    """Make sure that nothing but knobs with allowed values, and choices of devices, is written.

    Raises:
        UsageError: there is something else.
    """
    for problem in problems(knobs(installation, model), settings.config):
        raise UsageError(f"{problem.message}.")
    for name in settings.extra_env:
        if name not in DEVICES:
            raise UsageError(f"the variable {name!r} is not one that is written for Ollama.")
    if settings.extra_args:
        raise UsageError("Ollama takes no arguments that could be written down.")


def belongs(entry: Entry, form: str) -> bool:
    """Whether ``form`` can hold the knob."""
    if form == MODELFILE:
        return entry.option
    return entry.key is not None if form == INI else entry.variable is not None


def _where(name: str) -> str:
    entry = BY_NAME[name]
    if entry.option:
        return f"it is a parameter of the model, for --form {MODELFILE}."
    if entry.key:
        return f"llama.cpp reads it from its configuration file, see --form {INI}."
    return f"it is a variable of Ollama's server, see --form {next(iter(_ENVIRONMENT))}."


def pairs(settings: Settings) -> list[tuple[str, str]]:
    """The variables of the server's environment that say ``settings``."""
    named = [(BY_NAME[name], value) for name, value in settings.config.items()]
    said = [(entry.variable, written(entry, value)) for entry, value in named if entry.variable]
    return [*said, *sorted(settings.extra_env.items())]


def name_in_full(model: Model) -> Name:
    """The name by which Ollama knows ``model``.

    Raises:
        ModelError: it is none of Ollama's models.
        UsageError: Ollama would refuse such a name.
    """
    return Name.parse(name_of(model))


def variant_of(name: Name) -> Name:
    """The name of the tuned variant of a model: its tag says so, and the model stays as it is."""
    tag = name.tag.removesuffix(_VARIANT).removesuffix("-")
    tuned = _VARIANT if tag in {"", "latest"} else f"{tag}-{_VARIANT}"
    return Name(name.host, name.namespace, name.model, tuned)


def _modelfile(model: Model, config: Mapping[str, bool | int | float | str]) -> str:
    name = name_in_full(model)
    lines = [f"FROM {quoting.modelfile(str(name))}"]
    for option, value in options(config).items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        lines.append(f"PARAMETER {option} {quoting.modelfile(text)}")
    return "".join(f"{line}\n" for line in lines)
