"""What is sent to an OpenAI-compatible server, and what the chunks of its answer mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import orjson
from attrs import frozen

from velollm_core.backends.contract import Event, Finish, Message, Request
from velollm_core.backends.http import HttpClient
from velollm_core.errors import FailureKind, RequestError

_CUT = "The server died or was stopped."
_CHUNKS_A_TOKEN, _MORE_CHUNKS = 16, 1024
"""Some servers send single characters. An answer of more chunks than this has no end."""
_MORE_TOKENS = 64
"""So many tokens more than were asked for may be those of the template or of the end."""
_MOST_TOKENS = 2**31
_REASONS: Mapping[str, Literal["stop", "length"]] = {"stop": "stop", "length": "length"}


@frozen
class Call:
    """Where a request goes and what is posted."""

    path: str
    body: Mapping[str, Any]


def call_for(
    request: Request, fields: Mapping[str, Any], *, model: str, endpoint: str, usage: bool
) -> Call:
    """The HTTP call of ``request``.

    Messages go to ``/v1/chat/completions``, where the server applies the chat template, or with
    ``endpoint="completions"`` to ``/v1/completions`` as their texts below each other, without one.
    A raw text and token ids always go there.

    Args:
        request: what to generate.
        fields: per-request knobs, by the names of their fields.
        model: the name of the model.
        endpoint: ``chat`` or ``completions``.
        usage: whether to ask for the chunk with the counts; some servers refuse that.
    """
    sampling = request.sampling
    # top_k is no field of the protocol, but all local servers take it.
    optional = {"top_p": sampling.top_p, "top_k": sampling.top_k}
    body: dict[str, Any] = {
        "model": model,
        "stream": True,
        "max_tokens": request.max_tokens,
        "temperature": sampling.temperature,
        "seed": sampling.seed,
        **{name: value for name, value in optional.items() if value is not None},
        **fields,
    }
    if usage:
        body["stream_options"] = {"include_usage": True}
    prompt = request.prompt
    if isinstance(prompt, str):
        return Call("/v1/completions", body | {"prompt": prompt})
    messages = [turn for turn in prompt if isinstance(turn, Message)]
    if not messages:
        return Call("/v1/completions", body | {"prompt": list(prompt)})
    if endpoint == "completions":
        text = "\n\n".join(turn.content for turn in messages)
        return Call("/v1/completions", body | {"prompt": text})
    turns = [{"role": turn.role, "content": turn.content} for turn in messages]
    return Call("/v1/chat/completions", body | {"messages": turns})


def decode(
    payloads: Iterator[tuple[float, bytes]], client: HttpClient, *, max_tokens: int
) -> Iterator[Event | Finish]:
    """Events of one answer, and its end; chunks of either endpoint.

    No event tells its number of tokens, because the protocol does not: a chunk may hold several.
    Counts come from ``usage``, in whichever chunk it stands. Tokens of reasoning that was counted
    and not sent cannot be told from the rest: there, the number of the answer's stays open.

    Args:
        payloads: milliseconds and data of the events of a stream.
        client: where they come from; puts what the server says into messages.
        max_tokens: how many tokens were asked for.

    Raises:
        RequestError: the server reported an error, or the answer is empty, not whole or endless.
    """
    usage: Mapping[str, Any] = {}
    reason = ""
    ended = spoke = reasoned = False
    left = _CHUNKS_A_TOKEN * max_tokens + _MORE_CHUNKS
    at_ms = 0.0
    for arrival_ms, payload in payloads:
        if payload == b"[DONE]":
            ended = True
            break
        if not payload:
            continue  # some servers keep a connection awake with an empty event
        at_ms = arrival_ms
        left -= 1
        if left < 0:
            raise RequestError(
                f"{client.url} did not end an answer of {max_tokens} tokens.",
                "Does the server ignore max_tokens?",
                FailureKind.REFUSED,
            )
        chunk = _chunk(payload, client)
        reasoned = reasoned or chunk.reasoned
        if chunk.text:
            spoke = True
            yield Event(at_ms=at_ms, text=chunk.text)
        reason = chunk.reason or reason
        usage = chunk.usage or usage
    if not reason and not ended:
        raise RequestError(f"{client.url} ended an answer before its end.", _CUT)
    if not reason and not spoke:
        raise RequestError(
            f"{client.url} sent neither text nor a reason why it ended.", "", FailureKind.REFUSED
        )
    count = _count(usage.get("completion_tokens"), max_tokens + _MORE_TOKENS)
    thought = _count(_mapping(usage.get("completion_tokens_details")).get("reasoning_tokens"))
    yield Finish(
        at_ms=at_ms,
        reason=_REASONS.get(reason, "unknown"),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        cached_tokens=_count(_mapping(usage.get("prompt_tokens_details")).get("cached_tokens")),
        output_tokens=count if reasoned or not thought else None,
    )


class _Chunk(NamedTuple):  # made for every event: a tuple costs a third of a class
    text: str
    reason: str
    usage: Mapping[str, Any]
    reasoned: bool


def _chunk(payload: bytes, client: HttpClient) -> _Chunk:
    try:
        data = orjson.loads(payload)
    except ValueError as error:
        raise RequestError(
            f"{client.url} sent an event that is no JSON: {client.quoted(payload, 80)!r}.", _CUT
        ) from error
    if not isinstance(data, dict):
        raise RequestError(
            f"{client.url} sent an event that is no object: {client.quoted(payload, 80)!r}."
        )
    if data.get("error") or data.get("object") == "error":  # the latter of older vLLMs
        fault = data.get("error") or data
        words = fault.get("message") if isinstance(fault, dict) else fault
        said = client.quoted(words if isinstance(words, str) else payload)
        raise RequestError(f"{client.url} gave up an answer: {said}.", "", FailureKind.REFUSED)
    choices = data.get("choices")
    choice = _mapping(choices[0]) if isinstance(choices, list) and choices else {}
    delta = choice.get("delta")
    reasoning = ""
    if isinstance(delta, dict):
        # Which of the two names reasoning goes by differs between servers; some send both.
        reasoning = _text(delta.get("reasoning_content")) or _text(delta.get("reasoning"))
        text = reasoning + _text(delta.get("content"))
    else:
        text = _text(choice.get("text"))
    usage = _mapping(data.get("usage"))
    return _Chunk(text, _text(choice.get("finish_reason")), usage, bool(reasoning))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: object, most: int = _MOST_TOKENS) -> int | None:
    return value if type(value) is int and 0 <= value <= most else None
