"""Any OpenAI-compatible server as VeloLLM's backend: by its URL, running already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from velollm_core.backends.contract import Backend, Installation, Option, Session
from velollm_core.config import Config, Knob, Settings

if TYPE_CHECKING:
    from velollm_core.models.spec import Model


class OpenAI(Backend):
    """Talks to a server that somebody else runs; starts none."""

    name = "openai"
    options = (
        Option(name="url", summary="the server, for example http://127.0.0.1:8000"),
        Option(
            name="endpoint",
            summary="chat (default), or completions for a model without a chat template",
        ),
        Option(
            name="api_key_env",
            summary="the variable that holds the server's key; OPENAI_API_KEY unless told",
        ),
    )

    def probe(
        self, options: Mapping[str, str], environ: Mapping[str, str]
    ) -> tuple[Installation, ...]:
        """The server at ``url``; without one nothing is looked for.

        Raises:
            Unavailable: nothing usable answers there.
            UsageError: an option has a value that it does not take.
        """
        if "url" not in options:
            return ()
        from velollm_openai.server import find

        return (find(options, environ),)

    def models(self, installation: Installation) -> tuple[Model, ...]:
        """What the server lists, in its order."""
        from velollm_openai.server import models

        return models(installation)

    def knobs(self, installation: Installation, model: Model) -> tuple[Knob, ...]:
        """What this kind of server takes with each request: nothing, save of a llama-server."""
        del model
        from velollm_openai.knobs import knobs_of
        from velollm_openai.server import kind_of

        return knobs_of(kind_of(installation))

    def current(
        self, installation: Installation, model: Model, environ: Mapping[str, str]
    ) -> Settings:
        """No knob is known of a server that tells none, only where the requests go."""
        del model, environ
        from velollm_openai.server import CHAT, endpoint_of

        endpoint = endpoint_of(installation)
        # So that figures of one endpoint never pass for those of the other.
        return Settings(extra_args=() if endpoint == CHAT else (f"--endpoint={endpoint}",))

    def attach(self, installation: Installation, model: Model, config: Config) -> Session:
        """A session with the running server; asks it for one token first.

        Raises:
            NeedsRestart: ``config`` holds what no request can change.
            RequestError: it does not answer that request.
        """
        from velollm_openai.session import attach

        return attach(installation, model, config)
