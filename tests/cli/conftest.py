"""A command in this process, on an engine that is planted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from attrs import define, field, frozen

from velollm_core import hookimpl
from velollm_core.backends import quoting
from velollm_core.backends.changes import Change
from velollm_core.backends.contract import Installation, Option
from velollm_core.cli.state import State
from velollm_core.config import Config, Settings
from velollm_core.errors import UsageError, VeloError
from velollm_core.experiment import workload_hooks
from velollm_core.models.spec import Model, ModelSpec
from velollm_core.plugins import Plugins
from velollm_core.testing.fakes import FakeBackend

PLACES = {"server": "http://127.0.0.1:1", "binary": "/opt/fake"}


@define
class Tunable(FakeBackend):
    """Reads ``threads = N`` from a file, unless its environment says otherwise. Where it is
    ``sparse``, it tells of the user's settings only what is set.
    """

    file: Path = Path()
    kinds: tuple[str, ...] = ("binary",)
    version: str = "1"
    options: tuple[Option, ...] = (Option(name="experimental", summary="on: more"),)
    held: dict = field(factory=dict)
    offered: tuple = ()
    needs_root: bool = False
    then: tuple[str, ...] = ()
    left_out: tuple = ()
    unsayable: tuple = ()
    spec: ModelSpec | None = None
    pids: tuple[int, ...] = ()
    sparse: bool = False
    measured: list = field(factory=list)
    started_with: list = field(factory=list)

    def probe(self, options, environ):
        return tuple(
            Installation(
                backend=self.name,
                kind=kind,
                location=PLACES[kind],
                version=self.version,
                options=dict(options),
            )
            for kind in self.kinds
        )

    def models(self, installation):
        return (Model(reference="fake-model", fingerprint="0f", spec=self.spec),)

    def defaults(self, installation, model):
        return Settings(config=Config({"threads": 8, "cache": True}))

    def current(self, installation, model, environ):
        origin, threads = "engine default", 8
        if self.file.exists():
            origin, threads = str(self.file), int(self.file.read_bytes().rpartition(b"=")[2])
        if "FAKE_THREADS" in environ:
            origin, threads = "environment FAKE_THREADS", int(environ["FAKE_THREADS"])
        cache = environ.get("FAKE_CACHE")
        config = {"threads": threads, "cache": cache != "False"}
        if self.sparse:
            told = {"threads": origin != "engine default", "cache": cache is not None}
            config = {name: value for name, value in config.items() if told[name]}
        return Settings(
            config=Config(config),
            origins={"threads": origin} | ({"cache": "environment FAKE_CACHE"} if cache else {}),
            left_out=self.left_out,
        )

    def suggest(self, context):
        return self.offered

    def forms(self, installation):
        return ("sh",)

    def render(self, installation, model, settings, form):
        if form != "sh":
            return super().render(installation, model, settings, form)
        return "".join(
            f"export FAKE_{name.upper()}={quoting.sh(str(value))}\n"
            for name, value in settings.config.items()
        )

    def omitted(self, installation, model, config, form):
        return tuple(name for name in config if name in self.unsayable)

    def plan_apply(self, installation, model, settings, target):
        if target not in {None, "file"}:
            raise UsageError(f"there is no target {target!r}.")
        text = f"# mine\nthreads = {settings.config['threads']}"
        return (
            Change(
                path=self.file,
                content=text.encode(),
                summary="the fake's settings",
                needs_root=self.needs_root,
                then=self.then,
            ),
        )

    def in_memory(self, installation):
        return self.held if installation.kind == "server" else {}

    def launch(self, installation, model, settings, place):
        self.measured.append((installation.kind, dict(settings.config)))
        self.started_with.append(dict(installation.options))
        session = super().launch(installation, model, settings, place)
        session.pids = self.pids
        return session


@frozen
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def planted_command(tmp_path, capsys):
    """Runs a command in this process: ``run(command, *words, environ=..., **planted)``, or on a
    ``backend`` of the test's own.
    """

    def run(command, *words, rules=None, environ=None, backend=None, **planted):
        backend = backend or Tunable(file=tmp_path / "fake.conf", **planted)
        run.backend = backend
        state = State()
        state.backend = "fake"
        folders = {
            f"VELOLLM_{name}_DIR": str(tmp_path / name) for name in ("DATA", "CONFIG", "CACHE")
        }
        state.environ = {**folders, **(environ or {})}
        plugins = Plugins()
        plugins.add(lambda: workload_hooks, "core-workloads")
        plugins.add(lambda: backend_plugin(backend), "fake")
        if rules is not None:
            plugins.add(lambda: rules_plugin(rules), "rules")
        state.plugins = plugins
        code, fault = 0, ""
        try:
            with command.make_context(command.name, list(words), obj=state) as context:
                command.invoke(context)
        except click.exceptions.Exit as stop:
            code = stop.exit_code
        except (VeloError, click.ClickException) as error:
            code, fault = error.exit_code, str(error)
        said = capsys.readouterr()
        return Done(code, said.out, said.err + fault)

    return run


def backend_plugin(backend):
    @hookimpl
    def velollm_register_backends(register):
        register(backend)

    return SimpleNamespace(velollm_register_backends=velollm_register_backends)


def rules_plugin(rules):
    @hookimpl
    def velollm_suggest(context):
        return rules(context)

    return SimpleNamespace(velollm_suggest=velollm_suggest)


@pytest.fixture
def help_of():
    """``help_of(command, names)``: its help, and which of the modules it takes to print it."""

    def run(command, names):
        code = (
            "import json, sys\n"
            "from click.testing import CliRunner\n"
            "from velollm_core.cli.app import cli\n"
            f"text = CliRunner().invoke(cli, [{command!r}, '--help']).output\n"
            "print(json.dumps([text, sorted(sys.modules)]))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
        )
        text, modules = json.loads(done.stdout)
        return text, names & set(modules)

    return run
