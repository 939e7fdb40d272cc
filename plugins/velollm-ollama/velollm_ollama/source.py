"""Models that Ollama has pulled, for every other engine: ``ollama:NAME``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from velollm_core.models.references import ModelSource, Progress
from velollm_ollama.server import users_folders
from velollm_ollama.store import Name, weights_of


class OllamaSource(ModelSource):
    """The GGUF file of a model that Ollama has pulled on this machine. Nothing is fetched.

    It is looked for below ``OLLAMA_MODELS`` as it is in this shell, in the server that runs or in
    its service, else in the user's own folder, else in that of the service which Ollama's installer
    for Linux sets up.
    """

    scheme = "ollama"
    summary = "a model that Ollama has pulled: ollama:NAME"

    def resolve(self, rest: str, progress: Progress, environ: Mapping[str, str]) -> Path:
        """The blob with the weights.

        Raises:
            ModelError: there is none; the message says how to pull it.
            UsageError: ``rest`` is no name of a model.
        """
        del progress  # nothing is fetched
        return weights_of(Name.parse(rest), users_folders(environ))
