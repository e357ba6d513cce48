"""Waiting for a change that reaches another node later."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from comity.trust.errors import PolicyNotMet, Unavailable

T = TypeVar("T")

PATIENCE: Final = 240.0
"""Seconds. Only a test that fails waits so long."""


def pause_after(asked: float, *, least: float) -> float:
    """Seconds until a question is asked again that was asked at `asked`, in monotonic seconds, and has been answered
    now: as many as the answer took, so that the processes that are waited for have at least half of the machine.
    """
    return max(least, time.monotonic() - asked)


def eventually(step: Callable[[], T], holds: Callable[[T], object] = lambda found: True) -> T:
    """The result of `step` once it `holds`, and the nodes answer with the evidence that the policy requires."""
    deadline = time.monotonic() + PATIENCE
    while True:
        asked = time.monotonic()
        try:
            found = step()
        except (Unavailable, PolicyNotMet):
            if time.monotonic() > deadline:
                raise
        else:
            if holds(found):
                return found
            assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s, and it was still {str(found)[:2000]}"
        time.sleep(pause_after(asked, least=0.1))
