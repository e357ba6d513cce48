"""Who claimed a name first, compared with what is proven.

The order of claims is the order in which this node proved them: a number, which nobody signed. A front end reads it
from comity.trust.statement_kinds import INCEPTION
published under the name, and two claims in one log only if their entries are in the same order, which the signed
checkpoints of the log prove. An entry that waited for its author's keys was proven later than its place says: it is
compared only if its author's inception is before it in that log, and has the keys that signed it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, and_, select

from comity.ledger import schema
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Untrusted
from comity.trust.frozen import frozen
from comity.trust.identity import Inception
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import INCEPTION

_STATEMENT, _PUBLICATION, _CLAIMANT = schema.statements.c, schema.publications.c, schema.claimants.c
_ENTRY = schema.entries.c


@frozen
class NameClaimant:
    """An identity that published, or a node that observed, under a name, and the number of its first such statement."""

    publisher: Digest
    number: int


@frozen
class _Place:
    publisher: Digest
    log_id: int
    index: int


def first_claims(connection: Connection, name: str, limit: int) -> list[NameClaimant]:
    """Returns the first claimants of a folded name. Raises Untrusted (LEDGER-CORRUPT) if their order is not that of the
    statements."""
    stated = and_(_STATEMENT.number == _CLAIMANT.number, _STATEMENT.by == _CLAIMANT.publisher)
    published = and_(
        _PUBLICATION.name == _CLAIMANT.name,
        _PUBLICATION.publisher == _CLAIMANT.publisher,
        _PUBLICATION.log_id == _STATEMENT.log_id,
        _PUBLICATION.index == _STATEMENT.index,
    )
    wanted = (
        select(_CLAIMANT.publisher, _CLAIMANT.number, _PUBLICATION.log_id, _PUBLICATION.index)
        .select_from(schema.claimants.outerjoin(schema.statements, stated).outerjoin(schema.publications, published))
        .where(_CLAIMANT.name == name)
        .order_by(_CLAIMANT.number)
        .limit(limit)
    )
    rows = connection.execute(wanted).all()
    if any(log_id is None for _, _, log_id, _ in rows):
        raise _changed(name, "a claim of it has the number of another statement")
    _check_logs(connection, name, [_Place(publisher, log_id, index) for publisher, _, log_id, index in rows])
    return [NameClaimant(publisher, number) for publisher, number, _, _ in rows]


def _check_logs(connection: Connection, name: str, places: Sequence[_Place]) -> None:
    """Compare claims in one log: an earlier entry that did not wait for keys was proven first."""
    last: dict[int, _Place] = {}
    for place in places:
        before = last.get(place.log_id)
        if before is not None and place.index < before.index and _was_ready(connection, place):
            raise _changed(name, f"entry {place.index} of a log is listed after its entry {before.index}")
        if before is None or place.index > before.index:
            last[place.log_id] = place


def _was_ready(connection: Connection, place: _Place) -> bool:
    """Whether the keys of an entry's author were known when the entry was read, by the log itself."""
    by_author = (_STATEMENT.by == place.publisher, _STATEMENT.predicate == INCEPTION)
    before = select(_STATEMENT.index).where(*by_author, _STATEMENT.log_id == place.log_id)
    index = connection.scalar(before.where(_STATEMENT.index < place.index).order_by(_STATEMENT.index).limit(1))
    if index is None:
        return False
    here = (_ENTRY.log_id == place.log_id, _ENTRY.index.in_((index, place.index)))
    lines = {number: line for number, line in connection.execute(select(_ENTRY.index, _ENTRY.line).where(*here))}  # noqa: C416
    try:
        inception = Inception.from_json(parse_entry(lines[index]).statement.body.get("record"))
        return inception.id == place.publisher and inception.keys.signed(parse_entry(lines[place.index]).envelope)
    except (ComityError, KeyError):
        return False


def _changed(name: str, why: str) -> Untrusted:
    return schema.damaged_ledger(
        f"{name[:200]!r}: {why}", "the order of the claims to a name was changed in the ledger"
    )
