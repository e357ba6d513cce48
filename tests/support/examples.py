"""How many examples a property is tried with: a fifth of them in the fast suite, two fifths in `.ci/run`."""

from __future__ import annotations

from typing import Final

from hypothesis import settings

ALL: Final = 100
"""Examples of a property without a number of its own, under the profile `whole`."""
TWO_FIFTHS: Final = 40
FIFTH: Final = 20


def examples(whole: int) -> int:
    """How many of `whole` examples the profile of this run tries: at least one."""
    return max(1, whole * settings().max_examples // ALL)
