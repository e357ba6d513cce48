"""The kinds of statements: for each its predicate, who may be its author, and whether it has side objects.

Whatever asks "which kinds are there?", or "which of them …?", asks this table. The module of a kind's family says what
its content is; `statement_readers` has the reader of each. A predicate that is not here is of a later version, or
somebody else's: its lines are kept, mirrored and shown as unknown, and nothing is derived from them. Source: protocol,
section 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from comity.trust.frozen import frozen

INCEPTION: Final = "inception"
ROTATED: Final = "rotated"
NODE_RECORD: Final = "node-record"
ADDRESSES: Final = "addresses"

PUBLISHED: Final = "published"
ARTIFACT_KIND: Final = "artifact-kind"
OBSERVED: Final = "observed"
UPSTREAM_CHANGED: Final = "upstream-changed"
UPSTREAM_GONE: Final = "upstream-gone"
CONTINUES: Final = "continues"
ADVISORY: Final = "advisory"
VOUCHED: Final = "vouched"
IMAGE_SIGNED: Final = "image-signed"
IMAGE_VERIFIED: Final = "image-verified"
EVALUATION_ANNOUNCED: Final = "evaluation-announced"
VERIFIED: Final = "verified"
APPROVED: Final = "approved"
APPROVAL_ENDED: Final = "approval-ended"
DERIVED: Final = "derived"
ATTESTED: Final = "attested"
CONTINUITY_PLAN: Final = "continuity-plan"
DRILLED: Final = "drilled"

HOLD: Final = "hold"
HOLDS: Final = "holds"
HOLD_WITHDRAWN: Final = "hold-withdrawn"
WANTED: Final = "wanted"
WANTED_WITHDRAWN: Final = "wanted-withdrawn"
AUDITED: Final = "audited"
AUDIT_ANSWER: Final = "audit-answer"
FILE_INDEX: Final = "file-index"

DRAFT: Final = "draft"
DRAFT_WITHDRAWN: Final = "draft-withdrawn"
INTENT: Final = "intent"
RATIFIED: Final = "ratified"
CONSENTED: Final = "consented"
LEFT: Final = "left"
ADOPTED: Final = "adopted"
MISBEHAVIOUR: Final = "misbehaviour"

OFFER: Final = "offer"
OFFER_WITHDRAWN: Final = "offer-withdrawn"
GRANT: Final = "grant"
PACT: Final = "pact"
REJECTED: Final = "rejected"
ACCEPTED: Final = "accepted"
LAPSED: Final = "lapsed"
REDEEMED: Final = "redeemed"
RELEASED: Final = "released"
REQUEST: Final = "request"
CUT_OFF: Final = "cut-off"
DEFAULTED: Final = "defaulted"
USAGE: Final = "usage"
OFFER_FAULT: Final = "offer-fault"


class AuthorRule(Enum):
    """Who may be the author, in words. A member signs with its governance keys."""

    IDENTITY = "an identity"
    NODE = "a node"
    ANYONE = "an identity or a node"
    MEMBER = "an identity that is a member"

    def allows(self, kind: str) -> bool:
        """Whether an author of this kind (`identity`, `node`) may say it."""
        return self is AuthorRule.ANYONE or kind == ("node" if self is AuthorRule.NODE else "identity")


IDENTITY, NODE, ANYONE, MEMBER = AuthorRule.IDENTITY, AuthorRule.NODE, AuthorRule.ANYONE, AuthorRule.MEMBER


@frozen
class StatementKind:
    """A kind of statement.

    Attributes:
        predicate: its short name; the predicate type is `urn:comity:<predicate>:v1`.
        by: who may be its author.
        did: what its author did, for people: the past tense, without a subject.
        objects: whether it has side objects.
        logged: whether it is a line of a log; an answer to an auditor and the state of an index are none.
    """

    predicate: str
    by: AuthorRule
    did: str
    objects: bool = False
    logged: bool = True


STATEMENT_KINDS: Final[Mapping[str, StatementKind]] = {
    kind.predicate: kind
    for kind in (
        StatementKind(INCEPTION, IDENTITY, "Announced an identity"),
        StatementKind(ROTATED, IDENTITY, "Changed keys"),
        StatementKind(NODE_RECORD, MEMBER, "Announced a node"),
        StatementKind(ADDRESSES, NODE, "Announced addresses"),
        StatementKind(PUBLISHED, IDENTITY, "Published an artifact", objects=True),
        StatementKind(ARTIFACT_KIND, IDENTITY, "Stated the kind of an artifact"),
        StatementKind(OBSERVED, NODE, "Mirrored a repository", objects=True),
        StatementKind(UPSTREAM_CHANGED, NODE, "The upstream changed"),
        StatementKind(UPSTREAM_GONE, NODE, "The upstream is gone"),
        StatementKind(CONTINUES, ANYONE, "Said which upstream commit it was"),
        StatementKind(ADVISORY, ANYONE, "Warned about an artifact"),
        StatementKind(VOUCHED, ANYONE, "Vouched for an artifact", objects=True),
        StatementKind(IMAGE_SIGNED, IDENTITY, "Signed the image of an artifact"),
        StatementKind(IMAGE_VERIFIED, IDENTITY, "Verified the image of an artifact"),
        StatementKind(EVALUATION_ANNOUNCED, ANYONE, "Announced an evaluation"),
        StatementKind(VERIFIED, IDENTITY, "Verified an artifact", objects=True),
        StatementKind(APPROVED, IDENTITY, "Approved an artifact", objects=True),
        StatementKind(APPROVAL_ENDED, IDENTITY, "Ended an approval"),
        StatementKind(DERIVED, ANYONE, "Re-derived weights"),
        StatementKind(ATTESTED, NODE, "Attested hardware", objects=True),
        StatementKind(CONTINUITY_PLAN, IDENTITY, "Signed a continuity plan"),
        StatementKind(DRILLED, IDENTITY, "Rehearsed the loss of a service", objects=True),
        StatementKind(HOLD, NODE, "Claims a complete copy", objects=True),
        StatementKind(HOLDS, NODE, "Claims complete copies"),
        StatementKind(HOLD_WITHDRAWN, NODE, "Withdrew a claim of a copy"),
        StatementKind(WANTED, NODE, "Asked for copies of an artifact"),
        StatementKind(WANTED_WITHDRAWN, NODE, "Asks for copies no longer"),
        StatementKind(AUDITED, NODE, "Tested copies of others"),
        StatementKind(AUDIT_ANSWER, NODE, "Answered an audit", logged=False),
        StatementKind(FILE_INDEX, NODE, "Gave its index of files", logged=False),
        StatementKind(DRAFT, MEMBER, "Proposed a charter", objects=True),
        StatementKind(DRAFT_WITHDRAWN, MEMBER, "Withdrew a proposal"),
        StatementKind(INTENT, MEMBER, "Voted: intent"),
        StatementKind(RATIFIED, MEMBER, "Voted: ratification"),
        StatementKind(CONSENTED, MEMBER, "Consented to a seat", objects=True),
        StatementKind(LEFT, MEMBER, "Left the federation", objects=True),
        StatementKind(ADOPTED, NODE, "Adopted a charter", objects=True),
        StatementKind(MISBEHAVIOUR, ANYONE, "Proved a misbehaviour", objects=True),
        StatementKind(OFFER, NODE, "Offered machines"),
        StatementKind(OFFER_WITHDRAWN, NODE, "Withdrew an offer"),
        StatementKind(REQUEST, IDENTITY, "Requested machines"),
        StatementKind(GRANT, NODE, "Granted machines"),
        StatementKind(PACT, NODE, "Granted a standing pact"),
        StatementKind(REJECTED, NODE, "Rejected a request"),
        StatementKind(ACCEPTED, ANYONE, "Accepted a grant"),
        StatementKind(LAPSED, NODE, "Let a grant lapse"),
        StatementKind(RELEASED, ANYONE, "Gave machines back"),
        StatementKind(REDEEMED, ANYONE, "Used a part of a grant"),
        StatementKind(USAGE, ANYONE, "Stated a use of machines"),
        StatementKind(DEFAULTED, ANYONE, "Said that a grant was not honoured"),
        StatementKind(CUT_OFF, IDENTITY, "Declared to be cut off"),
        StatementKind(OFFER_FAULT, NODE, "Proved a broken offer"),
    )
}
"""By predicate."""

KNOWN_PREDICATES: Final = frozenset(kind.predicate for kind in STATEMENT_KINDS.values() if kind.logged)
"""Predicates of the lines of logs."""
KEY_PREDICATES: Final = (INCEPTION, ROTATED)
"""What proves the keys of an identity."""
PROVING_PREDICATES: Final = (*KEY_PREDICATES, NODE_RECORD)
"""What proves who an author is: an identity or a node."""
PUBLICATION_PREDICATES: Final = (PUBLISHED, OBSERVED)
"""What gives an artifact a name."""
HOLD_PREDICATES: Final = (HOLD, HOLDS)
"""What claims complete copies."""
CHARTER_PREDICATES: Final = (DRAFT, DRAFT_WITHDRAWN, INTENT, RATIFIED, CONSENTED, LEFT)
"""What only members may say about a charter."""
BODY_PREDICATES: Final = (DRAFT, DRAFT_WITHDRAWN, CONSENTED, LEFT, ADOPTED)
"""What names one charter body and is no vote on it."""
VOTE_PREDICATES: Final = (INTENT, RATIFIED)
OFFER_PREDICATES: Final = (
    OFFER,
    OFFER_WITHDRAWN,
    REQUEST,
    GRANT,
    PACT,
    REJECTED,
    ACCEPTED,
    LAPSED,
    RELEASED,
    REDEEMED,
    USAGE,
    DEFAULTED,
    CUT_OFF,
)
"""What is said about an offer, by nodes and by identities."""
