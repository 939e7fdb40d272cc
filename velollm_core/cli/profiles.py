"""A profile that a command is to use: found, and held against what there is now."""

from __future__ import annotations

from pathlib import Path

from velollm_core.cli.choose import Chosen, choose
from velollm_core.cli.state import State
from velollm_core.config import Config, Suggestion
from velollm_core.errors import UsageError
from velollm_core.experiment.records import engine_record, model_record
from velollm_core.hardware.detect import detect, fingerprint
from velollm_core.report.comparisons import ratio_text
from velollm_core.tune.profile import (
    FOLDER,
    fits,
    is_other_model,
    moved_since,
    name_of,
    read,
    settings_of,
)
from velollm_core.tune.spec import Profile


def folder(state: State) -> Path:
    """Where profiles are."""
    return state.folder("data") / FOLDER


def kept_as(state: State, run: str) -> str | None:
    """What the profile is called that ``run`` made; ``None`` where there is none in the folder."""
    return name_of(folder(state), run)


def load(state: State, name: str) -> Profile:
    """The profile that ``name`` means; its backend is the one to choose where none is named.

    Raises:
        UsageError: there is none.
        DocumentError: it is no profile.
    """
    profile = read(folder(state), name)
    state.backend = state.backend or profile.backend
    return profile


def choose_for(state: State, profile: Profile) -> Chosen:
    """The engine and the model that ``profile`` is to be used with.

    Raises:
        UsageError: no model is named, and the one to be had is not the profile's.
        Unavailable: nothing that can be used was found.
    """
    chosen = choose(state)
    if state.model is None and is_other_model(profile.model, model_record(chosen.model)):
        raise UsageError(
            f"profile {profile.name} was measured with model {profile.model.name}.",
            "Name its file, or another model: --model REF",
        )
    return chosen


def tell_differences(state: State, chosen: Chosen, profile: Profile, current: Config) -> None:
    """Warn where build, model, machine or the user's own settings are not those of ``profile``."""
    defaults = chosen.backend.defaults(chosen.installation, chosen.model).config
    differences = (
        *fits(
            profile,
            fingerprint(detect(gpus=state.plugins.detect_gpus)),
            engine_record(chosen.installation),
            model_record(chosen.model),
        ),
        *moved_since(profile, defaults | current),
    )
    for sentence in differences:
        state.output.warn(f"profile {profile.name}: {sentence}.")
    if differences:
        state.output.warn(
            "whether it is faster now is not known: velollm tune --check measures it."
        )


def suggested(state: State, chosen: Chosen, profile: Profile) -> Suggestion:
    """What ``profile`` sets, as advice; what differs from when it was measured is told.

    Raises:
        UsageError: this engine does not take what it sets.
    """
    backend, installation, model = chosen.backend, chosen.installation, chosen.model
    config = settings_of(profile, backend, installation, model).config
    tell_differences(
        state, chosen, profile, backend.current(installation, model, state.environ).config
    )
    measured = [
        f"{ratio_text(answer.overall)} times as fast as {answer.baseline}"
        for answer in profile.evidence
    ]
    return Suggestion(
        assignments=config,
        reason=f"It is what profile {profile.name} sets, of a tune of {profile.created_at[:10]}.",
        effect=f"{profile.objective.name}: {', '.join(measured) or 'not told'}.",
        source=f"velollm tune, run {profile.run}",
        confidence="high",
    )
