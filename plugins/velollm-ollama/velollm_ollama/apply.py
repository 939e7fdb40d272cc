"""Where settings of Ollama are kept, as changes to files: data alone, nothing is written here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from attrs import evolve, frozen

from velollm_core.backends import ini, quoting
from velollm_core.backends.changes import Change
from velollm_core.backends.contract import Installation
from velollm_core.backends.local import is_local
from velollm_core.config import Settings
from velollm_core.errors import UsageError
from velollm_core.hardware.probe import Probe
from velollm_core.models.spec import Model
from velollm_ollama import forms, sources
from velollm_ollama.knobs import BY_NAME, BY_VARIABLE
from velollm_ollama.places import DEVICES
from velollm_ollama.sources import Unit

TARGETS = ("modelfile", "systemd-user", "systemd", "launchctl", "env", "powershell", "ini")
_DROP_IN = "velollm.conf"
_DEFAULT_URL = "http://127.0.0.1:11434"
_HEAD = "# Written by velollm optimize; velollm undo takes it back.\n"


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
    return tuple(_change(plan, part, place) for place, part in parts.items())


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


def config_directory(environ: Mapping[str, str]) -> Path:
    """VeloLLM's own folder for configuration."""
    if chosen := environ.get("VELOLLM_CONFIG_DIR"):
        return Path(chosen).expanduser()
    import platformdirs

    return platformdirs.user_config_path("velollm", appauthor=False)


def _modelfile(plan: _Plan, settings: Settings) -> Change:
    name = forms.name_in_full(plan.model)
    variant = forms.variant_of(name)
    folder = config_directory(plan.probe.environ) / "ollama"
    path = folder / f"{quote(str(variant), safe='')}.modelfile"
    text = forms.render(plan.installation, plan.model, settings, forms.MODELFILE)
    create = f"ollama create {quoting.sh(str(variant))} -f {quoting.sh(str(path))}"
    where = plan.installation.location
    if plan.installation.kind == "server" and where != _DEFAULT_URL:
        create = f"OLLAMA_HOST={quoting.sh(where)} {create}"
    return Change(
        path=path,
        content=(_HEAD + text).encode(),
        summary=f"the model {variant.short}: {name.short} with other parameters",
        then=(create,),
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
    present = sources.unit_environment(plan.probe.read(path) or "", path)
    kept = {v.name: v.text for v in present if v.name in BY_VARIABLE or v.name in DEVICES}
    text = forms.environment("systemd", list((kept | pairs).items()))
    control = "systemctl --user" if unit.own else "sudo systemctl"
    return Change(
        path=_below(plan.probe, path),
        content=(_HEAD + text).encode(),
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
    script = _SCRIPTS[form]
    path = config_directory(plan.probe.environ) / script.name
    pairs = _commands_of(path, script) | dict(forms.pairs(settings))
    shown = (quoting.powershell if form == "powershell" else quoting.sh)(str(path))
    return Change(
        path=path,
        content=(_HEAD + forms.environment(form, list(pairs.items()))).encode(),
        summary="variables of Ollama's server, for all models",
        then=tuple(command.format(path=shown) for command in script.then),
    )


def _commands_of(path: Path, script: _Script) -> dict[str, str]:
    """The variables that such a file sets now."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    found: dict[str, str] = {}
    for name, word in script.command.findall(text):
        if name in BY_VARIABLE or name in DEVICES:
            found[name] = script.unquoted(word)
    return found


def _of_sh(word: str) -> str:
    return "".join(shlex.split(word))


def _of_powershell(word: str) -> str:
    return word[1:-1].replace("''", "'")


@frozen(kw_only=True)
class _Script:
    """A file of commands that set variables, one a line. ``command`` matches one, its name and its
    quoted value; one with a line break in it, which no knob has, is passed over.
    """

    name: str
    command: re.Pattern[str]
    unquoted: Callable[[str], str]
    then: tuple[str, ...]


_SH_WORD = r"((?:'[^'\n]*'|\"'\"|[\w./:,+-])*)$"
_SCRIPTS: Mapping[str, _Script] = {
    "sh": _Script(
        name="ollama.sh",
        command=re.compile(rf"^export (\w+)={_SH_WORD}", re.MULTILINE | re.ASCII),
        unquoted=_of_sh,
        then=(". {path}", "ollama serve"),
    ),
    "launchctl": _Script(
        name="ollama-launchctl.sh",
        command=re.compile(rf"^launchctl setenv (\w+) {_SH_WORD}", re.MULTILINE | re.ASCII),
        unquoted=_of_sh,
        then=("sh {path}", "killall Ollama; open -a Ollama"),
    ),
    "powershell": _Script(
        name="ollama.ps1",
        command=re.compile(r"^\$env:(\w+) = ('(?:[^'\n]|'')*')$", re.MULTILINE | re.ASCII),
        unquoted=_of_powershell,
        then=(". {path}", "ollama serve"),
    ),
}


def _ini(plan: _Plan, settings: Settings) -> Change:
    if plan.probe.system == "Windows":
        raise UsageError(
            "llama.cpp's configuration file is not written on Windows.", "Show it: --form ini"
        )
    machine, own = sources.llama_config_files(plan.probe)
    needs_root = plan.unit is not None and not plan.unit.own
    path = machine if needs_root else own
    try:
        text = (plan.probe.read_bytes(path) or b"").decode()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{sources.shown(plan.probe, path)} is not UTF-8, so nothing is added to it.",
            "Mend it, or change it by hand: --form ini",
        ) from error
    values = {BY_NAME[name].key or "": str(value) for name, value in settings.config.items()}
    text = ini.with_values(text, "*", values, others=("default",))
    return Change(
        path=_below(plan.probe, path),
        content=text.encode(),
        summary="settings of every llama-server that reads this file, Ollama's and others",
        needs_root=needs_root,
        then=(f"ollama stop {quoting.sh(str(forms.name_in_full(plan.model)))}",),
    )


def _below(probe: Probe, path: str) -> Path:
    return probe.root / path.lstrip("/")
