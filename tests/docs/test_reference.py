"""The reference says what the code does: nothing that a user can name is missing."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path

import pytest

from velollm_core import errors, hookspecs

ROOT = Path(__file__).parents[2]
PACKAGES = [ROOT / "velollm_core", ROOT / "plugins" / "velollm-llamacpp" / "velollm_llamacpp"]


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(name: str) -> str:
    return (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")


def sources() -> str:
    return "\n".join(
        path.read_text(encoding="utf-8") for package in PACKAGES for path in package.rglob("*.py")
    )


def test_the_generated_pages_are_up_to_date(generator):
    stale = [name for name, write in generator.PAGES.items() if write() != page(name)]
    assert stale == [], "run: nox -s docs"


def test_every_hook_is_documented_with_its_arguments():
    text = page("hooks.md")
    for name, function in vars(hookspecs).items():
        if name.startswith("velollm_"):
            arguments = list(inspect.signature(function).parameters)
            assert f"`{name}({', '.join(arguments)})`" in text
            for argument in arguments:
                assert f"- `{argument}`: " in text


def test_every_error_class_is_documented_with_its_exit_code():
    text = page("errors.md")
    for name, kind in vars(errors).items():
        if inspect.isclass(kind) and issubclass(kind, errors.VeloError):
            assert f"| `{name}` | {kind.exit_code} |" in text
    for failure in errors.FailureKind:
        assert f"`{failure.value}`" in text


def test_every_option_is_documented(generator):
    text = page("command-line.md")
    for path, command in generator.commands():
        assert f"## `{' '.join(path)}`" in text
        for option in generator.options(command):
            assert option.opts[-1] in text


def test_every_environment_variable_is_documented():
    text = page("environment.md")
    named = set(re.findall(r"VELOLLM_[A-Z_]+[A-Z]", sources())) - {"VELOLLM_HOOKS"}
    assert {name for name in named if f"`{name}`" not in text} == set()


def test_every_knob_is_documented_and_says_whether_it_can_be_read_back():
    from velollm_llamacpp.backend import LlamaCpp

    from velollm_core.models.spec import Model

    text = page("knobs-llamacpp.md")
    backend = LlamaCpp()
    for installation in backend.probe({"engine": "embedded"}, {}):
        for knob in backend.knobs(installation, Model(reference="demo")):
            assert f"| `{knob.name}` |" in text


@pytest.mark.parametrize(
    "name", sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("*.md"))
    + sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md"))
)  # fmt: skip
def test_links_lead_to_files_that_are_there(name):
    path = ROOT / name
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (path.parent / target).exists(), f"{name} links to {target}"


def test_the_readme_is_short():
    words = re.findall(r"\S+", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(words) < 500
