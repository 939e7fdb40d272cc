"""What holds of a backend with an engine."""

from __future__ import annotations

from velollm_core.testing.conformance.answers import Answers, Telling
from velollm_core.testing.conformance.lifetime import Lifetime
from velollm_core.testing.conformance.rules import Conformance
from velollm_core.testing.conformance.settings import SettingsInForce


class EngineConformance(Answers, Telling, SettingsInForce, Lifetime, Conformance):
    """Answers, what is told, settings, beginning and end: with a real engine."""
