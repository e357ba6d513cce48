"""The classes of what statements say, and the one reader of all kinds. No signature is verified. Source: protocol,
section 5."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from comity.rules.artifact_pins import Wanted, WantedWithdrawn
from comity.rules.audit import parse_answer, parse_audited
from comity.rules.equivocation import EquivocationClaim
from comity.rules.hardware.evidence import Attested
from comity.rules.offers.amounts import DefaultAnswer, Usage
from comity.rules.offers.fault_proof import OfferFault
from comity.rules.offers.records import PARTY_STATEMENTS, RECORDS
from comity.trust import statement_kinds as kinds
from comity.trust.approvals import ApprovalEnded, Approved
from comity.trust.charter.votes import BODY_STATEMENTS, Intent, Ratify, parse_vote
from comity.trust.content import Content
from comity.trust.copies import HeldArtifact, Holds, HoldWithdrawn
from comity.trust.evaluation import EvaluationAnnounced
from comity.trust.identity import read_inception
from comity.trust.node_records import parse_addresses, parse_node_record
from comity.trust.report import Verified
from comity.trust.rotation import parse_rotation
from comity.trust.statement import Entry, Statement
from comity.trust.statements import Advisory, Derived, Published, Vouched
from comity.trust.upstream import Changed, Gone, Observed

CONTENTS: Final[tuple[type[Content], ...]] = (
    Approved,
    ApprovalEnded,
    Published,
    Observed,
    Changed,
    Gone,
    Advisory,
    Vouched,
    EvaluationAnnounced,
    Verified,
    Derived,
    HeldArtifact,
    Holds,
    HoldWithdrawn,
    Wanted,
    WantedWithdrawn,
    *PARTY_STATEMENTS,
    *RECORDS,
    Usage,
    DefaultAnswer,
    OfferFault,
    Attested,
    *BODY_STATEMENTS.values(),
    Intent,
    Ratify,
    EquivocationClaim,
)
FORMS: Final[Mapping[str, tuple[type[Content], ...]]] = {
    predicate: tuple(each for each in CONTENTS if each.predicate == predicate)
    for predicate in dict.fromkeys(each.predicate for each in CONTENTS)
}
"""The classes of each kind: one, or one for each kind of author."""

_OF_STATEMENTS: Final[Mapping[str, Callable[[Statement], object]]] = {
    kinds.INCEPTION: read_inception,
    kinds.ADDRESSES: parse_addresses,
    kinds.AUDITED: parse_audited,
    kinds.AUDIT_ANSWER: parse_answer,
}
_OF_ENTRIES: Final[Mapping[str, Callable[[Entry], object]]] = {
    kinds.ROTATED: parse_rotation,
    kinds.NODE_RECORD: parse_node_record,
}


def read_content(entry: Entry) -> object:
    """Returns the content of an entry as its kind's own class, or None for a predicate that this version does not know.
    Raises Malformed, and what else the reader of the kind raises."""
    statement = entry.statement
    predicate = statement.predicate
    if predicate in kinds.VOTE_PREDICATES:
        return parse_vote(entry)
    if predicate in FORMS:
        return content_class(statement).parse(statement)
    if predicate in _OF_STATEMENTS:
        return _OF_STATEMENTS[predicate](entry.statement)
    return _OF_ENTRIES[predicate](entry) if predicate in _OF_ENTRIES else None


def content_class(statement: Statement) -> type[Content]:
    """The class of what a statement of a known kind says."""
    forms = FORMS[statement.predicate]
    kind = statement.by.kind if statement.by else ""
    return next((form for form in forms if form.author in ("", kind)), forms[0])
