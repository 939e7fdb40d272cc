"""What can be set for one request.

The protocol has nothing for this: its fields decide what is answered, not how fast. vLLM and SGLang
take more fields than the protocol has, and of these too none is about speed. llama-server has two.
"""

from __future__ import annotations

from velollm_core.config import Choices, Condition, Knob, Range, Role

_SOURCE = "llama.cpp, tools/server/README.md, POST /completion"
_SILENT = "a field of each request, which no server tells back"

KNOBS = (
    Knob(
        name="cache_prompt",
        role=Role.PROMPT_CACHE,
        domain=Choices((True, False)),
        summary="whether a prompt reuses what its slot holds of it (llama-server)",
        source=_SOURCE,
        numerics="rounding",
        change="per_request",
        unreadable=_SILENT,
    ),
    Knob(
        name="n_cache_reuse",
        role=Role.PROMPT_CACHE,
        domain=Range(0, 2**20),
        unit="tokens",
        summary="shortest piece of a prompt that is reused at another position; 0: none is "
        "(llama-server)",
        source=_SOURCE,
        numerics="lossy",
        change="per_request",
        active_when=Condition("cache_prompt", (True,)),
        unreadable=_SILENT,
    ),
)
"""Each by the name of the request's field."""


def knobs_of(kind: str | None) -> tuple[Knob, ...]:
    """The knobs of a kind of server; one that is not recognised has none, for it may ignore what it
    does not know.
    """
    return KNOBS if kind == "llamacpp" else ()
