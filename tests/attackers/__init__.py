"""The library of attackers (README.md). Importing this package registers all of them in `ATTACKERS`."""

from __future__ import annotations

from attackers import (
    answers,
    connections,
    copy_claims,
    floods,
    governance,
    junk_lines,
    log_lies,
    readers,
    sockets,
    space_claims,
    stalls,
    strangers,
    words_of_others,
)
from attackers.attacker import ATTACKERS, Attacker, Known, Target, Victim, attacking, emitted

__all__ = [
    "ATTACKERS",
    "Attacker",
    "Known",
    "Target",
    "Victim",
    "answers",
    "attacking",
    "connections",
    "copy_claims",
    "emitted",
    "floods",
    "governance",
    "junk_lines",
    "log_lies",
    "readers",
    "sockets",
    "space_claims",
    "stalls",
    "strangers",
    "words_of_others",
]
