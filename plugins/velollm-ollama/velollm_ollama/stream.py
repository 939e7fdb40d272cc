"""An answer of Ollama as events: bodies of requests, and what the lines of an answer mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from attrs import frozen

from velollm_core.backends.contract import Event, Finish, Message, Request, ServerTimings
from velollm_core.backends.http import HttpClient
from velollm_core.config import Value
from velollm_core.errors import FailureKind, RequestError, UsageError
from velollm_ollama.api import parsed

_REASONS: Mapping[str, Literal["stop", "length"]] = {"stop": "stop", "length": "length"}
_MOST_LOGPROBS = 20
_MOST_TOKENS = 2**31
_LINES_A_TOKEN, _MORE_LINES = 16, 1024
"""An answer of more lines than this has no end."""
_NS_A_MS = 1e6


@frozen
class Call:
    """Where a request goes and what is posted."""

    path: str
    body: Mapping[str, Any]


def call_for(
    request: Request, options: Mapping[str, Value], fields: Mapping[str, Value], model: str
) -> Call:
    """The HTTP call of ``request``: messages go through the chat template, a text is raw.

    Args:
        request: what to generate.
        options: of the model and of the sampling, by Ollama's names; the request's own go before.
        fields: further ones of the body, such as ``keep_alive``.
        model: its name.

    Raises:
        UsageError: the prompt is token ids, which Ollama does not take.
    """
    sampling = request.sampling
    drawn = {"top_k": sampling.top_k, "top_p": sampling.top_p}
    body: dict[str, Any] = {
        "model": model,
        "stream": True,
        "options": {
            **options,
            "num_predict": request.max_tokens,
            "temperature": sampling.temperature,
            "seed": sampling.seed,
            **{name: value for name, value in drawn.items() if value is not None},
        },
        **fields,
    }
    if request.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": min(request.top_logprobs, _MOST_LOGPROBS)}
    prompt = request.prompt
    if isinstance(prompt, str):
        return Call("/api/generate", body | {"prompt": prompt, "raw": True})
    turns = [
        {"role": turn.role, "content": turn.content} for turn in prompt if isinstance(turn, Message)
    ]
    if not turns:
        raise UsageError("Ollama takes no token ids as a prompt.", "Give it a text, or messages.")
    return Call("/api/chat", body | {"messages": turns})


def decode(
    stream: Iterator[tuple[float, bytes]], client: HttpClient, *, max_tokens: int
) -> Iterator[Event | Finish]:
    """Events of one answer, and its end; lines of either endpoint.

    No event tells its number of tokens: Ollama sends text as it becomes whole characters, and
    counts in the last line alone.

    Args:
        stream: milliseconds and lines.
        client: what they came through.
        max_tokens: how many tokens were asked for.

    Raises:
        RequestError: the server gave up, or the answer is not whole or endless.
    """
    left = _LINES_A_TOKEN * max_tokens + _MORE_LINES
    for at_ms, line in stream:
        data = parsed(line, client)
        message = data.get("message")
        text = _spoken(message if isinstance(message, dict) else data)
        logprobs = _logprobs(data.get("logprobs"))
        if text or logprobs:
            yield Event(at_ms=at_ms, text=text, logprobs=logprobs)
        if data.get("done") is True:
            yield _finish(at_ms, data)
            return
        left -= 1
        if left < 0:
            raise RequestError(
                f"{client.url} did not end an answer of {max_tokens} tokens.",
                "",
                FailureKind.REFUSED,
            )
    raise RequestError(
        f"{client.url} ended an answer before its end.",
        "Ollama does so where a model repeats one token without end, or its runner died; its log "
        "says which.",
    )


def _spoken(part: Mapping[str, Any]) -> str:
    """Reasoning first, as it comes first."""
    words = (part.get(name) for name in ("thinking", "content", "response"))
    return "".join(word for word in words if isinstance(word, str))


def _logprobs(told: object) -> tuple[float, ...]:
    entries = told if isinstance(told, list) else []
    values = (entry.get("logprob") for entry in entries if isinstance(entry, dict))
    return tuple(float(value) for value in values if isinstance(value, int | float))


def _finish(at_ms: float, data: Mapping[str, Any]) -> Finish:
    """The end. What was reused of a prompt is counted with the rest of it, so that neither its
    number nor a rate of reading is known.
    """
    predicted_ms, timings = _ms(data.get("eval_duration")), None
    if predicted_ms is not None:
        prompt_ms = _ms(data.get("prompt_eval_duration")) or 0.0
        timings = ServerTimings(prompt_ms=prompt_ms, predicted_ms=predicted_ms)
    return Finish(
        at_ms=at_ms,
        reason=_REASONS.get(str(data.get("done_reason")), "unknown"),
        prompt_tokens=_count(data.get("prompt_eval_count")),
        output_tokens=_count(data.get("eval_count")),
        timings=timings,
    )


def _ms(nanoseconds: object) -> float | None:
    """Ollama leaves out what is zero."""
    number = _count(nanoseconds, 2**63)
    return None if number is None else number / _NS_A_MS


def _count(value: object, most: int = _MOST_TOKENS) -> int | None:
    return value if type(value) is int and 0 <= value <= most else None
