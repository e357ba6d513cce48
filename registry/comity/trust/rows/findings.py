"""What `verify` has found out when it turns to the rows. Every row is a function of this, and of nothing else.

How rows say who somebody is, so that all of them say it alike.

By when an artifact existed, as far as cosigners prove it: moments at which its signatures were there already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from comity.trust.artifact import Manifest
from comity.trust.claims import BoundNode, ProvenCosigner, Readings, Vouch, WitnessedEntry
from comity.trust.encoding import Digest
from comity.trust.evidence import Evidence, Remark, RowFact
from comity.trust.identity import Inception
from comity.trust.key_validity import Evaluation
from comity.trust.lineage import LineageGraph
from comity.trust.model_signing.certificates import TrustedTime
from comity.trust.policy import CosignerRule, Policy
from comity.trust.rotation import KeyState
from comity.trust.statement import Entry
from comity.trust.statements import Advisory, Verified


@dataclass(frozen=True, slots=True)
class Findings:
    """The evidence, the policy, and what steps (1) to (6) made of them.

    `chosen` is the publication that gets furthest, None where there is none. `bound` are the nodes that a pinned body
    proves, `strangers` the names of those whose member no pinned body lists. `checks` are what others say that they
    verified, `vouches` what else they say of it. `holds` are signed, not yet proven to be in the node's own log.
    `remarks` say what did not verify outside of the readings and standings.
    """

    evidence: Evidence
    policy: Policy
    manifest: Manifest
    readings: Readings
    bound: tuple[BoundNode, ...]
    standings: tuple[Evaluation, ...]
    chosen: Evaluation | None
    lineage: LineageGraph
    advisories: tuple[tuple[Entry, Advisory], ...]
    checks: tuple[tuple[Entry, Verified], ...]
    disputes: tuple[tuple[Entry, Entry], ...]
    holds: tuple[tuple[Entry, BoundNode], ...]
    vouches: tuple[Vouch, ...]
    strangers: tuple[str, ...]
    remarks: tuple[Remark, ...]


def here(text: str, evidence: Digest | None = None) -> RowFact:
    return RowFact(text, "verified here", evidence=evidence)


def noted(remark: Remark) -> RowFact:
    return here(remark.text, remark.evidence)


def who(identity: Inception) -> str:
    return f"{identity.display} [{identity.id[:12]}]"


def member(seen: WitnessedEntry) -> str:
    return f"{seen.writer.name} ({seen.writer.jurisdiction})"


def algorithms(signer: KeyState) -> str:
    algorithms = sorted({half.alg for key in signer.keys.keys for half in key.halves})
    return f"{signer.keys.threshold} of {len(signer.keys.keys)} keys ({' + '.join(algorithms)})"


def cosigned_moments(standings: Iterable[Evaluation], rule: CosignerRule) -> list[TrustedTime]:
    """Moments by which as many cosigners as `rule` asks for, and at least one, had seen some statement that names the
    artifact, earliest first.

    Whose statement it is does not matter. Whatever evidence is added, a moment that is in this list stays in it (I4).
    """
    times: set[int] = set()
    for standing in standings:
        for seen in standing.witnessed:
            of_each = {cosigner: cosigner.times(rule) for cosigner in seen.counted(rule, standing.jurisdictions)}
            times.update(at for at in chain(*of_each.values()) if _enough(rule, of_each, at))
    return [TrustedTime(at, "by when enough cosigners had seen it") for at in sorted(times)]


def _enough(rule: CosignerRule, of_each: Mapping[ProvenCosigner, tuple[int, ...]], at: int) -> bool:
    """Whether those who had cosigned by `at` satisfy the rule among themselves."""
    by_then = [cosigner.member for cosigner, times in of_each.items() if any(time <= at for time in times)]
    jurisdictions = {member.jurisdiction for member in by_then}
    return len(by_then) >= max(rule.at_least, 1) and len(jurisdictions) >= rule.jurisdictions
