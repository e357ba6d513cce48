"""Submissions that wait for objects: in memory, bounded, the oldest first to go. Submitting again brings one back."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest
from comity.trust.errors import NotFound, OutOfSpace

MAX_PENDING: Final = 256
MAX_PER_CALLER: Final = 16
MAX_WANTED: Final = 400_000
"""Objects that all submissions together wait for."""


@dataclass(frozen=True, slots=True)
class Want:
    """An object that has to arrive. `path` is where a manifest lists it, or empty: it says how the file is cut."""

    digest: Digest
    size: int
    path: str = ""


@dataclass(frozen=True, slots=True)
class Submission:
    """A submission and what it waits for."""

    id: Digest
    caller: str
    wants: Mapping[Digest, Want]

    @property
    def size(self) -> int:
        return sum(want.size for want in self.wants.values())


def submission_id(lines: Sequence[bytes]) -> Digest:
    """SHA-256 over the lines, each followed by a line feed."""
    return Digest(hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest())


class Pending:
    """The submissions under way. Touched by the event loop only.

    Args:
        most_bytes: that all of them together may bring.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._waiting: OrderedDict[Digest, Submission] = OrderedDict()

    @property
    def bytes(self) -> int:
        return sum(submission.size for submission in self._waiting.values())

    def put(self, submission: Submission) -> None:
        """Wait for a submission's objects. Raises OutOfSpace (UPLOAD-QUOTA) for one that would never fit."""
        self._waiting.pop(submission.id, None)
        if submission.size > self._most_bytes or len(submission.wants) > MAX_WANTED:
            why = f"{submission.size} bytes in {len(submission.wants)} objects; this node takes {self._most_bytes}"
            raise OutOfSpace("submission too large", why=why, code="UPLOAD-QUOTA")
        same = [other.id for other in self._waiting.values() if other.caller == submission.caller]
        for old in same[: max(0, len(same) + 1 - MAX_PER_CALLER)]:
            del self._waiting[old]
        while not self._fits(submission):
            self._waiting.popitem(last=False)
        self._waiting[submission.id] = submission

    def want(self, submission: Digest, digest: Digest, size: int) -> Want:
        """What an upload is for. Raises NotFound (NO-SUBMISSION, NOT-WANTED)."""
        found = self._waiting.get(submission)
        if found is None:
            raise NotFound(
                "no such submission",
                why="it was not made, or long ago",
                hint="submit the lines again",
                code="NO-SUBMISSION",
            )
        self._waiting.move_to_end(submission)
        want = found.wants.get(digest)
        if want is None or want.size != size:
            raise NotFound("not an object of this submission", why=f"{digest} of {size} bytes", code="NOT-WANTED")
        return want

    def path_of(self, digest: Digest) -> str:
        """Where a manifest under way lists a blob; empty where none does."""
        wants = (submission.wants.get(digest) for submission in self._waiting.values())
        return next((want.path for want in wants if want and want.path), "")

    def done(self, submission: Digest) -> None:
        self._waiting.pop(submission, None)

    def _fits(self, submission: Submission) -> bool:
        others: Iterable[Submission] = self._waiting.values()
        return (
            len(self._waiting) < MAX_PENDING
            and sum(len(other.wants) for other in others) + len(submission.wants) <= MAX_WANTED
            and self.bytes + submission.size <= self._most_bytes
        )
