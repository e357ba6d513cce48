"""The charter: who the members of a federation are, and how a quorum of them, and nobody else, changes that.

    body         the document of one epoch; the quorum floor
    founding     epoch 0, by everybody's consent
    succession   what every body must keep of the one before it
    proposing    drafts, consents, leaving, adopting
    readings     INTENT and RATIFY: what they say, and what is void on its face
    pile         signed lines, sorted by what they are about
    docket       which of them count
    certificate  what makes a body the successor of another, for ever
    lies         pairs of readings that no honest member signs
    voting       what an honest member may sign next, and must not
    stranding    whether a body would leave its members unable to change it again
    proceedings  the values that a council is made of
    council      all of it over any set of lines: epochs, open drafts, lies, forks, and (`duties`) who must do what

Pure functions over bytes and frozen values: the same lines give everybody the same answers. Source: protocol,
section 7.
"""

from __future__ import annotations

from comity.trust.charter.body import (
    MAX_BYTES,
    MAX_MEMBERS,
    Body,
    CharterPolicy,
    Member,
    draft,
    genesis,
    quorum,
)
from comity.trust.charter.certificate import Certificate, assemble, certify
from comity.trust.charter.council import deliberate
from comity.trust.charter.founding import certify_genesis, consenting
from comity.trust.charter.lies import Lie, accusation, check_accusation, check_lie, find_lies, read_accusation
from comity.trust.charter.proceedings import Council, DraftState, Duty, Fork
from comity.trust.charter.proposing import (
    adopted_statement,
    consent,
    consent_statement,
    draft_statement,
    left_statement,
    read_named,
)
from comity.trust.charter.readings import Intent, Ratify, Reading, RoundBody, read_reading
from comity.trust.charter.stranding import keys_seen, would_strand
from comity.trust.charter.succession import check_succession
from comity.trust.charter.voting import VoteState, Wait, guard, next_reading

__all__ = [
    "MAX_BYTES",
    "MAX_MEMBERS",
    "Body",
    "Certificate",
    "CharterPolicy",
    "Council",
    "DraftState",
    "Duty",
    "Fork",
    "Intent",
    "Lie",
    "Member",
    "Ratify",
    "Reading",
    "RoundBody",
    "VoteState",
    "Wait",
    "accusation",
    "adopted_statement",
    "assemble",
    "certify",
    "certify_genesis",
    "check_accusation",
    "check_lie",
    "check_succession",
    "consent",
    "consent_statement",
    "consenting",
    "deliberate",
    "draft",
    "draft_statement",
    "find_lies",
    "genesis",
    "guard",
    "keys_seen",
    "left_statement",
    "next_reading",
    "quorum",
    "read_accusation",
    "read_named",
    "read_reading",
    "would_strand",
]
