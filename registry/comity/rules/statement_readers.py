"""The classes of what statements say, and the one reader of all kinds. No signature is verified. Source: protocol,
section 5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from comity.rules.artifact_kind import KindStated
from comity.rules.artifact_pins import Wanted, WantedWithdrawn
from comity.rules.audit import Answer, AuditFailure, AuditSummary
from comity.rules.continuation import Continues
from comity.rules.continuity.drill_report import Drilled
from comity.rules.continuity.plan import PlanStatement
from comity.rules.equivocation import EquivocationClaim
from comity.rules.file_records import FileIndexState
from comity.rules.hardware_evidence import Attested
from comity.rules.image_signature import ImageSigned
from comity.rules.image_summary import ImageVerified
from comity.rules.offers.amounts import DefaultAnswer, Usage
from comity.rules.offers.fault_proof import OfferFault
from comity.rules.offers.records import PARTY_STATEMENTS, RECORDS
from comity.trust.approvals import ApprovalEnded, Approved
from comity.trust.charter.votes import BODY_STATEMENTS, Intent, Ratify, parse_vote
from comity.trust.content import Content
from comity.trust.copies import HeldArtifact, Holds, HoldWithdrawn
from comity.trust.evaluation import EvaluationAnnounced
from comity.trust.identity import InceptionStatement
from comity.trust.node_records import Addresses, NodeRecord
from comity.trust.report import Verified
from comity.trust.rotation import RotationStatement
from comity.trust.statement import Entry
from comity.trust.statement_kinds import STATEMENT_KINDS, VOTE_PREDICATES
from comity.trust.statements import Advisory, Derived, Published, Vouched
from comity.trust.upstream import Changed, Gone, Observed

CONTENTS: Final[tuple[type[Content], ...]] = (
    Approved,
    ApprovalEnded,
    Published,
    KindStated,
    Observed,
    Changed,
    Gone,
    Continues,
    Advisory,
    Vouched,
    ImageSigned,
    ImageVerified,
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
    PlanStatement,
    Drilled,
    *BODY_STATEMENTS.values(),
    Intent,
    Ratify,
    EquivocationClaim,
    InceptionStatement,
    RotationStatement,
    NodeRecord,
    Addresses,
    AuditFailure,
    AuditSummary,
    Answer,
    FileIndexState,
)
FORMS: Final[Mapping[str, tuple[type[Content], ...]]] = {
    kind: tuple(each for each in CONTENTS if each.predicate == kind) for kind in STATEMENT_KINDS
}
"""The classes of each kind: one, or one for each form of what it says."""


def read_content(entry: Entry) -> Content | None:
    """Returns the content of an entry as its kind's own class, or None for a predicate that this version does not know.
    Raises Malformed, and what else the reader of the kind raises."""
    statement = entry.statement
    if statement.predicate in VOTE_PREDICATES:
        return parse_vote(entry)
    forms = FORMS.get(statement.predicate, ())
    form = next((each for each in forms if each.is_form_of(statement)), forms[0] if forms else None)
    return form.parse(statement) if form else None
