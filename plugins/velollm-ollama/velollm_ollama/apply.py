"""Where settings of Ollama are kept, as changes to files: data alone, nothing is written here."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit

from attrs import evolve, frozen

from velollm_core.backends import ini, quoting
from velollm_core.backends.changes import Change
from velollm_core.backends.contract import Installation
from velollm_core.backends.local import is_local
from velollm_core.config import Settings
from velollm_core.errors import UsageError
from velollm_core.folders import folder
from velollm_core.hardware.probe import Probe
from velollm_core.models.spec import Model
from velollm_ollama import forms, sources
from velollm_ollama.experimental import BY_KEY
from velollm_ollama.files import HEAD, SCRIPTS, drop_in_with, script_with
from velollm_ollama.knobs import BY_NAME
from velollm_ollama.server import command
from velollm_ollama.sources import Unit

TARGETS = ("modelfile", "systemd-user", "systemd", "launchctl", "env", "powershell", "ini")
_DROP_IN = "velollm.conf"


@frozen(kw_only=True)
class _Plan:
    """What all targets need."""

    installation: Installation
    model: Model
    probe: Probe
    unit: Unit | None

    @property
    def server(self) -> str:
        """The target for variables of the server's environment."""
        if self.unit is not None:
            return "systemd-user" if self.unit.own else "systemd"
        return {"Darwin": "launchctl", "Windows": "powershell"}.get(self.probe.system, "env")


def plan_apply(
    installation: Installation,
    model: Model,
    settings: Settings,
    target: str | None,
    *,
    probe: Probe,
) -> tuple[Change, ...]:
    """The files that make ``settings`` the user's own.

    Without a ``target`` each setting goes where it lives: options of the model to a Modelfile,
    variables to the unit of systemd that runs Ollama, to launchd or to a file for a shell. What an
    earlier change of VeloLLM keeps at the same place stays.

    Args:
        installation: the Ollama that is meant.
        model: the model that is tuned.
        settings: the knobs to write, and no others.
        target: one of :data:`TARGETS`, or ``None``.
        probe: what the present files are looked at through.

    Raises:
        UsageError: there is no such target, or it cannot hold a setting.
    """
    if target is not None and target not in TARGETS:
        raise UsageError(f"there is no target {target!r}.", f"There are: {', '.join(TARGETS)}.")
    forms.vet(installation, model, settings)
    units = sources.units(probe)
    wanted = {"systemd-user": True, "systemd": False}.get(target or "")
    unit = next((entry for entry in units if wanted is None or entry.own is wanted), None)
    if wanted is not None and unit is None:
        raise UsageError(
            f"there is no {sources.UNIT} of {'yours' if wanted else 'the system'} here.",
            "Leave out the target, or take env.",
        )
    plan = _Plan(installation=installation, model=model, probe=probe, unit=unit)
    parts: dict[str, Settings] = {}
    if settings.extra_env:
        parts[target or plan.server] = Settings(extra_env=settings.extra_env)
    for name, value in settings.config.items():
        place = target or _home_of(plan, name)
        part = parts.get(place, Settings())
        parts[place] = evolve(part, config=part.config | {name: value})
    if target is None and plan.server in parts:
        _refuse_container(plan, parts[plan.server])
    return tuple(_change(plan, part, place) for place, part in parts.items())


def _refuse_container(plan: _Plan, settings: Settings) -> None:
    where = plan.installation.location
    port = urlsplit(where).port if plan.installation.kind == "server" and is_local(where) else None
    name = sources.container(plan.probe, port) if port else None
    if name is not None:
        raise UsageError(
            f"{', '.join((*settings.config, *settings.extra_env))} cannot be kept here: Ollama "
            f"runs in the container {name}, whose environment is given when it is made.",
            "Show what to make it with: --form docker, or --form compose",
        )


def _home_of(plan: _Plan, name: str) -> str:
    entry = BY_NAME[name]
    if entry.option:
        return forms.MODELFILE
    return forms.INI if entry.key else plan.server


def _change(plan: _Plan, settings: Settings, target: str) -> Change:
    form = {"systemd-user": "systemd", "env": "sh"}.get(target, target)
    outside = [name for name in settings.config if not forms.belongs(BY_NAME[name], form)]
    if form in {forms.MODELFILE, forms.INI}:
        outside += settings.extra_env
    if outside:
        raise UsageError(
            f"the target {target} cannot hold {', '.join(outside)}.", "Leave out the target."
        )
    if target == forms.MODELFILE:
        return _modelfile(plan, settings)
    where = plan.installation.location
    if plan.installation.kind == "server" and not is_local(where):
        names = ", ".join((*settings.config, *settings.extra_env))
        raise UsageError(
            f"{names} cannot be kept here: the server at {where} reads them on its own machine.",
            "Write them to a file and take it there: -o velollm.sh",
        )
    if target == forms.INI:
        return _ini(plan, settings)
    if plan.unit is not None and form == "systemd":
        return _drop_in(plan, plan.unit, settings)
    return _script(plan, settings, form)


def _modelfile(plan: _Plan, settings: Settings) -> Change:
    name = forms.name_in_full(plan.model)
    variant = forms.variant_of(name)
    path = (
        folder("config", plan.probe.environ)
        / "ollama"
        / f"{quote(str(variant), safe='')}.modelfile"
    )
    text = forms.render(plan.installation, plan.model, settings, forms.MODELFILE)
    return Change(
        path=path,
        content=f"{HEAD}\n{text}".encode(),
        summary=f"the model {variant.short}: {name.short} with other parameters",
        then=(command(plan.installation, "create", str(variant), "-f", str(path)),),
    )


def _drop_in(plan: _Plan, unit: Unit, settings: Settings) -> Change:
    path = f"{unit.folder}/{_DROP_IN}"
    pairs = dict(forms.pairs(settings))
    for variable in unit.variables:
        if variable.name in pairs and _wins(plan.probe, unit, variable.origin):
            raise UsageError(
                f"{variable.name} is set in {variable.origin}, which counts more than a drop-in "
                "of VeloLLM.",
                "Change it there.",
            )
    text = drop_in_with(_present(plan.probe, path), pairs)
    there = {v.name: v.text for v in sources.unit_environment(text, path)}
    hidden = [name for name in pairs if there.get(name) != pairs[name]]
    if hidden:
        raise UsageError(f"{hidden[0]} is set again in {path}, further down.", "Change it there.")
    control = "systemctl --user" if unit.own else "sudo systemctl"
    return Change(
        path=_below(plan.probe, path),
        content=text.encode(),
        summary="variables of Ollama's service, for all models",
        needs_root=not unit.own,
        then=(f"{control} daemon-reload", f"{control} restart ollama"),
    )


def _wins(probe: Probe, unit: Unit, origin: str) -> bool:
    path = PurePosixPath(origin)
    if origin in {sources.shown(probe, file) for file in unit.files}:
        return True
    return path.parent.name == sources.DROP_INS and path.name > _DROP_IN


def _script(plan: _Plan, settings: Settings, form: str) -> Change:
    """A file of commands: exports for a shell, or what tells launchd."""
    script = SCRIPTS[form]
    path = folder("config", plan.probe.environ) / script.name
    shown = (quoting.powershell if form == "powershell" else quoting.sh)(str(path))
    stop = (script.stop,) if script.stop and plan.installation.kind == "server" else ()
    try:
        text = _decoded(path.read_bytes() if path.exists() else b"", str(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    return Change(
        path=path,
        content=script_with(text, form, dict(forms.pairs(settings))).encode(),
        summary="variables of Ollama's server, for all models",
        then=(*stop, *(command.format(path=shown) for command in script.then)),
    )


def _ini(plan: _Plan, settings: Settings) -> Change:
    if plan.probe.system == "Windows":
        raise UsageError(
            "llama.cpp's configuration file is not written on Windows.", "Show it: --form ini"
        )
    needs_root = plan.unit is not None and not plan.unit.own
    path = sources.LLAMA_CONFIG if needs_root else sources.llama_config_of(plan.probe.environ)
    text = _present(plan.probe, path)
    values = {BY_NAME[name].key or "": str(value) for name, value in settings.config.items()}
    text = ini.with_values(text, "*", values, means=_meant, others=("default",))
    return Change(
        path=_below(plan.probe, path),
        content=text.encode(),
        summary="settings of every llama-server that reads this file, Ollama's and others",
        needs_root=needs_root,
        then=(command(plan.installation, "stop", str(forms.name_in_full(plan.model))),),
    )


def _below(probe: Probe, path: str) -> Path:
    return probe.root / path.lstrip("/")


def _meant(key: str) -> ini.Key:
    """A knob may go by several names in that file."""
    entry = BY_KEY.get(key)
    return ini.Key(key if entry is None else entry.key or key)


def _present(probe: Probe, path: str) -> str:
    return _decoded(probe.read_bytes(path) or b"", sources.shown(probe, path))


def _decoded(content: bytes, shown: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{shown} is not UTF-8, so nothing is added to it.",
            "Mend it, or write the settings elsewhere: -o FILE",
        ) from error
