"""What Ollama does when nothing is set, and what the user has set: each value with its origin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import define, field

from velollm_core.backends.contract import Installation
from velollm_core.config import ENGINE_DEFAULT, Config, LeftOut, Problem, Settings, Value, show
from velollm_core.hardware.parsing import GIB
from velollm_core.hardware.probe import Probe
from velollm_core.hardware.spec import GpuInfo
from velollm_core.models.spec import Model
from velollm_ollama import believed, places, sources
from velollm_ollama.entries import Entry
from velollm_ollama.experimental import BY_KEY
from velollm_ollama.knobs import (
    BY_NAME,
    BY_VARIABLE,
    entries,
    is_experimental,
    parallel_in_force,
)
from velollm_ollama.places import DEVICES
from velollm_ollama.server import tells_arguments
from velollm_ollama.sources import Variable
from velollm_ollama.values import read

_OTHERS = frozenset(
    {
        "OLLAMA_AUTH",
        "OLLAMA_DEBUG",
        "OLLAMA_DEBUG_LOG_REQUESTS",
        "OLLAMA_EDITOR",
        "OLLAMA_GO_TEMPLATE",
        "OLLAMA_MAX_TRANSFER_STREAMS",
        "OLLAMA_NOHISTORY",
        "OLLAMA_NO_CLOUD",
        "OLLAMA_ORIGINS",
        "OLLAMA_REMOTES",
    }
)
_OURS = frozenset({"OLLAMA_HOST", "OLLAMA_MODELS", "OLLAMA_NOPRUNE"})
"""What a private server gets from VeloLLM itself."""

_KEPT_WITH_MODEL = (
    "it is kept with the model, and no request can take it back to Ollama's own choice"
)

_OF_LLAMA_CPP = (
    "a private server has llama.cpp's configuration file from VeloLLM; see -X experimental=on for "
    "what it can hold"
)

_ONE_AT_A_TIME = "of a model of this family Ollama answers one request at a time"

_LARGE_BYTES, _LARGE_TOKENS = 47 * GIB, 262144
_MIDDLE_BYTES, _MIDDLE_TOKENS = 23 * GIB, 32768
_SMALL_TOKENS = 4096


def automatic_context(
    gpus: Iterable[GpuInfo], training: int | None, overhead_bytes: int = 0
) -> int:
    """The context that Ollama takes when none is set: by the memory of all GPUs together.

    As in ``server/routes.go``; at most the model's training length (``llm/server.go``). Ollama
    passes over processors that share the main memory, save Apple's.

    Args:
        gpus: those of the machine.
        training: the model's training length, tokens.
        overhead_bytes: what ``gpu_overhead`` keeps free on each.
    """
    total = sum(max(0, usable_bytes(gpu) - overhead_bytes) for gpu in gpus)
    tokens = _SMALL_TOKENS
    if total >= _MIDDLE_BYTES:
        tokens = _MIDDLE_TOKENS
    if total >= _LARGE_BYTES:
        tokens = _LARGE_TOKENS
    return min(tokens, training or tokens)


def usable_bytes(gpu: GpuInfo) -> int:
    """Memory of ``gpu`` that Ollama counts for models."""
    total = gpu.memory_total_bytes or 0
    if gpu.vendor == "apple":  # what Metal recommends to use of the main memory
        return total * 3 // 4 if total > 36 * GIB else total * 2 // 3
    return 0 if gpu.unified_memory or gpu.vendor == "other" else total


def training_length(model: Model) -> int | None:
    """Tokens of context that the model was trained for, where its header is known."""
    return model.spec.context_length if model.spec else None


def defaults(
    installation: Installation, model: Model, gpus: Sequence[GpuInfo], parameters: str = ""
) -> Settings:
    """What Ollama does with ``model`` when nothing is set: one value for every knob.

    What the model itself brings is taken back, too, where a request can do that; else it is named
    in ``left_out``.

    Args:
        installation: the Ollama that is meant.
        model: the model.
        gpus: those of the machine.
        parameters: ``parameters`` of the model's ``/api/show``.
    """
    config = _defaults(installation, model, gpus)
    origins = dict.fromkeys(config, ENGINE_DEFAULT)
    left_out = []
    for name, value in _parameters(parameters).items():
        if cannot_be_said(name, config[name]):
            config |= {name: value}
            left_out.append(LeftOut(name, _of_model(name), _KEPT_WITH_MODEL))
        else:
            origins[name] = f"{ENGINE_DEFAULT}, over {_of_model(name)}"
    return Settings(config=config, origins=origins, left_out=tuple(left_out))


def cannot_be_said(name: str, value: Value) -> bool:
    """Whether ``value`` leaves the knob to Ollama in such a way that no request can say it."""
    entry = BY_NAME.get(name)
    return (
        entry is not None
        and entry.option
        and value == entry.knob.own_choice
        and not entry.own_choice_sayable
    )


def drowned(config: Mapping[str, Value], parameters: str) -> Iterator[Problem]:
    """What of ``config`` would be left to Ollama, and is said by the model's own parameters."""
    for name, value in _parameters(parameters).items():
        if name in config and config[name] != value and cannot_be_said(name, config[name]):
            message = f"{name} stays {show(value)}, {_of_model(name)}: {_KEPT_WITH_MODEL}"
            yield Problem(name, message)


def _defaults(installation: Installation, model: Model, gpus: Sequence[GpuInfo]) -> Config:
    config = Config({entry.knob.name: entry.default for entry in entries(installation)})
    return config | {"num_ctx": automatic_context(gpus, training_length(model))}


def _of_model(name: str) -> str:
    return f"PARAMETER {name} of the model"


def _parameters(text: str) -> dict[str, Value]:
    """What ``/api/show`` says of a model's own parameters, as values of knobs."""
    found: dict[str, Value] = {}
    for name, words in sources.parameters(text).items():
        entry = BY_NAME.get(name)
        if entry is None or not entry.option:
            continue
        value: Value = {"true": "on", "false": "off"}.get(words, words)
        if entry.form == "number":
            try:
                value = int(float(words))  # Go prints what was read from JSON: 1e+06
            except (ValueError, OverflowError):
                continue
        if entry.knob.domain.accepts(value):
            found[name] = value
    return found


def current(
    installation: Installation,
    model: Model,
    environ: Mapping[str, str],
    gpus: Sequence[GpuInfo],
    parameters: str = "",
    *,
    probe: Probe,
    pid: int | None = None,
) -> Settings:
    """The user's own settings, over the defaults.

    Args:
        installation: a server that runs, or the program that one is to be started with.
        model: the model.
        environ: the variables of this shell.
        gpus: those of the machine.
        parameters: ``parameters`` of the model's ``/api/show``.
        probe: what the machine is looked at through.
        pid: the process of the user's server, where it is known and on this machine.
    """
    found_places = places.look(installation, environ, probe, pid)
    experimental = is_experimental(installation)
    found = _Found(private=installation.kind != "server", left_out=list(found_places.left_out))
    if found_places.local and (experimental or tells_arguments(installation)):
        for variable in sources.llama_config(probe, found_places.llama_config):
            found.take_key(variable, experimental=experimental)
    for variable in found_places.in_force.values():
        found.take(variable, experimental=experimental)
    for name, value in _parameters(parameters).items():
        found.config[name] = value
        found.origins[name] = _of_model(name)
    if parallel_in_force(model, 2) == 1 and found.config.pop("num_parallel", None) is not None:
        origin = found.origins.pop("num_parallel")
        found.left_out.append(LeftOut("num_parallel", origin, _ONE_AT_A_TIME))
    config = _defaults(installation, model, gpus) | found.config
    if "num_ctx" not in found.config:
        overhead = int(config["gpu_overhead"])
        config |= {"num_ctx": automatic_context(gpus, training_length(model), overhead)}
    config = Config({name: config[name] for name in config if name not in found.unknown})
    return Settings(
        config=config,
        extra_env=found.extra_env,
        origins={**dict.fromkeys(config, ENGINE_DEFAULT), **found.origins},
        left_out=tuple(found.left_out),
    )


@define
class _Found:
    """Puts each variable where it belongs. ``private``: it is for a server that VeloLLM starts.

    ``unknown`` are knobs which a running server has been given a value for that is none of theirs,
    and takes it all the same.
    """

    private: bool
    left_out: list[LeftOut]
    config: dict[str, Value] = field(factory=dict)
    extra_env: dict[str, str] = field(factory=dict)
    origins: dict[str, str] = field(factory=dict)
    unknown: set[str] = field(factory=set)

    def take(self, variable: Variable, *, experimental: bool) -> None:
        entry = BY_VARIABLE.get(variable.name)
        if entry is not None and (experimental or variable.name.startswith("OLLAMA_")):
            self._set(entry, variable)
        elif variable.name in believed.BELIEVED:
            left = believed.left_out(variable.name, variable.text, variable.origin)
            self.left_out.append(left)
        elif self.private:
            self._pass_on(variable)

    def _set(self, entry: Entry, variable: Variable) -> None:
        reading, name = read(entry, variable.text), entry.knob.name
        remark = f" ({reading.remark})" if reading.remark else ""
        if reading.value is None:
            if reading.remark:
                self.left_out.append(LeftOut(variable.name, variable.origin, reading.remark))
            if reading.foreign and not self.private:
                self.unknown.add(name)
            return
        self.unknown.discard(name)
        if reading.value == entry.knob.own_choice:
            self.config.pop(name, None)
            self.origins.pop(name, None)
        else:
            self.config[name] = reading.value
            self.origins[name] = f"{variable.origin}{remark}"

    def _pass_on(self, variable: Variable) -> None:
        name = variable.name
        if name in DEVICES:
            self.extra_env[name] = variable.text
            self.origins[name] = variable.origin
        elif name.startswith("LLAMA_ARG_"):
            reason = "Ollama does not offer it; see -X experimental=on for what reaches llama.cpp"
            self.left_out.append(LeftOut(name, variable.origin, reason))
        elif name not in _OURS:
            known = name in _OTHERS
            reason = "it is not about speed" if known else "Ollama is not known to read it"
            self.left_out.append(LeftOut(name, variable.origin, reason))

    def take_key(self, variable: Variable, *, experimental: bool) -> None:
        """What llama.cpp's configuration file says; a variable of the environment is stronger."""
        entry = BY_KEY.get(variable.name)
        if entry is not None and experimental:
            self._set(entry, variable)
        elif self.private and variable.origin != sources.LLAMA_CONFIG:
            self.left_out.append(LeftOut(variable.name, variable.origin, _OF_LLAMA_CPP))
