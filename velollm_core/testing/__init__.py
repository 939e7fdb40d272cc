"""For those who write backends: engines without an engine, to test what stands on them."""

from __future__ import annotations
