"""Lines of people without a seat on which a draft may rest: inceptions, rotations, consents of those it would admit.

They are looked up by the ids that a draft names, since anybody at all may have logged an inception. Blocking.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from comity.ledger.ledger import Ledger
from comity.node.governance.hearing import about
from comity.node.governance.memo import Memo
from comity.trust.charter.proposing import CONSENTED
from comity.trust.digest import Digest
from comity.trust.errors import ComityError
from comity.trust.identity import Inception, check_inception
from comity.trust.rotation import Chain, KeyState, follow
from comity.trust.statement import Entry, parse_entry

LOOKED_AT: Final = 64
"""Statements of one identity, of one kind, that are looked at."""
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


def claimed(ledger: Ledger, identity: Digest, predicate: str) -> list[Entry]:
    """What an identity is proven to have said with one predicate, the first few statements."""
    if predicate == "inception":
        line = ledger.proven.inception(identity)
        return [parse_entry(line)] if line else []
    if predicate == "rotated":
        return [parse_entry(line) for line in ledger.proven.rotations(identity)]
    found = (parse_entry(item.line) for item in ledger.proven.by(identity, predicate, LOOKED_AT).found)
    return list({entry.statement_digest: entry for entry in found}.values())


def places(ledger: Ledger, entries: Iterable[Entry]) -> Iterator[tuple[Entry, str, int]]:
    """Where each entry stands first; entries that stand in no log here are left out."""
    for entry in entries:
        for place in ledger.index.places(entry.digest)[:1]:
            yield entry, place.origin, place.index
