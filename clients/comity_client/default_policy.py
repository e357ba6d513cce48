"""The policies of this user where no policy file is given: of pulls and verifications, and of mirrored artifacts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from comity.trust.charter.federation import Federation
from comity.trust.home_logs import OriginOwners, origin_owners
from comity.trust.policy import CosignerRule, Policy, UpstreamRule
from comity_client.trust_store import Bindings

MOST_COSIGNERS = 2
UNSIGNED = ("signatures", "transparency", "cosigners")
"""Rows about a publication; a mirrored artifact without a publication has none."""


def default_policy(pins: Iterable[Federation], bindings: Bindings) -> Policy:
    """Return the policy of pulls and verifications without a policy file: all pinned bodies count; bindings and pinned
    rotations apply; required cosigners outside the jurisdiction of the publisher are the highest quorum of the
    pinned charters, at most two.

    A small federation cannot give more cosigners than its charter promises, and a charter with a low quorum must not
    weaken the rule for another.
    """
    federations = tuple(pins)
    bodies = tuple(federation.body for federation in federations)
    promised = max((body.policy.cosigner_quorum for body in bodies), default=MOST_COSIGNERS)
    return Policy(
        pins=bodies,
        bindings=dict(bindings.publishers),
        rotations=dict(bindings.rotations),
        cosigners=CosignerRule(at_least=min(MOST_COSIGNERS, promised)),
        origins=OriginOwners.of_all(origin_owners(each.chain, each.identity_entries) for each in federations),
    )


def mirrored_policy(policy: Policy) -> Policy:
    """Return the policy for a reference to an upstream, `hf:org/name@commit`: no publication is required, but a node of
    a pinned member must claim that it fetched these bytes there."""
    rule = UpstreamRule(max(1, policy.upstream.corroborated))
    return replace(policy, upstream=rule, require=tuple(row for row in policy.require if row not in UNSIGNED))
