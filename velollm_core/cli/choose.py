"""Which engine and which model: what the user named, or the best that is there; said on standard
error.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from velollm_core.backends.contract import Backend, Installation
from velollm_core.cli.reference import resolve_model
from velollm_core.cli.state import State
from velollm_core.errors import Unavailable, UsageError, VeloError
from velollm_core.models.spec import Model

if TYPE_CHECKING:
    from velollm_core.config import Config

EXPERIMENTAL = "experimental"
"""The option behind which a backend may keep knobs that do not work in all its versions."""

_LIMITS = ("VELOLLM_PLUGINS", "VELOLLM_DISABLE_PLUGINS")
_INSTALL = "Install one: pip install velollm-llamacpp"
_KIND_ORDER = {"server": 0, "binary": 1, "wheel": 2}
_LAST = len(_KIND_ORDER)


@frozen
class Chosen:
    """An engine and a model."""

    backend: Backend
    installation: Installation
    model: Model


def choose(state: State) -> Chosen:
    """The engine and the model that the options name, or the best there are.

    Raises:
        UsageError: there is no such backend, or it does not know an option.
        Unavailable: nothing that can be used was found.
    """
    backend, installation, model, others = _usable(state)
    version = f" {installation.version}" if installation.version else ""
    state.output.remark(
        f"{backend.name}{version} ({installation.kind}: {installation.location}), "
        f"model {model.served_name or model.reference}"
    )
    if state.model is None and others:
        names = ", ".join(entry.served_name or entry.reference for entry in others)
        state.output.remark(f"it serves others too, which --model names: {names}")
    return Chosen(backend, installation, model)


def startable(state: State, chosen: Chosen) -> Chosen | None:
    """The same with an engine that VeloLLM can start itself; ``None`` where there is only a server
    that runs already.
    """
    if chosen.installation.kind != "server":
        return chosen
    own = next((entry for entry in found_again(state, chosen) if entry.kind != "server"), None)
    return None if own is None else evolve(chosen, installation=own)


def found_again(
    state: State, chosen: Chosen, *, experimental: bool = False
) -> tuple[Installation, ...]:
    """What the backend of ``chosen`` finds, with the experimental knobs that it keeps behind an
    option of that name where ``chosen`` was found with them, or they are asked for now.

    Raises:
        VeloError: with that option it finds nothing.
    """
    options = dict(state.engine_options)
    if experimental or chosen.installation.options.get(EXPERIMENTAL) == "on":
        options[EXPERIMENTAL] = "on"
    return chosen.backend.probe(options, state.environ)


def _usable(state: State) -> tuple[Backend, Installation, Model, tuple[Model, ...]]:
    """The best engine that can run the model, the model, and what else it has loaded.

    Raises:
        UsageError: none that was found can run it; the best one says why.
    """
    found = _installations(state)
    refusals = []
    for backend, installation in found:
        loaded = backend.models(installation)
        try:
            return backend, installation, _model(state, installation, loaded), loaded[1:]
        except UsageError as error:
            if installation.kind != "server":
                raise
            refusals.append(error)
            if len(found) > len(refusals):
                state.output.remark(f"passed over: {error.message}")
    raise refusals[0]


def _model(state: State, installation: Installation, loaded: tuple[Model, ...]) -> Model:
    if state.model is None:
        return loaded[0] if loaded else resolve_model(state, "demo")
    known = [model for model in loaded if state.model in {model.served_name, model.reference}]
    if known:
        return known[0]
    if installation.kind == "server":
        return _loaded_as(state, state.model, loaded, installation)
    return resolve_model(state, state.model)


def _installations(state: State) -> list[tuple[Backend, Installation]]:
    """What to try, best first; where the user names a backend, its first alone."""
    asked = backends(state)
    if state.backend is not None:
        (backend,) = asked
        found = backend.probe(state.engine_options, state.environ)
        if not found:
            raise Unavailable(
                f"backend {backend.name} found no engine.",
                backend.absence or f"Its options: {_options(backend) or 'none'}.",
            )
        return [(backend, found[0])]
    candidates = []
    for backend in asked:
        try:
            found = backend.probe(state.engine_options, state.environ)
        except VeloError:
            raise
        except Exception as error:  # noqa: BLE001 - one adapter's fault must not cost the others
            state.output.warn(f"backend {backend.name} failed: {type(error).__name__}: {error}")
            continue
        candidates += [(backend, entry) for entry in found]
    state.warn_of_broken_plugins()
    if not candidates:
        limits = [name for name in _LIMITS if state.environ.get(name)]
        hint = f"{' and '.join(limits)} limits what is loaded." if limits else _INSTALL
        raise Unavailable("no inference engine was found.", hint)
    return sorted(candidates, key=_rank)


def _rank(candidate: tuple[Backend, Installation]) -> int:
    backend, installation = candidate
    if backend.automatic == "running" and installation.kind != "server":
        return _LAST
    return _KIND_ORDER[installation.kind]


def backends(state: State) -> tuple[Backend, ...]:
    """The backend that is named, else those to choose from that take the options.

    Raises:
        UsageError: there is no such backend, or none that knows the options.
        Unavailable: the one that is named is broken.
    """
    if state.backend is not None:
        backend = state.plugins.backend(state.backend)
        _check_options(backend, state.engine_options)
        return (backend,)
    automatic = [backend for backend in state.plugins.backends().values() if backend.automatic]
    given = set(state.engine_options)
    taking = tuple(b for b in automatic if given <= {option.name for option in b.options})
    if automatic and not taking:
        raise UsageError(
            f"no backend takes -X {', -X '.join(sorted(given))} together.",
            "; ".join(f"{backend.name}: {_options(backend)}" for backend in automatic),
        )
    return taking


def _loaded_as(
    state: State, reference: str, loaded: tuple[Model, ...], installation: Installation
) -> Model:
    """The loaded model that ``reference`` is the file of: figures must bear the right name.

    Raises:
        UsageError: the server has another one loaded.
    """
    fingerprints = {entry.fingerprint: entry for entry in loaded if entry.fingerprint is not None}
    if fingerprints:  # where no file is known, there is nothing to hold the reference against
        with suppress(VeloError):
            found = resolve_model(state, reference).fingerprint
            if found in fingerprints:
                return fingerprints[found]
    names = ", ".join(entry.served_name or entry.reference for entry in loaded) or "none"
    raise UsageError(
        f"the server at {installation.location} does not serve {reference}; loaded: {names}.",
        "Leave out --model, or name what is loaded.",
    )


def _check_options(backend: Backend, given: dict[str, str]) -> None:
    known = {option.name for option in backend.options}
    for name in given:
        if name not in known:
            raise UsageError(
                f"backend {backend.name} has no option {name!r}.",
                f"Its options: {_options(backend) or 'none'}.",
            )


def _options(backend: Backend) -> str:
    return "; ".join(f"-X {option.name}=... {option.summary}" for option in backend.options)


def parse_sets(words: tuple[str, ...], chosen: Chosen, option: str) -> Config:
    """``KNOB=VALUE`` words, each of which may hold several separated by commas, as a configuration.

    Args:
        words: what the user typed.
        chosen: whose knobs are meant.
        option: where it was typed, for messages.

    Raises:
        UsageError: no such knob, or a value that it does not take.
    """
    from velollm_core.config import Config

    knobs = {knob.name: knob for knob in chosen.backend.knobs(chosen.installation, chosen.model)}
    values = {}
    for word in words:
        for pair in _pairs(word):
            name, found, text = pair.partition("=")
            name = name.strip()
            if not found:
                raise UsageError(f"{option} {pair!r} is not of the form KNOB=VALUE.", "")
            if name not in knobs:
                raise UsageError(
                    f"backend {chosen.backend.name} has no knob {name!r}.",
                    f"It has: {', '.join(sorted(knobs)) or 'none'}.",
                )
            values[name] = knobs[name].parse(text.strip())
    config = Config(values)
    for problem in chosen.backend.check(chosen.installation, chosen.model, config):
        raise UsageError(problem.message, "")
    return config


def _pairs(word: str) -> list[str]:
    """``a=1,b=2,3`` in its parts, ``a=1`` and ``b=2,3``: a value may hold commas."""
    pairs: list[str] = []
    for part in word.split(","):
        if pairs and "=" not in part:
            pairs[-1] += f",{part}"
        else:
            pairs.append(part)
    return pairs
