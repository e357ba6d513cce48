"""The policy by which a user's pulls and verifications are judged where they name none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from comity.trust.federation import Federation
from comity.trust.policy import CosignerRule, Policy, UpstreamRule

from comity_client.owner.trust_store import Bindings

MOST_COSIGNERS = 2
UNSIGNED = ("signatures", "transparency", "cosigners")
"""Rows about a publication, which what was only mirrored does not have."""


def default_policy(pins: Iterable[Federation], bindings: Bindings) -> Policy:
    """All pinned bodies decide; as many cosigners outside the publisher's jurisdiction as the most demanding charter
    asks for, at most two; namespaces mean what the owner bound them to, and keys count as the pinned rotations say.

    A small federation cannot be asked for more than its charter promises, and a lax one must not lower the bar for
    another.
    """
    bodies = tuple(federation.body for federation in pins)
    promised = max((body.policy.cosigner_quorum for body in bodies), default=MOST_COSIGNERS)
    return Policy(
        pins=bodies,
        bindings=dict(bindings.publishers),
        rotations=dict(bindings.rotations),
        cosigners=CosignerRule(at_least=min(MOST_COSIGNERS, promised)),
    )


def mirrored_policy(policy: Policy) -> Policy:
    """The same for what a user names by its upstream, `hf:org/name@commit`: nobody need have published it, but a node
    of a pinned member has to say that it fetched these bytes there."""
    rule = UpstreamRule(max(1, policy.upstream.corroborated))
    return replace(policy, upstream=rule, require=tuple(row for row in policy.require if row not in UNSIGNED))
