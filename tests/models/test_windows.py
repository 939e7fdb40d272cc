"""Which layers slide, by architecture, where the file says it and where it does not."""

from __future__ import annotations

import pytest

from velollm_core.models.windows import sliding_layers, sliding_window


@pytest.mark.parametrize(
    ("architecture", "named", "window"),
    [
        ("gemma2", None, 4096),
        ("gemma2", 512, 512),
        ("gemma3", None, 0),
        ("gemma3", 1024, 1024),
        ("llama4", None, 8192),
        ("llama4", 512, 8192),
        ("llama4", 0, 0),
        ("smallthinker", 512, 4096),
        ("smallthinker", None, 0),
        ("exaone-moe", None, 128),
        ("phi3", 2048, 0),
        ("llama", 4096, 0),
    ],
)
def test_the_window_is_the_file_s_or_the_architecture_s(architecture, named, window):
    assert sliding_window(architecture, 32, named) == window


def test_only_the_large_exaone_4_has_a_window():
    assert sliding_window("exaone4", 64, None) == 4096
    assert sliding_window("exaone4", 30, 4096) == 0


@pytest.mark.parametrize(
    ("architecture", "layers"),
    [
        ("gemma2", "sfsfsfsf"),
        ("gemma3", "sssssfss"),
        ("gpt-oss", "sfsfsfsf"),
        ("cohere2", "sssfsssf"),
        ("cohere2moe", "fsssfsss"),
        ("lfm2", "ssssssss"),
        ("plamo3", "sssssssf"),
    ],
)
def test_without_a_list_each_architecture_has_its_own_pattern(architecture, layers):
    found = sliding_layers(architecture, 8, 512, None)
    assert "".join("s" if slides else "f" for slides in found) == layers


def test_what_the_file_lists_wins():
    listed = (1, 0, 0, 1)
    assert sliding_layers("gemma3", 4, 512, listed) == (True, False, False, True)
    assert sliding_layers("gemma3", 4, 512, (2,)) == (True, False, True, False)
    assert sliding_layers("gemma3", 4, 512, (0,)) == (True,) * 4
    assert sliding_layers("gemma3", 4, 512, (1,)) == (False,) * 4
    assert sliding_layers("gemma4", 4, 512, None) == (False,) * 4


def test_without_a_window_nothing_slides():
    assert sliding_layers("gemma3", 3, 0, (1, 1, 1)) == (False,) * 3
