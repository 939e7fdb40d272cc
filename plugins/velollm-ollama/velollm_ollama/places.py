"""Which variables Ollama's server has, or would have, and which are set without any effect.

A setting counts where the server really reads it. So of a server that runs here its own environment
decides, and units of systemd or this shell only say where a value comes from; where they say
something else, the server was started before, or from elsewhere, and that is told. A server that
VeloLLM is to start gets what the user's own has, with the variables of this shell over it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlsplit

from attrs import frozen

from velollm_core.backends.contract import Installation
from velollm_core.backends.local import is_local
from velollm_core.config import LeftOut
from velollm_core.hardware.probe import Probe
from velollm_ollama import believed, sources
from velollm_ollama.knobs import BY_VARIABLE
from velollm_ollama.sources import Variable

DEVICES = frozenset(
    {
        "CUDA_VISIBLE_DEVICES",
        "GGML_VK_VISIBLE_DEVICES",
        "GPU_DEVICE_ORDINAL",
        "HIP_VISIBLE_DEVICES",
        "HSA_OVERRIDE_GFX_VERSION",
        "LLAMA_ARG_FIT",
        "LLAMA_ARG_FIT_TARGET",
        "OLLAMA_IGPU_ENABLE",
        "OLLAMA_LLM_LIBRARY",
        "OLLAMA_VULKAN",
        "ROCR_VISIBLE_DEVICES",
    }
)
"""Variables that choose devices and do no more; there is no knob for them."""

_ASKED_OF_LAUNCHD = (*BY_VARIABLE, *believed.BELIEVED)
_MODELS = "OLLAMA_MODELS"
_PREFIXES = ("OLLAMA_", "LLAMA_ARG_")
_RUNNING = "environment of the running server"
_STALE = "the server that runs has another value: it has to be started anew"
_NOT_FROM_HERE = "the server that runs was not started with it: this shell does not reach it"
_UNSEEN = "whether the server that runs was started with it cannot be seen"
_ELSEWHERE = "the server is on another machine: this shell does not reach it"

Variables = Mapping[str, Variable]


@frozen(kw_only=True)
class Places:
    """What was found. ``local`` says that the server is on this machine, or would be;
    ``llama_config`` is llama.cpp's configuration file of the user that it runs as.
    """

    local: bool
    in_force: Variables
    left_out: tuple[LeftOut, ...]
    llama_config: str | None = None


def look(
    installation: Installation, environ: Mapping[str, str], probe: Probe, pid: int | None
) -> Places:
    """Look through the places where variables of Ollama's server stand.

    Args:
        installation: a server that runs, or the program that one is to be started with.
        environ: the variables of this shell.
        probe: what the machine is looked at through.
        pid: the process of the user's server, where it is known and on this machine.
    """
    attached = installation.kind == "server"
    own = _by_name(sources.shell(environ))
    if attached and not is_local(installation.location):
        told = tuple(_without_effect(own, {}, _ELSEWHERE))
        return Places(local=False, in_force={}, left_out=told)
    unit = next(iter(sources.units(probe)), None)
    kept = _by_name(_kept(probe, unit))
    server = sources.running(probe, pid) if pid is not None else None
    left_out: list[LeftOut] = []
    if server is not None:
        in_force = _by_name(_traced(name, text, kept, own) for name, text in server.items())
        left_out += _without_effect(kept, in_force, _STALE)
    else:
        port = urlsplit(installation.location).port if attached else None
        in_force = kept or _by_name(sources.docker(probe, port) if port else ())
    if attached:
        left_out += _without_effect(own, in_force, _UNSEEN if server is None else _NOT_FROM_HERE)
    else:
        in_force = {**in_force, **own}
    return Places(
        local=True,
        in_force=in_force,
        left_out=tuple(left_out),
        llama_config=_llama_config(probe, server, unit),
    )


def models_folder(environ: Mapping[str, str], probe: Probe, pid: int | None) -> str:
    """What ``OLLAMA_MODELS`` is for the user's server: in this shell, else in the server that runs,
    else where the system keeps variables for it; empty where it is not set.

    Args:
        environ: the variables of this shell.
        probe: what the machine is looked at through.
        pid: the process of the user's server, where it is known and on this machine.
    """
    if own := environ.get(_MODELS):
        return own
    server = sources.running(probe, pid) if pid is not None else None
    if server is not None:
        return server.get(_MODELS, "")
    unit = next(iter(sources.units(probe)), None)
    kept = {variable.name: variable.text for variable in _kept(probe, unit, (_MODELS,))}
    return kept.get(_MODELS, "")


def _llama_config(
    probe: Probe, server: Mapping[str, str] | None, unit: sources.Unit | None
) -> str | None:
    """Not known for a service of the system: it runs as another user."""
    if server is not None:
        return sources.llama_config_of(server)
    return None if unit is not None and not unit.own else sources.llama_config_of(probe.environ)


def _without_effect(variables: Variables, in_force: Variables, reason: str) -> Iterator[LeftOut]:
    for name, variable in variables.items():
        there = in_force.get(name)
        if name in BY_VARIABLE and (there is None or there.text != variable.text):
            yield LeftOut(name, variable.origin, reason)
        elif name in believed.BELIEVED and there is None:
            yield believed.left_out(name, variable.text, variable.origin)


def _by_name(variables: Iterable[Variable]) -> dict[str, Variable]:
    """Those that Ollama or its engine may read."""
    return {v.name: v for v in variables if v.name.startswith(_PREFIXES) or v.name in DEVICES}


def _kept(
    probe: Probe, unit: sources.Unit | None, names: Iterable[str] = _ASKED_OF_LAUNCHD
) -> tuple[Variable, ...]:
    """What the system keeps for Ollama's server: its unit of systemd, or launchd's environment."""
    return unit.variables if unit is not None else sources.launchd(probe, names)


def _traced(name: str, text: str, kept: Variables, own: Variables) -> Variable:
    """A variable of the running server, with the place that it was taken from."""
    for place in (kept, own):
        if name in place and place[name].text == text:
            return place[name]
    return Variable(name, text, _RUNNING)
