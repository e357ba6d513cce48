"""One parser under atheris (libFuzzer), started by `run.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped]  # it has no types

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

with atheris.instrument_imports(include=["comity"]):
    from fuzz.check import check
    from fuzz.parsers import PARSERS

if __name__ == "__main__":
    target = PARSERS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, lambda data: check(target, data) and None)
    atheris.Fuzz()
