"""Settings that do nothing or cannot hold together, and a model that does not fit: any backend."""

from __future__ import annotations

from collections.abc import Iterator

from velollm_core.config import ENGINE_DEFAULT, Settings, inactive, show
from velollm_core.doctor.load import holding
from velollm_core.doctor.spec import Check, Context, Cost, Finding, Unseen
from velollm_core.experiment.records import model_record
from velollm_core.experiment.servers import server_of
from velollm_core.hardware.parsing import GIB


def contradictions(context: Context) -> Iterator[Finding]:
    """Settings of the user's with which the engine does not start."""
    for engine, settings in context.configured:
        found = engine.backend.check(engine.installation, engine.model, settings.config)
        for problem in found:
            yield Finding(
                statement=f"Settings of {engine.backend.name} contradict each other: "
                f"{problem.message}.",
                evidence=_set_by(settings, problem.knob),
                cost=Cost(text="the engine does not start, or ignores one of them", basis="seen"),
                advice=f"Change or remove {problem.knob}.",
                costs_speed=False,
            )


def dead_settings(context: Context) -> Iterator[Finding]:
    """Settings of the user's that mean nothing because of another one's value."""
    for engine, settings in context.configured:
        knobs = engine.backend.knobs(engine.installation, engine.model)
        conditions = {knob.name: knob.active_when for knob in knobs}
        for name in inactive(knobs, settings.config):
            condition = conditions[name]
            if condition is None or settings.origins.get(name, ENGINE_DEFAULT) == ENGINE_DEFAULT:
                continue
            value = settings.config.get(condition.knob)
            wanted = " or ".join(show(entry) for entry in condition.values)
            yield Finding(
                statement=f"The setting {name} of {engine.backend.name} does nothing.",
                evidence=f"{_set_by(settings, name)}; it counts only with {condition.knob} "
                f"{wanted}, which is {'not set' if value is None else show(value)}",
                cost=Cost(text=f"whatever {name} was meant to bring", basis="seen"),
                advice=f"Set {condition.knob} to {wanted}, or remove {name}.",
                costs_speed=False,
            )


def model_memory(context: Context) -> Iterator[Finding]:
    """A model that does not fit into what this process may still take."""
    memory = context.hardware.memory
    told = False
    for engine, settings in context.configured:
        footprint = engine.backend.footprint(engine.installation, engine.model, settings.config)
        if footprint is None:
            continue
        told = True
        if footprint.host_bytes > memory.usable_bytes:
            limit = (
                f", under a limit of {memory.limit_bytes / GIB:.1f} GiB"
                if memory.limit_bytes is not None
                else ""
            )
            yield Finding(
                statement=f"The model {model_record(engine.model).name} does not fit into memory.",
                evidence=f"it takes about {footprint.host_bytes / GIB:.1f} GiB as "
                f"{engine.backend.name} is set, {memory.usable_bytes / GIB:.1f} GiB are available"
                f"{limit}",
                cost=Cost(
                    text="VeloLLM does not start it; elsewhere the machine would swap, or end it",
                    basis="seen",
                ),
                advice=f"{_to_stop(context)}, set a smaller context, or take a smaller model.",
                costs_speed=False,
            )
    if not told:
        raise Unseen("what the model takes is not known: it is not on this machine, or on a GPU")


def _to_stop(context: Context) -> str:
    idle = [
        f"{server_of(entry.argv)} (process {entry.pid}, {entry.rss_bytes / GIB:.1f} GiB)"
        for entry in holding(context)
    ]
    return f"Stop {' or '.join(idle)}, which is idle" if idle else "Free memory"


def _set_by(settings: Settings, name: str) -> str:
    if name not in settings.config:
        return f"{name} is not set"
    origin = settings.origins.get(name, ENGINE_DEFAULT)
    return f"{name}={show(settings.config[name])} ({origin})"


CHECKS = (
    Check(
        code="contradictory-settings",
        looks_at="whether settings hold together",
        explains="Settings with which the engine does not start.",
        look=contradictions,
    ),
    Check(
        code="dead-settings",
        looks_at="settings that do nothing",
        explains="Settings that mean nothing because of another one's value.",
        look=dead_settings,
    ),
    Check(
        code="model-memory",
        looks_at="the memory that the model takes",
        explains="A model, as it is set to run, larger than the memory that is available: a "
        "remark, for VeloLLM does not start it.",
        look=model_memory,
    ),
)
