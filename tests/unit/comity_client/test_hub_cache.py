"""The cache is where huggingface_hub has it, by the same variables in the same order."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity_client.hub_cache import default_cache


def test_the_variables_of_huggingface_hub_name_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "huggingface/hub"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    assert default_cache() == tmp_path / "home/hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    assert default_cache() == tmp_path / "cache"
