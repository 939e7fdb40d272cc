"""``velollm run``."""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from velollm_core.cli.measure_options import launch_timeout_option
from velollm_core.cli.options import global_options, option
from velollm_core.cli.state import State
from velollm_core.config import show
from velollm_core.errors import LaunchError, UsageError

if TYPE_CHECKING:
    from velollm_core.backends.contract import Session
    from velollm_core.cli.choose import Chosen
    from velollm_core.config import Settings
    from velollm_core.tune.spec import Profile

_LOOK_S = 0.5


@click.command(name="run", epilog="Example: velollm run --profile qwen-throughput")
@option(
    "--profile",
    required=True,
    metavar="NAME",
    help="A profile that 'velollm tune' wrote, by its name, or by its path as .json.",
)
@launch_timeout_option
@global_options
@click.pass_obj
def command(state: State, profile: str, launch_timeout: float) -> None:
    """Start the server with a profile's settings on top of your own, until Ctrl-C.

    It listens at a free port of this machine alone; its address is printed once it is ready. What
    differs from the build, model and machine that the profile was measured with is told.
    """
    from velollm_core.cli.choose import startable
    from velollm_core.cli.profiles import choose_for, load

    found = load(state, profile)
    chosen = startable(state, choose_for(state, found))
    if chosen is None:
        raise UsageError(
            "a server that runs already cannot be started with a profile.",
            "Leave out -X url=...",
        )
    _serve(state, chosen, _settings(state, chosen, found), found, launch_timeout)


def _settings(state: State, chosen: Chosen, profile: Profile) -> Settings:
    """The user's own, with the profile's laid over them."""
    from velollm_core.cli.plan import over, tell_left_out
    from velollm_core.cli.profiles import tell_differences
    from velollm_core.tune.profile import settings_of

    backend, installation, model = chosen.backend, chosen.installation, chosen.model
    wanted = settings_of(profile, backend, installation, model).config
    own = backend.current(installation, model, state.environ)
    tell_left_out(state, own)
    tell_differences(state, chosen, profile, own.config)
    settings = over(own, wanted, f"profile {profile.name}")
    for problem in backend.check(installation, model, settings.config):
        raise UsageError(
            f"profile {profile.name} does not go with your own settings: {problem.message}",
            "Change those, or tune again: velollm tune",
        )
    return settings


def _serve(
    state: State, chosen: Chosen, settings: Settings, profile: Profile, timeout_s: float
) -> None:
    """Start the server, say where it listens, and wait until Ctrl-C.

    Raises:
        LaunchError: it did not start, or ended by itself.
    """
    from velollm_core.backends.processes import Place
    from velollm_core.cli.measure import engine_environ

    with tempfile.TemporaryDirectory(prefix="velollm-run-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        place = Place(
            directory=directory,
            log_path=directory / "server.log",
            environ=engine_environ(state),
            deadline=time.monotonic() + timeout_s,
        )
        state.output.remark(f"starting with {profile.config or 'your own settings'}")
        backend, installation, model = chosen.backend, chosen.installation, chosen.model
        with backend.launch(installation, model, settings, place) as session:
            _tell_ignored(state, chosen, settings, session)
            _tell_address(state, session, profile, place.log_path)
            try:
                _wait(session)
            except KeyboardInterrupt:
                state.output.remark("ended.")


def _tell_ignored(state: State, chosen: Chosen, settings: Settings, session: Session) -> None:
    from velollm_core.backends.contract import mismatches

    expected = chosen.backend.expected(chosen.installation, chosen.model, settings.config)
    for fault in mismatches(expected, session.effective()):
        found = "not known" if fault.found is None else show(fault.found)
        state.output.warn(
            f"{fault.knob} is {found} and not {show(fault.expected)}: the engine did not take it."
        )


def _tell_address(state: State, session: Session, profile: Profile, log: Path) -> None:
    if state.json:
        told = {
            "url": session.url,
            "pids": list(session.pids),
            "profile": profile.name,
            "config": dict(profile.config),
            "log": str(log),
        }
        state.output.document(told)
    else:
        state.output.text(f"listening at {session.url}")
        state.output.remark(f"its log: {log}\nend it with Ctrl-C")


def _wait(session: Session) -> None:
    """Return never but by Ctrl-C.

    Raises:
        LaunchError: the server ended by itself.
    """
    import psutil

    with suppress(psutil.NoSuchProcess):
        processes = [psutil.Process(pid) for pid in session.pids]
        while all(process.status() != psutil.STATUS_ZOMBIE for process in processes):
            time.sleep(_LOOK_S)
    said = session.log_tail()
    raise LaunchError(
        "the server ended." + (f" Its last lines:\n{said}" if said else " It said nothing."),
        "Start it again; if it ends again, tune again: velollm tune",
    )
