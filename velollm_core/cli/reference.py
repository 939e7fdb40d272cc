"""From what the user calls a model to the model, with the progress of a download."""

from __future__ import annotations

from velollm_core.cli.progress import downloading
from velollm_core.cli.state import State
from velollm_core.models.references import resolve
from velollm_core.models.spec import Model


def resolve_model(state: State, reference: str) -> Model:
    """The model that ``reference`` means, downloaded with progress where it is not here yet."""
    with downloading(state.output) as progress:
        return resolve(
            reference, state.plugins.model_sources(), progress=progress, environ=state.environ
        )
