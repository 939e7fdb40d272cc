"""The core's own rules, offered as a plugin's would be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from velollm_core.backends.advice import AdviceContext
    from velollm_core.config import Kept, Suggestion


@hookimpl
def velollm_suggest(context: AdviceContext) -> Iterable[Suggestion | Kept]:
    """Threads, and what shares the memory: placement, context, slots, KV cache, batch, prompts."""
    # Imported here: every command loads this module, and only optimize needs the rest.
    from velollm_core.optimize.rules import suggestions

    return suggestions(context)
