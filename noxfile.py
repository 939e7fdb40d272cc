"""Every check and every chore, each in an environment of its own: ``nox -l`` lists them."""

from __future__ import annotations

import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
GROUPS = nox.project.load_toml(ROOT / "pyproject.toml")
LONG = {
    "aa": "benchmarks/aa.py",
    "instrument": "benchmarks/instrument.py",
    "memory": "benchmarks/memory_plan.py",
    "rates": "benchmarks/rates.py",
    "roofline": "benchmarks/roofline.py",
    "startup": "benchmarks/startup.py",
    "gguf-reader": "benchmarks/gguf_reader.py",
    "native": "benchmarks/native.py",
    "openai": "benchmarks/openai_rate.py",
    "vllm": "benchmarks/vllm_cpu.py",
    "tune-simulated": "benchmarks/tune_simulated.py",
    "tune-inert": "benchmarks/tune_inert.py",
    "tune-grid": "benchmarks/tune_grid.py",
    "tune-replay": "benchmarks/tune_replay.py",
    "tune-real": "benchmarks/tune_real.py",
    "tune-kills": "benchmarks/tune_kills.py",
}
"""Checks that CI has no time for; each writes its result to benchmarks/results/."""

nox.options.sessions = ["tests", "lint", "types", "docs"]
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = False


def group(name: str) -> tuple[str, ...]:
    return nox.project.dependency_groups(GROUPS, name)


def install(session: nox.Session, *groups: str, editable: bool = True) -> None:
    """Install the core, every plugin, and dependency groups, in one resolution."""
    switch = ["-e"] if editable else []
    words = [word for path in (ROOT, *PLUGINS) for word in (*switch, str(path))]
    session.install(*words, *(entry for name in groups for entry in group(name)))


@nox.session
def demo(session: nox.Session) -> None:
    """Install everything and benchmark a real model on a real llama.cpp."""
    install(session, editable=False)
    # --force: a first look on a busy machine is better than none; the table says how busy it was.
    words = ["--backend", "llamacpp", "--model", "demo", "bench", "--force"]
    session.run("velollm", *words, *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, real llama.cpp on the demo model included."""
    install(session, "test")
    if session.posargs:
        session.run("pytest", "-q", *session.posargs)
        return
    # Two at a time, except what starts an engine, which wants every core for itself.
    session.run("pytest", "-q", "-m", "not engine", "-n", "2", "--dist", "loadfile")
    session.run("pytest", "-q", "-m", "engine")


@nox.session
def long(session: nox.Session) -> None:
    """A check that takes longer: nox -s long -- NAME."""
    names = [word for word in session.posargs if not word.startswith("-")]
    if not names or set(names) - set(LONG):
        session.error(f"name one of: {', '.join(LONG)}")
    install(session, "test", "benchmarks")
    for name in names:
        target = ROOT / "benchmarks" / "results" / f"{name}.json"
        session.run("python", LONG[name], "-o", str(target))


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and the direction of every import."""
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict."""
    install(session, "types")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Write the generated pages anew, or with --check fail where they are out of date."""
    install(session)
    session.run("python", "docs/generate.py", *session.posargs)
    session.run("python", "benchmarks/render.py", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build wheels of the core and the plugins, and use them outside the checkout."""
    session.install(*group("build"))
    wheels = Path(session.create_tmp()).resolve()
    for old in wheels.glob("*.whl"):
        old.unlink()
    for path in (ROOT, *PLUGINS):
        session.run("python", "-m", "build", "--wheel", "--outdir", str(wheels), str(path))
    place = wheels / "venv"
    session.run(sys.executable, "-m", "venv", "--clear", str(place), external=True)
    programs = place / ("Scripts" if sys.platform == "win32" else "bin")
    session.chdir(wheels)
    session.run(
        str(programs / "python"),
        "-m",
        "pip",
        "install",
        *map(str, wheels.glob("*.whl")),
        external=True,
    )
    for words in (["--help"], ["plugins"], ["detect"], ["models", "show", "demo"]):
        session.run(str(programs / "velollm"), *words, external=True)
