"""The group of commands: loads only the one that is called, and turns every error into one
message.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from importlib.metadata import entry_points
from types import FrameType

import click

from velollm_core import __version__
from velollm_core.cli.options import EPILOG, global_options
from velollm_core.cli.state import State
from velollm_core.errors import Interrupted, UsageError, VeloError

COMMAND_GROUP = "velollm.commands"

COMMANDS = {
    "bench": "Measure a model on an engine with real requests.",
    "compare": "Say what two configurations, or two results, differ by.",
    "detect": "Show what this machine offers for inference.",
    "doctor": "Say what holds this machine back, and what to do.",
    "models": "Show what a model file says about itself, and where it fits.",
    "optimize": "Propose settings for this machine and model, and apply them.",
    "plugins": "List plugins, their hooks, and what is broken.",
    "results": "List, show, export and remove what was measured.",
    "run": "Start the server with a profile of tune.",
    "tune": "Search for the fastest settings by measurement, and prove them.",
    "undo": "Take back what was applied last.",
}
"""Each command's module in this package, and its line in ``--help``, which imports none of them."""

ALIASES = {"benchmark": "bench"}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The core's commands, then those of plugins."""
        del ctx
        return [*sorted(COMMANDS), *sorted(_plugin_commands())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command itself, imported now.

        Raises:
            UsageError: the plugin that brings it cannot be loaded.
        """
        del ctx
        name = ALIASES.get(cmd_name, cmd_name)
        if name in COMMANDS:
            module = importlib.import_module(f"velollm_core.cli.{name}")
            command: click.Command = module.command
            return command
        entry = _plugin_commands().get(name)
        if entry is None:
            return None
        try:
            loaded = entry.load()
        except Exception as error:
            who = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown plugin"
            raise UsageError(
                f"command {name} of {who} cannot be loaded: {type(error).__name__}: {error}.",
                "Reinstall or update that plugin.",
            ) from error
        return loaded if isinstance(loaded, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """An alias resolves to its command, so that its environment variables are the same."""
        _, command, rest = super().resolve_command(ctx, args)
        return (command.name if command else None), command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        del ctx
        rows = [(name, COMMANDS[name]) for name in sorted(COMMANDS)]
        rows += [
            (name, f"From plugin {entry.dist.name if entry.dist else entry.name}.")
            for name, entry in sorted(_plugin_commands().items())
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _plugin_commands() -> dict[str, importlib.metadata.EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=COMMAND_GROUP)}


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "VELOLLM"},
    epilog=EPILOG,
)
@click.version_option(__version__, prog_name="velollm")
@global_options
@click.pass_context
def cli(ctx: click.Context) -> None:
    """The autopilot for local LLM inference: detect, measure, prove, apply, undo."""
    ctx.ensure_object(State)


def run() -> None:
    """Run the command line and leave with its exit code."""
    _end_on_sigterm()
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        error.show(sys.stderr)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = _complain(Interrupted("stopped."))
    except VeloError as error:
        code = _complain(error)
    except Exception as error:  # noqa: BLE001 - the last guard: no traceback for a user
        code = _complain(_unexpected(error))
    sys.exit(code if isinstance(code, int) else 0)


def _unexpected(error: Exception) -> VeloError:
    if os.environ.get("VELOLLM_TRACEBACK"):
        raise error
    return VeloError(
        f"this should not have happened: {type(error).__name__}: {error}.",
        "Run it again with VELOLLM_TRACEBACK=1 and report what it prints.",
    )


def _complain(error: VeloError) -> int:
    from velollm_core.report.visible import visible

    click.echo(f"velollm: {visible(str(error))}", err=True)
    return error.exit_code


def _end_on_sigterm() -> None:
    """SIGTERM and a closed terminal end a command as Ctrl-C does: with what was measured saved."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # nohup has SIGHUP ignored, and means it.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
