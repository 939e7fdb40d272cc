"""Which layers attend to a sliding window only, as llama.cpp decides it.

Most files do not say it: each architecture has its own pattern, in ``load_arch_hparams`` of its
file in llama.cpp's ``src/models/``, which ``load_swa_pattern`` (``llama-model.cpp``) and
``set_swa_pattern`` (``llama-hparams.cpp``) carry out. As of build 11434. An architecture that is
not named here has no window in llama.cpp, even where its file names one (``phi3``, Mistral).
"""

from __future__ import annotations

from types import MappingProxyType

from attrs import frozen

KEY = "attention.sliding_window"
PATTERN_KEY = "attention.sliding_window_pattern"

_EXAONE4_LAYERS = 64  # the 32B model; smaller ones have no window


@frozen(kw_only=True)
class _Windows:
    """``every``: of so many layers one attends to everything, the last of them, or the first where
    ``full_first``; 0: the file lists the layers. ``window`` holds where the file names none, or in
    any case where ``fixed``.
    """

    every: int
    full_first: bool = False
    window: int = 0
    fixed: bool = False


_ARCHITECTURES = MappingProxyType(
    {
        "afmoe": _Windows(every=4),
        "cohere2": _Windows(every=4),
        "cohere2moe": _Windows(every=4, full_first=True),
        "deepseek4": _Windows(every=0),
        "dots3note": _Windows(every=0),
        "exaone-moe": _Windows(every=4, window=128),
        "exaone4": _Windows(every=4, window=4096),
        "gemma2": _Windows(every=2, window=4096),
        "gemma3": _Windows(every=6),
        "gemma3n": _Windows(every=5),
        "gemma4": _Windows(every=0),
        "gpt-oss": _Windows(every=2),
        "granite_swa": _Windows(every=0),
        "laguna": _Windows(every=4, full_first=True),
        "lfm2": _Windows(every=0),
        "llama4": _Windows(every=4, window=8192, fixed=True),
        "maple": _Windows(every=0),
        "mellum": _Windows(every=4),
        "mimo2": _Windows(every=0),
        "muse-glimmer": _Windows(every=4),
        "olmo2": _Windows(every=4),
        "plamo3": _Windows(every=8),
        "smallthinker": _Windows(every=4, full_first=True, window=4096, fixed=True),
        "spark2_5": _Windows(every=0),
        "step35": _Windows(every=0),
    }
)
_ALL_LAYERS_SLIDE = frozenset({"deepseek4", "lfm2"})
_WITHOUT_KEY_NONE = frozenset({"smallthinker"})


def sliding_window(architecture: str, layers: int, named: int | None) -> int:
    """The window in tokens, 0 where llama.cpp uses none.

    Args:
        architecture: as the file names it.
        layers: of the model.
        named: what the file's key says, ``None`` where it has none.
    """
    rule = _ARCHITECTURES.get(architecture)
    if rule is None or named == 0 or (named is None and architecture in _WITHOUT_KEY_NONE):
        return 0
    if architecture == "exaone4" and layers != _EXAONE4_LAYERS:
        return 0
    return rule.window if rule.fixed or named is None else named


def sliding_layers(
    architecture: str, layers: int, window: int, pattern: tuple[int, ...] | None
) -> tuple[bool, ...]:
    """For each layer, whether it has the window.

    Args:
        architecture: as the file names it.
        layers: of the model.
        window: from :func:`sliding_window`.
        pattern: the file's own: whether each slides, a single number (of so many layers one is
            full), or ``None`` where it has none.
    """
    if not window:
        return (False,) * layers
    if architecture in _ALL_LAYERS_SLIDE:
        return (True,) * layers
    rule = _ARCHITECTURES[architecture]
    if pattern is not None and len(pattern) == layers > 1:
        return tuple(bool(slides) for slides in pattern)
    every = pattern[0] if pattern else rule.every
    if every == 0:
        return (pattern is not None,) * layers
    full = 0 if rule.full_first else every - 1
    return tuple(layer % every != full for layer in range(layers))
