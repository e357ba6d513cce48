"""Statements of the other side that this node is to answer: found in whichever log they stand, proven, and carried into
its own, so that whoever has that log has the question beside the answer."""

from __future__ import annotations

from dataclasses import dataclass

from comity.node.core import Core
from comity.node.governance.witnesses import inception
from comity.node.speakers import Speakers
from comity.trust.digest import Digest
from comity.trust.errors import NotFound
from comity.trust.offers import Said, is_said, read_said
from comity.trust.statement import Entry, parse_entry


@dataclass(frozen=True, slots=True)
class Heard:
    """A proven statement of an identity about an offer; `before` are lines that prove who it is, where this node's own
    log lacks them."""

    entry: Entry
    said: Said
    before: tuple[bytes, ...]


def hear(core: Core, line: Digest) -> Heard:
    """The statement with this line digest, in the envelope in which this node's own log has it, if it has. Blocking.

    Raises NotFound (NO-STATEMENT, UNKNOWN-IDENTITY), Malformed, and Untrusted where it is not its author's.
    """
    entry = _as_logged_here(core, _find(core, line))
    if not is_said(entry.statement):
        raise _missing(f"{line} is no statement of an identity about an offer")
    said = read_said(entry.statement)
    Speakers(core).prove(entry)
    return Heard(entry, said, _introduction(core, said.by))


def _find(core: Core, line: Digest) -> Entry:
    for place in core.ledger.index.places(line):
        return parse_entry(core.ledger.history.entry(place.vkey, place.index))
    raise _missing(f"no log held here has the line {line}")


def _as_logged_here(core: Core, entry: Entry) -> Entry:
    """The entry of the own log that says the same. Its author can sign one statement in many envelopes, and a record
    that answered another one than the log has would be about a line that no reader of the log finds."""
    index = core.ledger.index.first(core.log, entry.statement_digest)
    return entry if index is None else parse_entry(core.ledger.history.entry(core.log, index))


def _introduction(core: Core, identity: Digest) -> tuple[bytes, ...]:
    """The inception of who has no seat: members are known by the charter."""
    if core.membership.chains(identity):
        return ()
    found = inception(core.ledger, identity)
    if found is None or core.ledger.index.first(core.log, found[1].statement_digest) is not None:
        return ()
    return (found[1].line,)


def _missing(why: str) -> NotFound:
    return NotFound(
        "no such statement",
        why=why,
        hint="submit its line here first, or wait until the log that has it is mirrored",
        code="NO-STATEMENT",
    )
