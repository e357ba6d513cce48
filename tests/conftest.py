"""Settings for all tests."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("comity", deadline=None)  # a loaded machine is no failure
settings.load_profile("comity")
