"""What goes to a server and what comes back: a request, the events of its answer, and its end.

Events carry the milliseconds since their request was sent, measured at the client; counts and phase
timings are the server's own, and absent where the server does not tell.
"""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from velollm_core.config import Config


@frozen(kw_only=True)
class Message:
    """One turn of a conversation; the server applies the model's chat template."""

    role: Literal["system", "user", "assistant"]
    content: str


@frozen(kw_only=True)
class Sampling:
    """How tokens are drawn. The default is greedy, so that two configurations can be compared."""

    temperature: float = 0.0
    seed: int = 0
    top_k: int | None = None
    top_p: float | None = None


@frozen(kw_only=True)
class Request:
    """One request: a raw text, token ids, or messages for the chat template.

    ``config`` holds per-request knobs. ``top_logprobs`` asks for that many alternatives a token.
    ``timeout_s`` bounds the silence between two events, not the whole answer.
    """

    prompt: str | tuple[int, ...] | tuple[Message, ...]
    max_tokens: int
    sampling: Sampling = Sampling()
    config: Config = Config()
    top_logprobs: int | None = None
    timeout_s: float = 120.0


@frozen(kw_only=True, slots=True)
class Event:
    """Something arrived. ``tokens`` is how many, if the server says so: under speculation they come
    in bursts.

    A chunk with only a role has no text and is not a first token.
    """

    at_ms: float
    text: str
    tokens: int | None = None
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()


@frozen(kw_only=True)
class ServerTimings:
    """The server's own clock: prompt processing and generation, milliseconds.

    ``predicted_ms`` spans from the first token to the last, so the server's decode rate is
    ``(output_tokens - 1) / predicted_ms`` where the first token comes free with the prompt.
    """

    prompt_ms: float
    predicted_ms: float
    prompt_per_second: float | None = None
    predicted_per_second: float | None = None


@frozen(kw_only=True)
class Finish:
    """The end of an answer. Counts are the server's, ``None`` where it does not tell."""

    at_ms: float
    reason: Literal["stop", "length", "unknown"]
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    timings: ServerTimings | None = None
    drafted_tokens: int | None = None
    accepted_tokens: int | None = None
