"""Servers that a test plants."""

from __future__ import annotations

import pytest


@pytest.fixture
def serve(velollm_raw_server):
    return velollm_raw_server
