"""The input of the row functions: `Findings`, with everything that `verify` derived from evidence and policy.

Also the common fact and label helpers of the rows, and the times by which enough cosigners had seen the artifact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from comity.trust.artifact import Manifest
from comity.trust.claims import BoundNode, ParsedClaims, ProvenCosigner, Vouch, WitnessedEntry, member_label
from comity.trust.encoding import Digest
from comity.trust.evidence import Evidence, EvidenceReader, Remark, RowFact
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
    """The evidence, the policy, and the results of steps (1) to (6).

    `chosen` is the best publication, None if there is none. `bound` are the nodes that a pinned body proves,
    `unlisted_nodes` the names of nodes whose member no pinned body lists. `checks` are proven `verified` statements,
    `vouches` proven `vouched` statements. `holds` are signed, but not yet proven to be in the node's own log. `remarks`
    describe material that did not verify, apart from those in `claims` and `evaluations`.
    """

    evidence: Evidence
    reader: EvidenceReader
    policy: Policy
    manifest: Manifest
    claims: ParsedClaims
    bound: tuple[BoundNode, ...]
    evaluations: tuple[Evaluation, ...]
    chosen: Evaluation | None
    lineage: LineageGraph
    advisories: tuple[tuple[Entry, Advisory], ...]
    checks: tuple[tuple[Entry, Verified], ...]
    disputes: tuple[tuple[Entry, Entry], ...]
    holds: tuple[tuple[Entry, BoundNode], ...]
    vouches: tuple[Vouch, ...]
    unlisted_nodes: tuple[str, ...]
    remarks: tuple[Remark, ...]


def verified_fact(text: str, evidence: Digest | None = None) -> RowFact:
    return RowFact(text, "verified here", evidence=evidence)


def remark_fact(remark: Remark) -> RowFact:
    return verified_fact(remark.text, remark.evidence)


def identity_label(identity: Inception) -> str:
    return f"{identity.display} [{identity.id[:12]}]"


def log_member(seen: WitnessedEntry) -> str:
    return member_label(seen.writer)


def key_algorithms(signer: KeyState) -> str:
    algorithms = sorted({half.alg for key in signer.keys.keys for half in key.halves})
    return f"{signer.keys.threshold} of {len(signer.keys.keys)} keys ({' + '.join(algorithms)})"


def cosigned_times(evaluations: Iterable[Evaluation], rule: CosignerRule) -> list[TrustedTime]:
    """Times by which enough cosigners for `rule`, at least one, had seen a publication of the artifact, earliest first.

    The publisher does not matter. More evidence never removes a time from the list (I4).
    """
    times: set[int] = set()
    for evaluation in evaluations:
        for seen in evaluation.witnessed:
            of_each = {cosigner: cosigner.times(rule) for cosigner in seen.counted(rule, evaluation.jurisdictions)}
            times.update(at for at in chain(*of_each.values()) if _enough(rule, of_each, at))
    return [TrustedTime(at, "by when enough cosigners had seen it") for at in sorted(times)]


def _enough(rule: CosignerRule, of_each: Mapping[ProvenCosigner, tuple[int, ...]], at: int) -> bool:
    """Whether the cosigners that had cosigned by `at` satisfy the rule."""
    by_then = [cosigner.member for cosigner, times in of_each.items() if any(time <= at for time in times)]
    jurisdictions = {member.jurisdiction for member in by_then}
    return len(by_then) >= max(rule.at_least, 1) and len(jurisdictions) >= rule.jurisdictions
