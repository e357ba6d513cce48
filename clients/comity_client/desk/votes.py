"""What one governance key has signed about the next charter: its vote state, in a file beside the key.

    governance.pem     the key
    governance.votes   {"key":"<id>","schema":"comity/votes/v1"}
                       {"sha256":"<of the statement>","statement":{…}}   a reading that this key may have signed
                       {"lost":"<prev>","why":"…"}                       it sits out the epoch after the body `prev`
                       {"resumed":"<prev>","why":"…"}                    its owner decided otherwise

A reading stands in the file, on the disk, before its signature exists. So after any crash the same reading may be
signed again, and never another in its place. Key and file belong together: a key that is copied to a second desk
without its file, or restored from a backup with an old one, can make a liar of its member. Such a key sits out the
current epoch, as an absent member does. Source: protocol, section 7.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.trust.charter.readings import Intent, Ratify, Reading, read_reading
from comity.trust.charter.voting import VoteState, guard
from comity.trust.digest import Digest, sha256, short
from comity.trust.dsse import PAYLOAD_TYPE, Envelope
from comity.trust.encoding import Json, canonical, parse_canonical
from comity.trust.errors import Conflict, Malformed, Refused, Untrusted
from comity.trust.fields import Fields
from comity.trust.keys import VerifyingKey
from comity.trust.statement import Entry, Statement
from comity.verifier import read_bounded

from comity_client.owner.lock import exclusive

SCHEMA: Final = "comity/votes/v1"
MAX_BYTES: Final = 16 * 1024 * 1024
POINT: Final = "votes"
AFTER_LOSS: Final = "wait for the next epoch, as an absent member would; or comity keys recover-votes --help"


@dataclass(frozen=True, slots=True)
class Mark:
    """A turn in the life of the file: from here on the epoch after `prev` is sat out (`lost`), or not (`resumed`)."""

    kind: str
    prev: Digest
    why: str


@dataclass(frozen=True, slots=True)
class Votes:
    """The content of one key's file, oldest first."""

    readings: tuple[Reading, ...] = ()
    marks: tuple[Mark, ...] = ()

    def state(self, prev: Digest, said: Iterable[Reading] = ()) -> VoteState:
        """What this key, and its member by other keys (`said`), signed about the epoch after the body `prev`."""
        said = [reading for reading in dict.fromkeys((*self.readings, *said)) if reading.prev == prev]
        return VoteState(
            prev,
            tuple(reading for reading in said if isinstance(reading, Intent)),
            tuple(reading for reading in said if isinstance(reading, Ratify)),
            lost=self.lost(prev) is not None,
        )

    def lost(self, prev: Digest) -> Mark | None:
        """Why this key sits out the epoch after `prev`; None where it does not."""
        newest = next((mark for mark in reversed(self.marks) if mark.prev == prev), None)
        return newest if newest is not None and newest.kind == "lost" else None

    def unknown(self, prev: Digest, seen: Iterable[Reading]) -> list[Reading]:
        """Those of the `seen` readings that bear this key's signature and are not here: proof that the file is old."""
        return [reading for reading in seen if reading.prev == prev and reading not in self.readings]


class VoteFile:
    """The votes of `key` in the file `path`; where that is missing, the state is lost. One process at a time changes
    it; a lock of its folder sees to that.

    Methods raise Malformed (code VOTES-DAMAGED) for a file that is not as it was written, Untrusted (VOTES-KEY) for
    another key's, OutOfSpace, Unavailable.
    """

    def __init__(self, path: Path, key: VerifyingKey) -> None:
        self.path = path
        self._key = key

    def create(self, votes: Votes = Votes()) -> None:
        """For a key that is being made. A member's first keys have signed nothing; one that follows others takes over
        what they signed (`votes`). Raises Conflict (VOTES-EXIST)."""
        with exclusive(self.path.parent):
            if self.path.exists():
                why = "it may say what a key has signed"
                raise Conflict(f"{self.path} exists", why=why, hint="choose another name", code="VOTES-EXIST")
            self._write(votes)

    def look(self, prev: Digest, seen: Iterable[Reading] = ()) -> Votes:
        """What this key said, to plan by. That the state is lost, where that is found out now, is written down.

        Args:
            seen: readings at hand that bear this key's signature, wherever they were found.
        """
        with exclusive(self.path.parent):
            return self._look(prev, seen)

    def permit(self, reading: Reading, seen: Iterable[Reading] = (), said: Iterable[Reading] = ()) -> None:
        """Remember `reading`, on the disk, if this key may sign it; only then may it be signed. A reading that was
        remembered before may be signed again.

        Args:
            seen: as in `look`.
            said: proven readings of this key's member, by whichever of its keys: one member, one word.

        Raises Refused, Untrusted or Conflict as `voting.guard` does, and Refused (VOTE-LOST) where the state is lost.
        """
        with exclusive(self.path.parent):
            votes = self._look(reading.prev, seen)
            if reading in votes.readings:
                return
            if mark := votes.lost(reading.prev):
                raise Refused("this key may not vote now", why=mark.why, hint=AFTER_LOSS, code="VOTE-LOST")
            guard(votes.state(reading.prev, said), reading)
            self._write(Votes((*votes.readings, reading), votes.marks))

    def resume(self, prev: Digest, found: Sequence[Reading], why: str) -> None:
        """Vote again on the epoch after `prev`, as if this key had signed nothing but what is here and what was `found`
        under its signature. Whether that is so, the caller must know (see `governance.recovery`)."""
        with exclusive(self.path.parent):
            votes = self._look(prev, ())
            readings = tuple(dict.fromkeys((*votes.readings, *found)))
            self._write(Votes(readings, (*votes.marks, Mark("resumed", prev, why))))

    def _look(self, prev: Digest, seen: Iterable[Reading]) -> Votes:
        votes = self._read()
        if votes is None:
            why = f"there is no {self.path.name} beside the key, so nobody knows what it signed"
            lost = Votes((), (Mark("lost", prev, why),))
        elif (unknown := votes.unknown(prev, seen)) and votes.lost(prev) is None:
            one = unknown[0]
            why = f"it signed for {short(one.body)} in round {one.round}, of which {self.path.name} knows nothing"
            lost = Votes(votes.readings, (*votes.marks, Mark("lost", prev, why)))
        else:
            return votes
        self._write(lost)
        return lost

    def _read(self) -> Votes | None:
        """What the file says; None where there is no file."""
        with durable.disk_errors(f"{self.path} was not read"):
            if not self.path.exists():
                return None
        data = read_bounded(self.path, MAX_BYTES)
        head, *lines = data.removesuffix(b"\n").split(b"\n")
        try:
            fields = _fields(head)
            fields.constant("schema", SCHEMA)
            if (whose := fields.digest("key")) != self._key.id:
                why = f"it says what key {short(whose)} signed"
                raise Untrusted(f"{self.path} is another key's", why=why, code="VOTES-KEY")
            fields.done()
            items = [_parse(line) for line in lines]
        except Malformed as error:
            why = f"a line of it is not as it was written: {error}"
            raise Malformed(f"{self.path} is damaged", why=why, code="VOTES-DAMAGED") from error
        return Votes(
            tuple(item for item in items if not isinstance(item, Mark)),
            tuple(item for item in items if isinstance(item, Mark)),
        )

    def _write(self, votes: Votes) -> None:
        lines = [canonical({"schema": SCHEMA, "key": self._key.id}), *_lines(votes)]
        durable.write_file(self.path, b"\n".join(lines) + b"\n", point=POINT)


def reading_of(payload: bytes) -> Reading:
    """The reading that a payload is, signed or not. Raises Malformed."""
    return read_reading(Entry(b"", Envelope(PAYLOAD_TYPE, payload, ()), Statement.parse(payload)))


def _lines(votes: Votes) -> Iterator[bytes]:
    for reading in votes.readings:
        payload = reading.statement().encode()
        yield b'{"sha256":"%b","statement":%b}' % (sha256(payload).encode(), payload)
    for mark in votes.marks:
        yield canonical({mark.kind: mark.prev, "why": mark.why})


def _parse(line: bytes) -> Reading | Mark:
    fields = _fields(line)
    if fields.has("statement"):
        payload = canonical(fields.take("statement"))
        if fields.digest("sha256") != sha256(payload):
            raise Malformed("reading is malformed", why="its digest is another one")
        fields.done()
        return reading_of(payload)
    kind = "lost" if fields.has("lost") else "resumed"
    mark = Mark(kind, fields.digest(kind), fields.text("why", least=0, most=1000))
    fields.done()
    return mark


def _fields(line: bytes) -> Fields:
    value: Json = parse_canonical(line, limit=MAX_BYTES, what="vote file")
    return Fields(value, "vote file")
