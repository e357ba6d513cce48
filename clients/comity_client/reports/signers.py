"""Whether a report's signer is somebody whom this user knows. A good signature by anybody at all proves nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from comity.trust.digest import Digest
from comity.trust.errors import Malformed, PolicyNotMet
from comity.trust.judging.tenure import tenure

from comity_client.owner.publishers import Publisher
from comity_client.owner.trust_store import Bindings, Pin
from comity_client.reports.signed import SignedReport

MIN_PREFIX = 16
"""Digits of an id that a person may leave it at."""


@dataclass(frozen=True, slots=True)
class CheckedReport:
    """A signed report that holds, by a signer who is known here, and as what."""

    signed: SignedReport
    known_as: str


def check_signer(
    signed: SignedReport, by: str, own: Sequence[Publisher], pins: Sequence[Pin], bindings: Bindings
) -> CheckedReport:
    """Hold the signer to `by` (an id, or 16 or more of its first digits), or, where that is empty, to what this user
    trusts: their own identities, their bindings, and the members and publishers of the pinned charters.

    Raises Malformed for `by`, PolicyNotMet with code REPORT-SIGNER.
    """
    _check_keys(signed, bindings)
    identity = signed.signer.id
    if by:
        wanted = by.removeprefix("sha256:").lower()
        if len(wanted) < MIN_PREFIX:
            raise Malformed(f"{by!r} is too short", why=f"an id has 64 digits, at least {MIN_PREFIX} are needed")
        if not identity.startswith(wanted):
            raise _unknown(f"it is signed by {identity}, not by {by}")
        return CheckedReport(signed, "the one whom you named")
    known = next(_roles(identity, own, pins, bindings), None)
    if known is None:
        raise _unknown(f"{signed.signer.display} [{identity}] is neither yours, nor bound, nor a pinned member")
    return CheckedReport(signed, known)


def _check_keys(signed: SignedReport, bindings: Bindings) -> None:
    """Keys that a pinned rotation retired sign nothing that was not logged before; offline there is no such proof."""
    pinned = bindings.rotations.get(signed.signer.id)
    kept = tenure(signed.entry, signed.chain, pinned, (), {})
    if not kept.accepted:
        raise _unknown(kept.text)


def _roles(identity: Digest, own: Sequence[Publisher], pins: Sequence[Pin], bindings: Bindings) -> Iterator[str]:
    yield from (f"your own identity {each.label}" for each in own if each.id == identity)
    yield from (f"bound by you to {name}" for name, bound in bindings.publishers.items() if bound == identity)
    for pin in pins:
        body = pin.federation.body
        seat = body.member(identity)
        if seat is not None:
            yield f"member {seat.name} ({seat.jurisdiction}) of a pinned charter"
        yield from (
            f"publisher of {name} in a pinned charter" for name, who in body.namespaces.items() if who == identity
        )


def _unknown(why: str) -> PolicyNotMet:
    hint = "comity report check FILE --by ID   # the officer's id, as they tell you by another way"
    return PolicyNotMet(
        "the signature holds, and its signer is not known here", why=why, hint=hint, code="REPORT-SIGNER"
    )
