"""How a user names a model, and what comes of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from velollm_core.errors import ModelError, UsageError
from velollm_core.models.demo import DemoSource
from velollm_core.models.hub import HubSource
from velollm_core.models.references import ModelSource, resolve
from velollm_core.models.source_hooks import velollm_register_model_sources


class Shelf(ModelSource):
    """A source of one's own: names below a folder."""

    scheme = "shelf"
    summary = "models in one folder"

    def __init__(self, folder):
        self.folder = folder

    def resolve(self, rest, progress, environ):
        progress(1, 2, f"looking for {rest} in {environ['ROOM']}")
        return self.folder / f"{rest}.gguf"


@pytest.fixture
def named(tmp_path):
    """Resolves a reference with a shelf, the demo and the hub; ``progress`` holds the steps."""

    def find(reference):
        return resolve(
            reference,
            [Shelf(tmp_path), DemoSource(), HubSource()],
            progress=lambda *step: find.progress.append(step),
            environ={**os.environ, "ROOM": "the hall"},
        )

    find.progress = []
    return find


def test_a_path_gives_the_model_with_its_header_and_fingerprint(named, write_model):
    path = write_model(keys={"general.name": "Tiny"})
    model = named(str(path))
    assert (model.reference, model.path) == (str(path), path)
    assert (model.spec.name, model.spec.layers) == ("Tiny", 2)
    assert len(model.fingerprint) == 32
    assert model.served_name is None


def test_a_relative_path_becomes_absolute(named, write_model, monkeypatch):
    path = write_model()
    monkeypatch.chdir(path.parent)
    assert named("model.gguf").path == path


def test_a_tilde_is_the_home_folder(named, write_model, monkeypatch):
    path = write_model()
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(path.parent))
    assert named("~/model.gguf").path == path


def test_any_part_of_a_split_model_gives_its_first_file(named, write_model, tmp_path):
    write_model("m.gguf", tensors={"a": (32,), "b": (32,)}, split_max_tensors=1)
    model = named(str(tmp_path / "m-00002-of-00002.gguf"))
    assert model.path.name == "m-00001-of-00002.gguf"
    assert model.spec.split_count == 2


def test_a_scheme_leads_to_the_source_that_a_plugin_registered(named, write_model):
    path = write_model("tiny.gguf")
    assert named("shelf:tiny").path == path
    assert named.progress == [(1, 2, "looking for tiny in the hall")]


def test_an_unknown_scheme_is_refused_with_the_known_ones(named):
    with pytest.raises(UsageError, match="no model source 'ftp'; known: demo, hf, shelf"):
        named("ftp://example.org/model.gguf")


def test_a_drive_letter_is_no_scheme(named):
    with pytest.raises(ModelError, match="there is no file"):
        named(r"C:\models\model.gguf")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no colon in names")
def test_a_file_with_a_colon_in_its_name_is_a_path(named, write_model, monkeypatch):
    path = write_model("llama:8b.gguf")
    monkeypatch.chdir(path.parent)
    assert named("llama:8b.gguf").path == path


def test_a_file_called_like_a_scheme_is_named_with_a_dot(named, write_model, monkeypatch):
    path = write_model("shelf")
    monkeypatch.chdir(path.parent)
    assert named("./shelf").path == path


@pytest.mark.parametrize("reference", ["", "no-such-model", "~no-such-user/model.gguf", "a\0b"])
def test_what_is_not_there_is_refused_in_one_sentence(reference, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as refused:
        named(reference)
    assert "\n" not in refused.value.message
    assert refused.value.hint


def test_there_is_one_demo_model(named):
    with pytest.raises(UsageError, match="no demo:large"):
        named("demo:large")


def test_the_core_registers_its_sources_as_a_plugin_would():
    sources = []
    velollm_register_model_sources(sources.append)
    assert [source.scheme for source in sources] == ["demo", "hf"]
    assert all(source.summary for source in sources)


def test_nothing_heavy_is_imported_to_read_a_model(write_model):
    code = (
        "import sys; from velollm_core.models.references import resolve;"
        "from velollm_core.models.demo import DemoSource;"
        "from velollm_core.models.describe import describe;"
        f"describe(resolve({str(write_model())!r}, [DemoSource()], progress=print, environ={{}}));"
        "print(sorted({'numpy', 'requests', 'rich', 'cattrs', 'zipfile', 'huggingface_hub', 'gguf'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
