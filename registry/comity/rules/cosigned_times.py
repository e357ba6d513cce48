"""Who cosigned a checkpoint, and what time it is at least by the clocks of distinct members that cosigned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from comity.trust.encoding import Digest
from comity.trust.tlog.note import Checkpoint, SignedNote, VerifierKey, verify_cosignature


def verified_cosigners(note: SignedNote, keys: Iterable[VerifierKey], checkpoint: Checkpoint) -> dict[VerifierKey, int]:
    """Return those of `keys` that cosigned `checkpoint` in `note`, each with its newest time; may be empty.

    Lines of unknown keys are ignored. Raises Untrusted(code="COSIGNATURE") if the line of a known key is not valid.
    """
    cosigners: dict[VerifierKey, int] = {}
    for key in dict.fromkeys(keys):
        times = [verify_cosignature(line, key, checkpoint) for line in note.signatures if line.by(key)]
        if times:
            cosigners[key] = max(times)
    return cosigners


AHEAD_SECONDS: Final = 600
"""Seconds by which a cosigner's time may be ahead of the reader's clock before one of the two counts as wrong."""


def newest_of_each(times: Iterable[tuple[Digest, int]]) -> dict[Digest, int]:
    """Return the newest time of each member, from pairs of a member and a time."""
    newest: dict[Digest, int] = {}
    for member, time in times:
        newest[member] = max(time, newest.get(member, time))
    return newest


def corroborated_time(times: Iterable[int], now: float) -> int | None:
    """Return the newest of the times at which distinct members cosigned that is not ahead of `now`, or the second
    newest of all if that is newer; None if there is neither. POSIX seconds.

    So one member moves it neither way: not forward with a clock that is ahead, and not back with no cosignature, or
    an old one. If two members are ahead, `now` may be what is wrong.
    """
    newest_first = sorted(times, reverse=True)
    credible = [time for time in newest_first if time <= now + AHEAD_SECONDS]
    return max((*credible[:1], *newest_first[1:2]), default=None)


def time_of_quorum(times: Iterable[int], needed: int) -> int | None:
    """Return the time by which `needed` members, at least one, had cosigned, from one time of each; None if fewer did.
    POSIX seconds, by their clocks."""
    first = sorted(times)[: max(needed, 1)]
    return first[-1] if len(first) == max(needed, 1) else None
