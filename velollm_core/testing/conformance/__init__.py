"""The conformance kit: inherit two classes, state the facts, and your backend is tested.

::

    import pytest
    from velollm_core.config import Config
    from velollm_core.testing.conformance import BackendConformance, EngineConformance, Facts
    from velollm_mine import MyBackend

    @pytest.fixture(scope="module")
    def facts() -> Facts:
        return Facts(backend=MyBackend(), model="demo", change=Config({"threads": 1}))

    class TestBackend(BackendConformance):
        pass

    class TestEngine(EngineConformance):
        pass

:class:`BackendConformance` starts nothing and takes a second. :class:`EngineConformance` starts the
engine about ten times. Which tests apply follows from :class:`Facts`; a test that does not says
which fact it goes by. A test that is removed or replaced without a reason makes the suite fail:
decorate a replacement with :func:`deviates`, and the reason is shown at the end of the run.

Install ``velollm[testing]``: pytest then finds the fixtures by itself.
"""

from __future__ import annotations

from velollm_core.testing.conformance.engine import EngineConformance
from velollm_core.testing.conformance.facts import Facts
from velollm_core.testing.conformance.rules import deviates
from velollm_core.testing.conformance.unstarted import BackendConformance

__all__ = ["BackendConformance", "EngineConformance", "Facts", "deviates"]
