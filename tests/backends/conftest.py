"""Servers that a test plants."""

from __future__ import annotations

import pytest


@pytest.fixture
def serve(raw_server):
    return raw_server
