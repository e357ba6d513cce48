"""The library of attackers: see README.md. Importing this package fills `ATTACKERS`."""

from __future__ import annotations

from attackers import answers, junk_lines, log_lies, strangers
from attackers.attacker import ATTACKERS, Attacker, Known, Target, Victim, attacking

__all__ = [
    "ATTACKERS",
    "Attacker",
    "Known",
    "Target",
    "Victim",
    "answers",
    "attacking",
    "junk_lines",
    "log_lies",
    "strangers",
]
