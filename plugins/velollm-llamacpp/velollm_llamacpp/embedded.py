"""Runs the llama.cpp of the ``xllamacpp`` wheel as a server. A script, which knows no VeloLLM.

``python embedded.py --describe`` prints what the wheel is, as JSON. ``python embedded.py SPEC``
serves until it is ended, at a free port of 127.0.0.1 that it writes to its log; SPEC is a JSON file
with ``model``, the path of a GGUF file, and ``fields``, values by attribute of ``CommonParams``,
where text names a member of an enumeration (``ggml_type.GGML_TYPE_Q8_0``).
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import xllamacpp

_VERBOSITY_TRACE = 4  # the level at which llama.cpp tells how it set itself up


def describe() -> dict[str, Any]:
    """Version of the wheel, features of its build, and the names of the GPUs it can use."""
    cpu = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    return {
        "version": xllamacpp.__version__,
        "system_info": xllamacpp.get_system_info(),
        "gpus": [entry["name"] for entry in xllamacpp.get_device_info() if entry["type"] != cpu],
    }


def parameters(spec: dict[str, Any]) -> xllamacpp.CommonParams:
    """The parameters that ``spec`` asks for.

    Raises:
        ValueError: this wheel has no such field or member.
    """
    params = xllamacpp.CommonParams()
    params.model.path = spec["model"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.verbosity = _VERBOSITY_TRACE
    params.endpoint_metrics = True
    params.offline = True
    for path, value in spec["fields"].items():
        *owners, name = path.split(".")
        owner = params
        for part in owners:
            owner = _attribute(owner, part)
        present = _attribute(owner, name)
        member = _attribute(xllamacpp, *value.split(".")) if isinstance(value, str) else value
        setattr(owner, name, [member] if isinstance(present, list) else member)
    return params


def _attribute(owner: Any, *names: str) -> Any:
    for name in names:
        if not hasattr(owner, name):
            raise ValueError(f"xllamacpp {xllamacpp.__version__} has no {name!r}")
        owner = getattr(owner, name)
    return owner


def main(argv: list[str]) -> int:
    """See the module's description."""
    if argv[1] == "--describe":
        print(json.dumps(describe()))  # noqa: T201 - the answer to whoever started this script
        return 0
    try:
        spec = json.loads(Path(argv[1]).read_text(encoding="utf-8"))
        server = xllamacpp.Server(parameters(spec))
    except (ValueError, TypeError, OverflowError) as error:
        print(f"invalid argument: {error}", file=sys.stderr)  # noqa: T201 - goes to the log
        return 2
    except RuntimeError:
        return 1  # its text says nothing; the reason stands in the log
    threading.Event().wait()
    del server
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
