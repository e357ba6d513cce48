"""What publishers state of the kinds of their artifacts, and the kind in the row of each publication.

The row of a publication has the kind that counts (`comity.rules.artifact_kind`), so that a search for datasets reads
datasets alone, of however many models. It is computed again whenever a statement of its publisher about the artifact is
written, the publication or one about its kind, and written only if it is another one. So the rows do not depend on the
order in which the statements arrive, and what others state costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from sqlalchemy import Connection, Select, select, tuple_, update

from comity.ledger import schema
from comity.ledger.subject_reads import OTHER
from comity.rules.artifact_kind import KindStated, kind_of, stated_by
from comity.trust.encoding import Digest
from comity.trust.statement import Entry, parse_entry
from comity.trust.statement_kinds import ARTIFACT_KIND, PUBLISHED

MAX_PAIRS: Final = 100
"""Artifacts, or statements, in one query."""
MAX_STATED: Final = 64
"""Statements that are read of the kind of one artifact: of one publisher, who corrects it `MAX_NUMBER` times."""

_ENTRY, _SUBJECT, _PUBLICATION = schema.entries.c, schema.subjects.c, schema.publications.c
_Pair: TypeAlias = tuple[Digest, Digest]
_Place: TypeAlias = tuple[int, int]


def read_kinds(connection: Connection, published: Iterable[_Pair]) -> dict[_Pair, tuple[KindStated, ...]]:
    """Returns what publishers state of the kinds of their artifacts, by artifact and publisher: of each at most
    `MAX_STATED` statements."""
    pairs = list(dict.fromkeys(published))
    found: dict[_Pair, list[_Place]] = {}
    for start in range(0, len(pairs), MAX_PAIRS):
        for digest, by, log_id, index in connection.execute(_kinds_of(pairs[start : start + MAX_PAIRS])):
            if len(places := found.setdefault((digest, by), [])) < MAX_STATED:
                places.append((log_id, index))
    entries = _entries(connection, [place for places in found.values() for place in places])
    return {
        pair: stated_by((entries[place] for place in places if place in entries), pair[1], pair[0])
        for pair, places in found.items()
    }


def write_kinds(connection: Connection, published: Iterable[_Pair]) -> None:
    """Write the kinds that count into the rows of the publications of these artifacts by these publishers: those with a
    statement about the kind, because all others are written as models."""
    for (artifact, publisher), stated in read_kinds(connection, published).items():
        kind = kind_of(stated)
        about = (_SUBJECT.digest == artifact, _SUBJECT.by == publisher, _SUBJECT.kind == PUBLISHED)
        places = select(_SUBJECT.log_id, _SUBJECT.index).where(*about)
        rows = tuple_(_PUBLICATION.log_id, _PUBLICATION.index).in_(places)
        connection.execute(update(schema.publications).where(rows, _PUBLICATION.kind != kind).values(kind=kind))


def _kinds_of(pairs: Sequence[_Pair]) -> Select[Digest, Digest, int, int]:
    """Selects the statements of these authors about the kinds of these artifacts; those too that were read by a version
    that did not know them."""
    own = tuple_(_SUBJECT.digest, _SUBJECT.by).in_(pairs)
    wanted = select(_SUBJECT.digest, _SUBJECT.by, _SUBJECT.log_id, _SUBJECT.index)
    few = (_SUBJECT.kind.in_((ARTIFACT_KIND, OTHER)), _SUBJECT.round < MAX_STATED)
    return wanted.where(own, *few).order_by(_SUBJECT.kind, _SUBJECT.round)


def _entries(connection: Connection, places: Sequence[_Place]) -> dict[_Place, Entry]:
    found: dict[_Place, Entry] = {}
    wanted = select(_ENTRY.log_id, _ENTRY.index, _ENTRY.line)
    for start in range(0, len(places), MAX_PAIRS):
        some = tuple_(_ENTRY.log_id, _ENTRY.index).in_(places[start : start + MAX_PAIRS])
        found |= {(log_id, index): parse_entry(line) for log_id, index, line in connection.execute(wanted.where(some))}
    return found
