"""Settings for all tests."""

from __future__ import annotations

import sys

import structlog
from hypothesis import settings

settings.register_profile("comity", deadline=None)  # a loaded machine is no failure
settings.load_profile("comity")

# Nodes in the test's own process must not write into what a command under test prints.
structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
