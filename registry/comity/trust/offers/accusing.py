"""`offer-fault`: a node says aloud that a chain breaks the rules, and where.

It proves nothing and is not asked to: whoever holds the log that it names computes the fault from the chain, and the
dossier (`dossier`) shows it to those who do not. Ours; the protocol asks that proofs are published (section 9).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest
from comity.trust.encoding import MAX_INTEGER, Json
from comity.trust.errors import Malformed
from comity.trust.offers.faults import FAULTS
from comity.trust.statement import Author, Statement, Subject
from comity.trust.tlog.note import VerifierKey

OFFER_FAULT: Final = "offer-fault"


@dataclass(frozen=True, slots=True)
class Accused:
    """That `chain`, in the log of verifier key `log`, is at fault by its entry `index`, whose line digest is `line`."""

    chain: Digest
    log: str
    index: int
    line: Digest
    kind: str


def accusation_statement(accused: Accused, node: Author) -> Statement:
    """What the accusing node signs."""
    body: dict[str, Json] = {"log": accused.log, "index": accused.index, "line": accused.line, "kind": accused.kind}
    statement = Statement(OFFER_FAULT, (Subject("offer", accused.chain),), node, body)
    if read_accused(statement) != accused:
        raise Malformed("accusation is malformed", why="it cannot be read back as it was written")
    return statement


def read_accused(statement: Statement) -> Accused:
    """Raises Malformed."""
    if statement.predicate != OFFER_FAULT or statement.by is None or statement.by.kind != "node":
        raise Malformed("accusation is malformed", why="not an offer-fault statement of a node")
    fields, chain = statement.fields(), statement.sole_subject()
    log, index, line = fields.text("log"), fields.integer("index", most=MAX_INTEGER), fields.digest("line")
    accused = Accused(chain, str(VerifierKey.parse(log)), index, line, fields.choice("kind", FAULTS))
    fields.done()
    if accused.log != log or statement.subjects != (Subject("offer", chain),) or statement.objects:
        raise Malformed("accusation is malformed", why="it does not name an offer and a log in their one spelling")
    return accused
