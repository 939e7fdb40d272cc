"""From the metadata of a model's files to a :class:`~velollm_core.models.spec.ModelSpec`.

The keys and their defaults are llama.cpp's (``llama-arch.cpp``, ``llama-model.cpp``).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from attrs import frozen

from velollm_core.errors import ModelError
from velollm_core.models.ggml_types import FILE_TYPES
from velollm_core.models.gguf import GgufFile, TensorInfo
from velollm_core.models.gguf_values import GgufArray
from velollm_core.models.layers import read_layers
from velollm_core.models.spec import ModelSpec, RecurrentState
from velollm_core.models.windows import KEY as WINDOW_KEY
from velollm_core.models.windows import PATTERN_KEY, sliding_layers, sliding_window

_LAYER_LIMIT = 4096  # llama.cpp's own is 512
_EXPERT_LIMIT = 4096  # 512
_COUNT_LIMIT = 1 << 40
_FILE_TYPE_WAS_GUESSED = 1024
_LAYER_TENSOR = re.compile(r"blk\.(\d+)\.(attn_k\b|ssm_|time_mix_|shortconv)")
_RWKV_TOKEN_SHIFTS = 2
_KDA_KERNEL = 4
_GEMMA3N_CACHES = 20  # models/gemma3n.cpp: the layers after these use the caches of others
_WITHOUT_CACHE = frozenset(  # llama_model::create_memory gives them none: they read whole texts
    {
        *("bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert"),
        *("jina-bert-v2", "jina-bert-v3", "gemma-embedding", "wavtokenizer-dec", "clef"),
        *("dream", "llada", "llada-moe", "rnd1"),
    }
)


def model_spec(files: Sequence[GgufFile]) -> ModelSpec:
    """What the files of one model say: the metadata of the first, the tensors of all.

    Raises:
        ModelError: they hold something else than a model, or a key is missing or makes no sense.
    """
    keys = _Keys(files[0], _architecture(files[0]))
    tensors = [tensor for file in files for tensor in file.tensors]
    type_bytes: Counter[str] = Counter()
    for tensor in tensors:
        type_bytes[tensor.type] += tensor.bytes

    layers = keys.count("block_count", least=1, most=_LAYER_LIMIT)
    embedding_length = keys.count("embedding_length", least=1)
    heads = keys.per_layer("attention.head_count", layers, 0)
    head_dim = embedding_length // max(1, heads[0] or max(heads))
    recurrent, without_cache = _recurrent_layers(tensors)
    loaded = layers - keys.count("nextn_predict_layers", 0, most=layers - 1)
    experts_total, experts_used = _experts(keys, layers)
    caches = min(loaded, _caches(keys, layers))
    window = sliding_window(keys.architecture, layers, _named_window(keys, layers))
    pattern = _pattern(keys, layers) if window else None
    slides = sliding_layers(keys.architecture, layers, window, pattern)
    parts = read_layers(tensors, layers, loaded)
    tokens = keys.file.metadata.get("tokenizer.ggml.tokens")
    name = keys.file.metadata.get("general.name")
    return ModelSpec(
        architecture=keys.architecture,
        name=name if isinstance(name, str) else None,
        parameter_count=sum(tensor.elements for tensor in tensors),
        layers=layers,
        embedding_length=embedding_length,
        feed_forward_length=max(keys.per_layer("feed_forward_length", layers, 0)) or None,
        heads=heads,
        kv_heads=tuple(
            0 if layer >= caches or str(layer) in without_cache else count
            for layer, count in enumerate(keys.per_layer("attention.head_count_kv", layers, heads))
        ),
        head_dims_k=_head_dims(keys, "key", slides, head_dim),
        head_dims_v=_head_dims(keys, "value", slides, head_dim),
        sliding_window=window or _named_window(keys, layers) or None,
        sliding_layers=slides,
        latent_kv=keys.count("attention.key_length_mla", 0) > 0,
        experts_total=experts_total,
        experts_used=experts_used,
        recurrent=_recurrent_state(keys, embedding_length, max(heads), len(recurrent) or layers),
        context_length=keys.count("context_length", least=1),
        vocabulary_size=(
            tokens.length if isinstance(tokens, GgufArray) else keys.count("vocab_size", 0) or None
        ),
        vocabulary_fingerprint=_vocabulary_fingerprint(keys.file),
        type_bytes=dict(type_bytes),
        layer_bytes=parts.layer_bytes,
        expert_bytes=parts.expert_bytes,
        largest_bytes=parts.largest_bytes,
        input_bytes=parts.input_bytes,
        output_bytes=parts.output_bytes,
        tied_bytes=parts.tied_bytes,
        repackable_bytes=parts.repackable_bytes,
        shapes=parts.shapes,
        tensor_count=len(tensors),
        quantization=_quantization(keys.file, type_bytes),
        chat_template="tokenizer.chat_template" in keys.file.metadata,
        file_bytes=sum(file.file_bytes for file in files),
        split_count=len(files),
        big_endian=keys.file.big_endian,
    )


@frozen
class _Keys:
    """The keys of one architecture, as numbers that make sense."""

    file: GgufFile
    architecture: str

    def senseless(self, key: str, value: object) -> ModelError:
        return ModelError(
            f"{self.file.path} is damaged: its key {self.architecture}.{key} is {value!r}.",
            "Get another copy or conversion of the model.",
        )

    def count(
        self, key: str, default: int | None = None, *, least: int = 0, most: int = _COUNT_LIMIT
    ) -> int:
        value = self.file.metadata.get(f"{self.architecture}.{key}", default)
        if value is None:
            raise ModelError(
                f"{self.file.path} has no key {self.architecture}.{key}, which every language "
                "model has.",
                "It is incomplete, or a model for something else.",
            )
        return self._checked(key, value, least, most)

    def per_layer(self, key: str, layers: int, default: int | tuple[int, ...]) -> tuple[int, ...]:
        value = self.file.metadata.get(f"{self.architecture}.{key}", default)
        if isinstance(value, tuple):
            return value
        if isinstance(value, GgufArray):
            if value.length != layers:
                raise self.senseless(key, f"{value.length} values for {layers} layers")
            if value.element_type == "string":  # to decode them might take much memory
                raise self.senseless(key, "an array of texts")
            return tuple(self._checked(key, entry) for entry in value.values())
        return (self._checked(key, value),) * layers

    def _checked(self, key: str, value: object, least: int = 0, most: int = _COUNT_LIMIT) -> int:
        if not isinstance(value, int) or not least <= value <= most:
            raise self.senseless(key, value)
        return int(value)


def _architecture(file: GgufFile) -> str:
    architecture = file.metadata.get("general.architecture")
    kind = file.metadata.get("general.type", "model")
    if architecture == "clip" or kind == "mmproj":
        raise ModelError(
            f"{file.path} is a multimodal projector, which goes with a model and is none.",
            "Give the file of the language model.",
        )
    if kind != "model" or not isinstance(architecture, str):
        raise ModelError(
            f"{file.path} is a GGUF file but no model: its type is {kind!r} and its architecture "
            f"{architecture!r}.",
            "Give the file of a language model.",
        )
    return architecture


def _recurrent_layers(tensors: Sequence[TensorInfo]) -> tuple[set[str], set[str]]:
    """Layers with recurrent state, and those of them that keep no KV cache, as their tensors show.

    Hybrid models do not always say it in ``attention.head_count_kv``.
    """
    recurrent: set[str] = set()
    attending: set[str] = set()
    for tensor in tensors:
        match = _LAYER_TENSOR.match(tensor.name)
        if match:
            (attending if match[2] == "attn_k" else recurrent).add(match[1])
    return recurrent, recurrent - attending


def _recurrent_state(
    keys: _Keys, embedding_length: int, heads: int, layers: int
) -> RecurrentState | None:
    if head_size := keys.count("wkv.head_size", 0):
        return RecurrentState(
            layers=layers,
            conv_kernel=1 + keys.count("token_shift_count", _RWKV_TOKEN_SHIFTS),
            inner_size=embedding_length,
            state_size=head_size,
        )
    if kernel := keys.count("shortconv.l_cache", 0):
        return RecurrentState(
            layers=layers, conv_kernel=kernel, inner_size=embedding_length, state_size=0
        )
    kernel = keys.count("ssm.conv_kernel", 0)
    if head_dim := keys.count("kda.head_dim", 0):
        inner_size = heads * head_dim  # three convolutions: queries, keys and values
        return RecurrentState(
            layers=layers,
            conv_kernel=kernel or _KDA_KERNEL,
            inner_size=inner_size,
            state_size=head_dim,
            group_count=heads,
        )
    if kernel:
        return RecurrentState(
            layers=layers,
            conv_kernel=kernel,
            inner_size=keys.count("ssm.inner_size", 0),
            state_size=keys.count("ssm.state_size", 0),
            group_count=keys.count("ssm.group_count", 0),
            time_step_rank=keys.count("ssm.time_step_rank", 0),
        )
    return None


def _experts(keys: _Keys, layers: int) -> tuple[int, int]:
    """How many there are, and how many of them a token uses: at least one, if there are any."""
    total = keys.count("expert_count", 0, most=_EXPERT_LIMIT)
    used = max(keys.per_layer("expert_used_count", layers, 0))
    if not min(1, total) <= used <= total:
        raise keys.senseless("expert_used_count", f"{used} of {total} experts")
    return total, used


def _caches(keys: _Keys, layers: int) -> int:
    """How many layers keep a KV cache of their own, as far as the architecture goes."""
    if keys.architecture in _WITHOUT_CACHE:
        return 0
    if keys.architecture == "gemma3n":
        return _GEMMA3N_CACHES
    return layers - keys.count("attention.shared_kv_layers", 0, most=layers)


def _named_window(keys: _Keys, layers: int) -> int | None:
    """The window that the file names, ``None`` where it has no such key."""
    if f"{keys.architecture}.{WINDOW_KEY}" not in keys.file.metadata:
        return None
    return max(keys.per_layer(WINDOW_KEY, layers, 0))


def _pattern(keys: _Keys, layers: int) -> tuple[int, ...] | None:
    value = keys.file.metadata.get(f"{keys.architecture}.{PATTERN_KEY}")
    if isinstance(value, GgufArray):
        return keys.per_layer(PATTERN_KEY, layers, 0)
    return None if value is None else (keys.count(PATTERN_KEY),)


def _head_dims(keys: _Keys, part: str, slides: Sequence[bool], default: int) -> tuple[int, ...]:
    full = keys.count(f"attention.{part}_length", default)
    sliding = keys.count(f"attention.{part}_length_swa", full)
    return tuple(sliding if slide else full for slide in slides)


def _quantization(file: GgufFile, type_bytes: Counter[str]) -> str | None:
    """The mixture that the file names, else the type that most of its bytes are in."""
    kind = file.metadata.get("general.file_type")
    if isinstance(kind, int) and kind & ~_FILE_TYPE_WAS_GUESSED in FILE_TYPES:
        return FILE_TYPES[kind & ~_FILE_TYPE_WAS_GUESSED]
    return max(type_bytes, key=lambda name: type_bytes[name], default=None)


def _vocabulary_fingerprint(file: GgufFile) -> str | None:
    """A hash of what llama.cpp compares before one model may draft for another.

    That is the kind of tokenizer, the tokens, and the begin and end marks where they are added
    (``common_speculative_are_compatible``). llama.cpp also lets a few tokens differ, so models with
    different fingerprints may still be compatible; models with equal ones are.
    """
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, GgufArray):
        return None
    digest = hashlib.sha256(str(file.metadata.get("tokenizer.ggml.model")).encode())
    for mark in ("bos", "eos"):
        added = file.metadata.get(f"tokenizer.ggml.add_{mark}_token")
        token = None if added is False else file.metadata.get(f"tokenizer.ggml.{mark}_token_id")
        digest.update(f"|{mark} {added} {token}".encode())
    digest.update(tokens.raw)
    return digest.hexdigest()[:32]
