"""A policy as a value: what its owner pins, and what they demand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from comity.trust.charter import Body
from comity.trust.digest import Digest
from comity.trust.model_signing.rule import ModelSigningRule
from comity.trust.policy.cosigners import CosignerRule
from comity.trust.policy.freshness import Freshness
from comity.trust.policy.lineage import LineageRule
from comity.trust.policy.names import DEFAULT_REQUIRED
from comity.trust.policy.safety import SafetyRule
from comity.trust.policy.upstream import UpstreamRule


@dataclass(frozen=True, slots=True)
class Policy:
    """What the verifier's owner pins and demands. `digest` names the exact text for the report."""

    pins: tuple[Body, ...] = ()
    publishers: frozenset[Digest] = frozenset()
    bindings: Mapping[str, Digest] = field(default_factory=dict)
    rotations: Mapping[Digest, Digest] = field(default_factory=dict)
    cosigners: CosignerRule = field(default_factory=CosignerRule)
    licences: frozenset[str] = frozenset()
    refuse_from: frozenset[Digest] = frozenset()
    freshness: Freshness | None = None
    lineage: LineageRule = field(default_factory=LineageRule)
    model_signing: ModelSigningRule = field(default_factory=ModelSigningRule)
    safety: SafetyRule = field(default_factory=SafetyRule)
    upstream: UpstreamRule = field(default_factory=UpstreamRule)
    documents: tuple[str, ...] = ()
    require: tuple[str, ...] = DEFAULT_REQUIRED
    digest: Digest | None = None

    def bound_publisher(self, namespace: str) -> Digest | None:
        """Who may publish under `namespace`: the owner's binding first, then the pinned bodies' (if they agree).

        However it is spelled: the Hub takes names that differ by case for one, and so do readers.
        """
        for bindings in (self.bindings.items(), [pair for body in self.pins for pair in body.namespaces.items()]):
            bound = {publisher for name, publisher in bindings if name.lower() == namespace.lower()}
            if bound:
                return bound.pop() if len(bound) == 1 else None
        return None
