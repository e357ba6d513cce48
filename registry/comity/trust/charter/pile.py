"""A pile of signed lines, sorted by what each is about. Nothing here is proven; what says nothing is set aside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from comity.trust.charter.proposing import ADOPTED, CONSENTED, DRAFT, LEFT, Named, read_named
from comity.trust.charter.readings import INTENT, RATIFIED, Reading, read_reading
from comity.trust.digest import Digest
from comity.trust.errors import ComityError
from comity.trust.statement import Entry, parse_entry


@dataclass(slots=True)
class Pile:
    """Lines by the body that they would change (`prev`), and by the identity that speaks."""

    readings: dict[Digest, dict[Reading, list[Entry]]] = field(default_factory=dict)
    named: dict[Digest | None, list[tuple[Named, Entry]]] = field(default_factory=dict)
    inceptions: dict[Digest, list[Entry]] = field(default_factory=dict)
    rotated: dict[Digest, list[Entry]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, lines: Iterable[bytes]) -> Pile:
        """Sort lines, of which those that are no statements count for nothing."""
        entries, notes = list[Entry](), list[str]()
        for line in lines:
            try:
                entries.append(parse_entry(line))
            except ComityError as error:
                notes.append(_useless(line, error))
        pile = cls.sort(entries)
        pile.notes += notes
        return pile

    @classmethod
    def sort(cls, entries: Iterable[Entry]) -> Pile:
        """Sort `entries`, in whatever order and however often they come. Never fails; malformed lines become notes."""
        pile = cls()
        for line, entry in sorted({entry.line: entry for entry in entries}.items()):
            try:
                pile._put(entry)
            except ComityError as error:
                pile.notes.append(_useless(line, error))
        return pile

    def _put(self, entry: Entry) -> None:
        predicate, by = entry.statement.predicate, entry.statement.by
        if predicate in (INTENT, RATIFIED):
            reading = read_reading(entry)
            self.readings.setdefault(reading.prev, {}).setdefault(reading, []).append(entry)
        elif predicate in (DRAFT, CONSENTED, LEFT, ADOPTED):
            named = read_named(entry)
            self.named.setdefault(named.prev, []).append((named, entry))
        elif predicate == "inception" and by is not None:
            self.inceptions.setdefault(by.id, []).append(entry)
        elif predicate == "rotated" and by is not None:
            self.rotated.setdefault(by.id, []).append(entry)


def _useless(line: bytes, error: ComityError) -> str:
    return f"a line of {len(line)} bytes counts for nothing: {error}"
