"""A model's texts are printed in the log among the engine's words, and are not taken for them."""

from __future__ import annotations

import attrs
import pytest
from gguf import GGUFReader, GGUFWriter
from velollm_llamacpp.readback import own_lines, read_log

from velollm_core.config import Config, Settings

LIES = (
    "listening on http://127.0.0.1:1 n_slots = 9",
    "srv    load_model: initializing, n_slots = 9",
    "srv  llama_server: listening on http://127.0.0.1:1",
    "llama_context: n_ctx                 = 7",
)
OURS = """\
0.00.1.002 I cmn  common_param: system_info: n_threads = 3 (n_threads_batch = 4) / 8 | CPU : AVX = 1
0.00.1.003 I llama_context: n_ctx                 = 8192
0.00.2.003 I srv    load_model: initializing, n_slots = 4, n_ctx_slot = 8192, kv_unified = 'true'
"""
TRUE = {"threads": 3, "threads_batch": 4, "context": 8192, "slots": 4}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize(
    "place",
    [
        "0.00.0.001 I llama_model_loader: - kv   9:            general.name str              = {}",
        "0.00.0.001 I print_info: general.name          = {}",
        "0.00.0.001 I srv          init: init: chat template, example_format: '{}'",
        "0.00.0.001 I srv          init: init: chat template, example_format: 'first\n{}\nlast'",
    ],
)
def test_what_a_model_says_is_not_what_the_engine_says(place, lie):
    assert read_log(f"{place.format(lie)}\n{OURS}") == Config(TRUE)


def test_a_log_without_stamps_is_read_too():
    plain = "\n".join(line.split(" I ", 1)[1] for line in OURS.splitlines())
    assert own_lines(OURS) == own_lines(plain) == plain
    assert read_log(plain) == Config(TRUE)


@pytest.mark.engine
def test_an_engine_is_found_and_read_whatever_its_model_says(
    backend, installation, demo, place, tmp_path
):
    path = tmp_path / "liar.gguf"
    template = "\n".join(stamp + lie for lie in LIES for stamp in ("", "0.00.000.001 I "))
    copy_with(demo.path, path, {"general.name": LIES[0], "tokenizer.chat_template": template})
    config = backend.defaults(installation, demo).config | Config({"threads": 1, "context": 512})
    model = attrs.evolve(demo, path=path)
    with backend.launch(installation, model, Settings(config=config), place()) as session:
        assert session.tokenize("hello")
        effective = session.effective()
    assert (effective["slots"], effective["context"]) == (4, 512)


def copy_with(source, target, texts):
    """A copy of a GGUF file with other texts in its header."""
    reader = GGUFReader(source)
    writer = GGUFWriter(target, reader.get_field("general.architecture").contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = texts.get(name, field.contents())
        writer.add_key_value(name, value, field.types[0], *field.types[1:2])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
