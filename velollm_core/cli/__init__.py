"""The command ``velollm``: one module a command, and the only place that prints."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. Nothing is imported before, so that Ctrl-C is met from the start."""
    try:
        from velollm_core.cli.app import run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


__all__ = ["main"]
