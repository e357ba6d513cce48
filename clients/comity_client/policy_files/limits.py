"""What could never pass under a policy, and what in it does nothing: found by reading it, before a model comes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from comity.trust.policy import PUBLISHER, LineageRule, Policy
from comity.trust.policy.cosigners import most_cosigners


@dataclass(frozen=True, slots=True)
class Finding:
    """`never`: `row` is required and could not pass whatever the evidence. `idle`: a line of the policy that changes
    nothing."""

    kind: Literal["never", "idle"]
    row: str
    text: str


def findings(policy: Policy) -> tuple[Finding, ...]:
    never = (Finding("never", row, text) for row, text in _never(policy) if row in policy.require)
    return (*never, *(Finding("idle", row, text) for row, text in _idle(policy)))


def _never(policy: Policy) -> Iterator[tuple[str, str]]:
    if not policy.pins:
        yield "transparency", "no charter is pinned by [[pin]], so no log is anybody's"
        yield "cosigners", "no charter is pinned by [[pin]], so nobody counts"
    elif (most := most_cosigners(policy.cosigners, policy.pins)) is not None:
        counted, jurisdictions = most
        wanted = f"{policy.cosigners.at_least} cosigners in {max(policy.cosigners.jurisdictions, 1)} jurisdictions"
        have = f"the pinned charters have at most {counted} in {jurisdictions} outside of what is excluded"
        yield "cosigners", f"{wanted} are asked for, and {have}"
    named = policy.publishers or policy.bindings or any(body.namespaces for body in policy.pins)
    if not named:
        yield "key policy", "neither accept or names of [publishers] nor a pinned charter names a publisher"


def _idle(policy: Policy) -> Iterator[tuple[str, str]]:
    if policy.publishers:
        for name, who in sorted(policy.bindings.items()):
            if who not in policy.publishers:
                yield "key policy", f"publishers.names binds {name!r} to somebody whom publishers.accept leaves out"
    known = policy.publishers | set(policy.bindings.values()) | _namespaces(policy)
    for who in sorted(set(policy.rotations) - known):
        if known:
            yield "key policy", f"publishers.rotations holds {who[:16]}, who is not accepted anyway"
    codes = {seat.jurisdiction for body in policy.pins for seat in body.active}
    for code in policy.cosigners.outside:
        if policy.pins and code != PUBLISHER and code not in codes:
            yield "cosigners", f"cosigners.outside names {code}, where no pinned member is"
    if policy.licences and "licence" not in policy.require:
        yield "licence", "licences.accept is judged and shown, and decides nothing: rows.require leaves licence out"
    if policy.lineage != LineageRule() and "lineage" not in policy.require:
        yield "lineage", "lineage is judged and shown, and decides nothing: rows.require leaves lineage out"
    if policy.freshness is not None and "time" not in policy.require:
        yield "time", "time.as_of is judged and shown, and decides nothing: rows.require leaves time out"


def _namespaces(policy: Policy) -> set[str]:
    return {who for body in policy.pins for who in body.namespaces.values()}
