"""The input of the row functions: `Findings`, with everything that `verify` derived from evidence and policy.

Also the facts, labels and texts that several rows or the command line use, and the times by which enough cosigners had
seen the artifact. Mirror statements of pinned members' nodes, and `verified` statements, are claims: no other verdict
is adopted, and checks do not change a state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from comity.trust.artifact import Manifest
from comity.trust.bound_nodes import BoundNode, ProvenCosigner, WitnessedEntry
from comity.trust.charter.document import Body, Member
from comity.trust.claims import MirrorEvidence, ParsedClaims, ProvenObservation, UpstreamChange, Vouch, member_label
from comity.trust.encoding import Digest, format_time, short
from comity.trust.evaluation import JudgedEvaluation
from comity.trust.evidence import Evidence, Remark, RowFact
from comity.trust.frozen import frozen
from comity.trust.identity import Inception
from comity.trust.key_validity import CompromiseNotice, JudgedPublication
from comity.trust.lineage import LineageGraph
from comity.trust.model_signing.bundle import TrustedTime
from comity.trust.model_signing.judging import ModelSignatureResult
from comity.trust.officers import JudgedApproval
from comity.trust.policy import CosignerRule, Policy
from comity.trust.report import RESULTS, Verified
from comity.trust.rotation import KeyState
from comity.trust.statement import Entry
from comity.trust.statements import Advisory
from comity.trust.upstream import Changed, Observed


@frozen
class CopyClaim:
    """What a node said last in its own log about its copy, in the statement with the digest `line`: that it holds one
    in full, or why it does so no longer (`withdrawn`). `member` is the label of its member."""

    member: str
    line: Digest
    withdrawn: str = ""


@frozen
class Findings:
    """The evidence, the policy, and the results of steps (1) to (6).

    `chosen` is the best publication and `best` its best proof of logging, None if there is none. `bound` are the
    nodes that a pinned body proves, `unlisted_nodes` the names of nodes whose member no pinned body lists. `checks`
    are proven `verified` statements, `vouches` proven `vouched` statements, `announced` the evaluations among them
    whose results are at hand, `approvals` approvals of the officers whom the policy names. `copies` are what nodes
    said last in their own logs about their copies. `lineage` has what publishers and others say, `claimed` only
    what publishers do. `commit` is the upstream commit that was asked for, empty if there is none. `model_sig` is
    None if there is no `model.sig`; `without_manifest`: it alone lists the files. `remarks` describe material that
    did not verify, apart from those in `claims` and `judged`.
    """

    evidence: Evidence
    policy: Policy
    manifest: Manifest
    claims: ParsedClaims
    bound: tuple[BoundNode, ...]
    judged: tuple[JudgedPublication, ...]
    chosen: JudgedPublication | None
    best: WitnessedEntry | None
    model_sig: ModelSignatureResult | None
    mirroring: MirrorEvidence
    commit: str
    lineage: LineageGraph
    claimed: LineageGraph
    advisories: tuple[tuple[Entry, Advisory], ...]
    checks: tuple[tuple[Entry, Verified], ...]
    disputes: tuple[tuple[Entry, Entry], ...]
    copies: tuple[CopyClaim, ...]
    vouches: tuple[Vouch, ...]
    approvals: tuple[JudgedApproval, ...]
    announced: tuple[JudgedEvaluation, ...]
    unlisted_nodes: tuple[str, ...]
    remarks: tuple[Remark, ...]

    @property
    def compromised(self) -> tuple[CompromiseNotice, ...]:
        """The compromise notices for keys that signed `chosen`."""
        return tuple(each.notice for each in self.chosen.notices) if self.chosen else ()

    @property
    def without_manifest(self) -> bool:
        return has_only_model_sig(self.evidence)


def has_only_model_sig(evidence: Evidence) -> bool:
    """Whether there is a `model.sig` but no manifest, so that only the `model.sig` lists the artifact's files."""
    return evidence.manifest is None and evidence.model_sig is not None and evidence.files is not None


def verified_fact(text: str, evidence: Digest | None = None) -> RowFact:
    return RowFact(text, "verified here", evidence=evidence)


def remark_fact(remark: Remark) -> RowFact:
    return verified_fact(remark.text, remark.evidence)


def identity_label(identity: Inception) -> str:
    return f"{identity.display} [{identity.id[:12]}]"


def coverage_facts(result: ModelSignatureResult) -> tuple[RowFact, ...]:
    """Facts about the files that a `model.sig` lists, and those that it does not."""
    coverage, digest = result.coverage, result.digest
    if coverage is None:
        return ()
    seen = (*coverage.wrong, *coverage.unsigned, *coverage.tolerated)
    absent = (*coverage.missing, *coverage.unchecked)
    return tuple(verified_fact(text, digest) for text in seen) + tuple(
        RowFact(text, "stale or absent", evidence=digest) for text in absent
    )


def key_algorithms(signer: KeyState) -> str:
    algorithms = sorted({half.alg for key in signer.keys.keys for half in key.halves})
    return f"{signer.keys.threshold} of {len(signer.keys.keys)} keys ({' + '.join(algorithms)})"


def cosigned_times(judged: Iterable[JudgedPublication], rule: CosignerRule) -> list[TrustedTime]:
    """Times by which enough cosigners for `rule`, at least one, had seen a publication of the artifact, earliest first.

    The publisher does not matter. More evidence never removes a time from the list (I4).
    """
    times: set[int] = set()
    for each in judged:
        for seen in each.witnessed:
            of_each = {cosigner: cosigner.times(rule) for cosigner in seen.counted(rule, each.jurisdictions)}
            times.update(at for at in chain(*of_each.values()) if _enough(rule, of_each, at))
    return [TrustedTime(at, "by when enough cosigners had seen it") for at in sorted(times)]


def _enough(rule: CosignerRule, of_each: Mapping[ProvenCosigner, tuple[int, ...]], at: int) -> bool:
    """Whether those that had cosigned by `at`, when one of them did, satisfy the rule."""
    by_then = [cosigner.member for cosigner, times in of_each.items() if any(time <= at for time in times)]
    jurisdictions = {member.jurisdiction for member in by_then}
    return len(by_then) >= rule.at_least and len(jurisdictions) >= rule.jurisdictions


OBTAINED_TEXTS = {"fetched": "mirrored from", "cache": "taken from a cache of", "carried": "imported from a folder as"}
LOST_TEXTS = {
    "repository": "the repository is gone",
    "commit": "the commit is gone",
    "revision": "the branch or tag is gone",
    "access": "access is refused",
}


def dispute_facts(mirroring: MirrorEvidence) -> tuple[RowFact, ...]:
    return tuple(
        RowFact(
            f"other bytes under {rival.observed.upstream.name}: sha256:{short(rival.observed.artifact)}, "
            f"{_origin_text(rival.observed)}; both are kept, and at least one is wrong",
            "claimed",
            member_names(rival.members),
            rival.entry.digest,
        )
        for rival in mirroring.rivals
    )


def member_names(members: Sequence[Member]) -> str:
    """`Institute A (CH), Institute B (ES)`."""
    return ", ".join(member_label(member) for member in members)


def observed_text(seen: ProvenObservation) -> str:
    """`mirrored from hf:org/name@… at https://…: 9/9 files equal what the upstream lists; not checked: commit`."""
    observed = seen.observed
    unchecked = f"; not checked: {', '.join(observed.unchecked)}" if observed.unchecked else ""
    return f"{_origin_text(observed)}: {observed.match_text}{unchecked}"


def change_text(change: UpstreamChange) -> str:
    """Describe a change at the upstream; it does not affect the mirrored bytes."""
    if isinstance(change, Changed):
        observed = change.upstream
        return (
            f"{observed.requested} of {observed.repository} is now at {change.successor}; the bytes here are unchanged"
        )
    return f"{LOST_TEXTS[change.lost]} upstream, when asked for {change.upstream.name}; the bytes here are unchanged"


def _origin_text(observed: Observed) -> str:
    at = f" at {observed.upstream.endpoint}" if observed.upstream.endpoint else ""
    return f"{OBTAINED_TEXTS[observed.obtained.how]} {observed.upstream.name}{at}"


def check_facts(
    checks: Iterable[tuple[Entry, Verified]], claims: ParsedClaims, pins: Sequence[Body]
) -> tuple[RowFact, ...]:
    """Proven checks as facts: members first, under their name in a pinned body, so that many other authors cannot hide
    them."""
    members = {member.id for body in pins for member in body.members}
    ordered = sorted(checks, key=lambda check: check[1].by not in members)
    return tuple(
        RowFact(_check_text(observed), "claimed", _checker_label(observed, claims, pins), entry.digest)
        for entry, observed in ordered
    )


def _check_text(verified: Verified) -> str:
    rows = f"{len(verified.levels)} rows pass" if len(verified.levels) != 1 else "one row passes"
    result = RESULTS[verified.passed]
    return f"checked it on {format_time(verified.time)}, policy {short(verified.policy)}: {result}, {rows}"


def _checker_label(verified: Verified, claims: ParsedClaims, pins: Sequence[Body]) -> str:
    members = [member for body in pins if (member := body.member(verified.by)) is not None]
    if members:
        return member_label(members[-1])
    return identity_label(claims.inceptions[verified.by])
