"""Where VeloLLM keeps what is its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from velollm_core.folders import folder


@pytest.mark.parametrize(
    ("named", "place"),
    [("/x/y", Path("/x/y")), ("~/y", Path.home() / "y"), ("~nobody-at-all/y", None)],
)
def test_a_folder_that_is_named_goes_before_the_platforms(named, place):
    assert folder("data", {"VELOLLM_DATA_DIR": named}) == (place or Path(named))
    assert folder("cache", {"VELOLLM_DATA_DIR": named}) == folder("cache", {})
