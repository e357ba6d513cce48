"""Lines of people without a seat on which a draft may rest: inceptions, rotations, consents of those it would admit.

They are looked up by the ids that a draft names, since anybody at all may have logged an inception. Blocking.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from comity.ledger.index import Query
from comity.ledger.ledger import Ledger
from comity.node.governance.hearing import MAX_ENVELOPES, about
from comity.node.governance.memo import Memo
from comity.trust.charter.proposing import CONSENTED
from comity.trust.digest import Digest
from comity.trust.errors import ComityError
from comity.trust.identity import Inception, check_inception
from comity.trust.rotation import Chain, KeyState, follow
from comity.trust.statement import Entry, parse_entry

LOOKED_AT: Final = 64
"""Lines of one log that claim to be one identity's, of one kind, and are looked at: the first, and of each statement at
most `MAX_ENVELOPES`. What somebody writes into one log takes no place from what stands in another."""
CONSENTS: Final = 8
"""Consents of one newcomer to drafts of one epoch."""


def newcomer(ledger: Ledger, identity: Digest, body: Digest, memo: Memo) -> list[Entry]:
    """What somebody without a seat says that matters for a successor of `body`: proven, and bounded."""
    found = inception(ledger, identity)
    if found is None:
        return []
    record, entry = found
    chain = rotations(ledger, KeyState.of_inception(record), memo)
    consents = (
        said
        for said in claimed(ledger, identity, CONSENTED)
        if about(said.statement) == body and any(memo.signed(state.keys, said.envelope) for state in chain.reached)
    )
    return [entry, *(step.entry for step in chain.steps), *islice(consents, CONSENTS)]


def inception(ledger: Ledger, identity: Digest) -> tuple[Inception, Entry] | None:
    """The proven record of an identity, and the line that proves it."""
    for entry in claimed(ledger, identity, "inception"):
        try:
            record = check_inception(entry)
        except ComityError:
            continue
        if record.id == identity:
            return record, entry
    return None


def rotations(ledger: Ledger, start: KeyState, memo: Memo) -> Chain:
    """Where the rotations of an identity lead that are logged here."""
    return follow(start, claimed(ledger, start.identity, "rotated"), signed=memo.signed)


def claimed(ledger: Ledger, identity: Digest, predicate: str) -> Iterator[Entry]:
    """Entries of one kind that claim to be of an identity, unproven: the first few of each log."""
    envelopes: set[Digest] = set()
    for log in ledger.index.logs_naming(identity):
        copies: Counter[Digest] = Counter()
        for located in ledger.index.find(Query(predicate=predicate, by=identity, origin=log), limit=LOOKED_AT):
            entry = parse_entry(located.line)
            copies[entry.statement_digest] += 1
            if copies[entry.statement_digest] <= MAX_ENVELOPES and entry.digest not in envelopes:
                envelopes.add(entry.digest)
                yield entry


def places(ledger: Ledger, entries: Iterable[Entry]) -> Iterator[tuple[Entry, str, int]]:
    """Where each entry stands first; entries that stand in no log here are left out."""
    for entry in entries:
        for place in ledger.index.places(entry.digest)[:1]:
            yield entry, place.origin, place.index
