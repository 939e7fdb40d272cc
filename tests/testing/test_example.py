"""The tests that lie beside the example and need no installation of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "velollm-echo"


def test_the_example_is_tuned_with_no_line_changed_in_the_core():
    paths = [str(EXAMPLE), *filter(None, [os.environ.get("PYTHONPATH")])]
    words = ["-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests" / "test_tune.py")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=EXAMPLE.parents[1],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
