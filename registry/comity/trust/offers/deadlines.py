"""Whether a grant was accepted in time, for those who were not there: by the times of cosigners, not of either party.

A provider may record that a grant lapsed although it was accepted. The acceptance stands in some log, and each member
who cosigned that log with the acceptance inside, by a certain time, saw it by then. How many of them suffice says the
charter (`cosigner_quorum`). Source: protocol, section 9.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from comity.trust.digest import Digest
from comity.trust.errors import Untrusted
from comity.trust.offers.parties import Acceptance, read_said
from comity.trust.offers.records import Grant
from comity.trust.statement import Entry
from comity.trust.tlog.cosignature import verified_cosigners
from comity.trust.tlog.note import VerifierKey
from comity.trust.tlog.proof import TlogProof


def accepted_in_time(
    granted: Entry,
    grant: Grant,
    acceptance: Entry,
    proof: TlogProof,
    log: VerifierKey,
    cosigners: Mapping[Digest, Collection[VerifierKey]],
) -> frozenset[Digest]:
    """The members whose cosignatures show that `acceptance` stood in a log within the grant's deadline.

    Args:
        granted: the line that `grant` was read from.
        proof: of the acceptance, in any log.
        log: that log's key.
        cosigners: cosigner keys by member; those who are party to the grant are left out by the caller.

    Raises Malformed, and Untrusted where the acceptance is not of this grant or does not stand there. Not checked: the
    signatures on the two lines.
    """
    said = read_said(acceptance.statement)
    if not isinstance(said, Acceptance) or (said.by, said.grant) != (grant.grantee, granted.digest):
        raise Untrusted("not an acceptance of this grant", why="it is another's, or of another one", code="OFFER-STATE")
    checkpoint = proof.verify(acceptance.line, log)
    times = verified_cosigners(proof.checkpoint, (key for keys in cosigners.values() for key in keys), checkpoint)
    return frozenset(
        member for member, keys in cosigners.items() if any(0 < times.get(key, 0) <= grant.accept_by for key in keys)
    )
