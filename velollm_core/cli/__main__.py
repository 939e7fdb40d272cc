"""``python -m velollm_core.cli``, for when the command is not on PATH."""

from __future__ import annotations

from velollm_core.cli import main

main()
