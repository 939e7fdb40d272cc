"""What Ollama has pulled is found by its name, as a file that other engines can run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from velollm_ollama.source import OllamaSource
from velollm_ollama.store import Name, find, folders, is_name, parameters_of, pulled

from velollm_core.errors import ModelError, UsageError
from velollm_core.models.references import resolve
from velollm_core.plugins import load


@pytest.fixture
def source(models_folder):
    """Resolves a reference as the command does, with these models."""

    def make(reference: str, folder: Path = models_folder):
        environ = {"OLLAMA_MODELS": str(folder)}
        return resolve(reference, [OllamaSource()], progress=lambda *_: None, environ=environ)

    return make


def test_the_scheme_is_offered_to_every_engine():
    assert "ollama" in {source.scheme for source in load({}).model_sources()}


@pytest.mark.parametrize(
    "name", ["small", "small:latest", "library/small", "SMALL", "registry.ollama.ai/library/small"]
)
def test_a_model_is_found_by_every_way_to_write_its_name(source, name):
    model = source(f"ollama:{name}")
    assert model.spec.architecture == "llama"
    assert model.path.name.startswith("sha256-")


def test_a_model_of_another_namespace_and_registry_is_found(source, put_model, tmp_path):
    put_model(tmp_path, "bartowski/some-model_GGUF:Q4_K_M", host="hf.co")
    assert source("ollama:hf.co/bartowski/some-model_GGUF:Q4_K_M", tmp_path).spec.layers == 2
    with pytest.raises(ModelError):
        source("ollama:bartowski/some-model_GGUF:Q4_K_M", tmp_path)


def test_a_model_that_was_not_pulled_is_refused_with_how_to_pull_it(source, models_folder):
    with pytest.raises(ModelError) as caught:
        source("ollama:llama3.2")
    assert caught.value.message == (
        f"Ollama has no model llama3.2 on this machine; looked in {models_folder}."
    )
    assert "ollama pull llama3.2" in caught.value.hint


def test_a_folder_that_may_not_be_read_is_named(source, put_model, tmp_path, monkeypatch):
    put_model(tmp_path)
    monkeypatch.setattr(os, "scandir", _refused)  # who runs the tests may read everything
    with pytest.raises(ModelError) as caught:
        source("ollama:none", tmp_path)
    assert caught.value.hint == f"It may lie in {tmp_path}, which you may not read."


def _refused(path):
    raise PermissionError(13, "Permission denied", str(path))


@pytest.mark.parametrize(
    "name",
    ["", "a/b/c/d", "a:b:c", "../../etc/passwd", "a b", "$(reboot)", "a;b", "a'b", "-x", "x\n"],
)
def test_what_is_no_name_never_becomes_a_path_or_a_command(source, name):
    with pytest.raises(UsageError, match="no name of a model"):
        source(f"ollama:{name}")


def test_a_blob_that_is_missing_is_said(source, put_model, tmp_path):
    put_model(tmp_path)
    for path in tmp_path.glob("blobs/*"):
        path.unlink()
    with pytest.raises(ModelError, match="is missing or may not be read"):
        source("ollama:small", tmp_path)


def test_a_model_without_one_gguf_file_is_no_file_for_others(source, put_model, tmp_path):
    path = put_model(tmp_path)
    manifest = json.loads(path.read_text("utf-8"))
    manifest["layers"][0]["mediaType"] = "application/vnd.ollama.image.tensor"
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ModelError, match="no model in one GGUF file"):
        source("ollama:small", tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b'{"layers": 3}', b'{"layers": [{}]}', b"\xff", b"[" * 100_000],
)
def test_a_damaged_manifest_costs_only_its_own_model(put_model, tmp_path, content):
    put_model(tmp_path, "library/whole:latest")
    put_model(tmp_path, "library/damaged:latest").write_bytes(content)
    assert [str(entry.name) for entry in pulled(tmp_path)] == ["whole:latest"]


@pytest.mark.parametrize("digest", ["sha256:../../../../etc/passwd", "md5:0", "", 7])
def test_a_digest_that_is_none_leads_to_no_file(put_model, tmp_path, digest):
    path = put_model(tmp_path)
    manifest = json.loads(path.read_text("utf-8"))
    manifest["layers"][0]["digest"] = digest
    path.write_text(json.dumps(manifest), encoding="utf-8")
    (entry,) = pulled(tmp_path)
    assert entry.weights is None


def test_files_that_are_no_manifests_are_passed_over(put_model, tmp_path):
    put_model(tmp_path)
    (tmp_path / "manifests" / "registry.ollama.ai" / "library" / "small" / ".DS_Store").touch()
    assert len(pulled(tmp_path)) == 1
    assert pulled(tmp_path / "nowhere") == ()


def test_what_was_pulled_last_comes_first(models_folder):
    assert [str(entry.name) for entry in pulled(models_folder)] == ["small:latest", "other/one:q4"]


def test_a_model_of_another_content_is_not_taken_for_it(models_folder):
    name = Name.parse("small")
    digest = find(name, (models_folder,)).digest
    assert find(name, (models_folder,), digest) is not None
    assert find(name, (models_folder,), "0" * 64) is None


def test_a_models_own_parameters_are_told_a_line_each(models_folder):
    entry = find(Name.parse("other/one:q4"), (models_folder,))
    assert parameters_of(entry).splitlines() == ["num_ctx 2048", 'stop ["</s>"]']
    assert parameters_of(find(Name.parse("small"), (models_folder,))) == ""


def test_models_lie_where_the_variable_says_else_where_ollama_keeps_them():
    assert folders(' "/data/m" ', {"HOME": "/h"}) == (Path("/data/m"),)
    assert folders("", {"HOME": "/h"})[0] == Path("/h/.ollama/models")


@given(st.text(max_size=20))
def test_a_name_that_is_taken_says_the_same_when_written_out(text):
    if is_name(text):
        name = Name.parse(text)
        assert Name.parse(str(name)) == Name.parse(name.short) == name
        assert os.sep not in name.model + name.tag
