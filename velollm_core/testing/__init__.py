"""For those who write backends, and for tests of what stands on them.

- :mod:`~velollm_core.testing.conformance`: suites to inherit; they test a backend by its facts.
- :mod:`~velollm_core.testing.pytest_plugin`: fixtures, found by pytest when velollm is installed.
- :mod:`~velollm_core.testing.fakes`: a backend whose answers, noise, drift and faults are planted.
- :mod:`~velollm_core.testing.clock`, :mod:`~velollm_core.testing.noise`: its time and its chance.
- :mod:`~velollm_core.testing.raw_server`: a server whose every byte is planted.
- :mod:`~velollm_core.testing.relay`: a real server's line, to be cut or held.
- :mod:`~velollm_core.testing.places`, :mod:`~velollm_core.testing.processes`,
  :mod:`~velollm_core.testing.audit`: what was started, what is left of it, which files were made.

The tutorial is ``docs/tutorial/your-first-backend.md``.
"""

from __future__ import annotations
