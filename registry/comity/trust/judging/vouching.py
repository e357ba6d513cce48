"""Which `vouched` statements about an artifact are somebody's proven word, and which members stand behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from comity.trust.digest import Digest, short
from comity.trust.errors import ComityError
from comity.trust.judging.reading import Readings
from comity.trust.judging.speaking import Speaker, Speakers
from comity.trust.remark import Remark
from comity.trust.statement import Entry
from comity.trust.statements.vouched import PREDICATE, STATEMENTS, Vouched, parse_vouched


@dataclass(frozen=True, slots=True)
class Vouch:
    """A statement and who is proven to have made it."""

    entry: Entry
    said: Vouched
    by: Speaker


def weigh_vouches(
    readings: Readings, artifact: Digest, speakers: Speakers
) -> tuple[tuple[Vouch, ...], tuple[Remark, ...]]:
    """The proven ones, and notes on the others."""
    found: list[Vouch] = []
    notes: list[Remark] = []
    for entry in readings.entries:
        if entry.statement.predicate != PREDICATE or artifact not in {s.digest for s in entry.statement.subjects}:
            continue
        try:
            said, speaker = parse_vouched(entry.statement), speakers.speaker(entry)
        except ComityError as error:
            text = f"vouched {short(entry.digest)} could not be read and counts for nothing: {error}"
            notes.append(Remark(text, entry.digest))
            continue
        if speaker is None:
            text = f"vouched {short(entry.digest)} is not proven to be {short(said.by.id)}'s"
            notes.append(Remark(text, entry.digest))
        else:
            found.append(Vouch(entry, said, speaker))
    return tuple(found), tuple(notes)


def members_behind(vouches: tuple[Vouch, ...]) -> Mapping[str, int]:
    """For each statement how many distinct members of pinned federations made it, themselves or by a node."""
    behind = {
        kind: {v.by.member.id for v in vouches if v.said.statement == kind and v.by.member} for kind in STATEMENTS
    }
    return {kind: len(members) for kind, members in behind.items() if members}
