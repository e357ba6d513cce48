"""What nodes say about the kit of a fallback, and what of it is verified here.

Each fact comes from its one home: the verdict and which approvals count from `trust.verify`, evaluations from
`trust.evaluation`, copies from `evidence.artifact_info.replicas`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from comity.rules.audit import DAY
from comity.rules.collected import CollectedEvidence
from comity.rules.continuity.facts import (
    JudgedKit,
    KitContents,
    KitCopy,
    KitFacts,
    KitWarning,
    Order,
    ParentWeights,
    StatedApproval,
    StatedResult,
)
from comity.rules.continuity.plan import DemandedApproval, Fallback
from comity.rules.copy_counts import NOT_COUNTED, PASSED, Holder
from comity.rules.kits.contents import kit_problems, lock_problems
from comity.rules.kits.description import KIT_FILE, LOCK_FILE, MAX_KIT, Kit
from comity.rules.refusal import refusal
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable
from comity.trust.evaluation import JudgedEvaluation, judge_evaluations
from comity.trust.evidence import Evidence, Verdict
from comity.trust.policy import ApprovalRule, Policy
from comity.trust.rows.approvals import APPROVALS_ROW
from comity.trust.statements import Advisory

from comity_client.events import ignore_event
from comity_client.evidence.approvals import listed_approvals
from comity_client.evidence.artifact_info import Replica, replicas
from comity_client.evidence.proofs import complete, fetch_object, fetch_small
from comity_client.evidence.resolve import Resolution
from comity_client.pull.model_sig import policy_before_fetch
from comity_client.pull.pull import announced, judge_of
from comity_client.session import RemoteNode, Session
from comity_client.user import User

MAX_LOCK: Final = 4 * 1024 * 1024
"""Bytes of a lock that are read."""
ReadLock: TypeAlias = Callable[[bytes], Mapping[Digest, str]]
"""What reads a lock: the name of each distribution by the hash of its wheel. Raises Malformed."""


async def kit_facts(
    user: User, session: Session, fallback: Fallback, policy: Policy, now: int, read_lock: ReadLock
) -> KitFacts | None:
    """The facts about a kit; None if no node that answers knows it. Raises Unavailable if none answers."""
    judged_by = _with_officers(policy, fallback.approval, now)
    try:
        resolution = await user.resolve(session, f"sha256:{fallback.kit.artifact}", judged_by)
        manifest = Manifest.parse(await fetch_object(session, fallback.kit.artifact))
    except NotFound:
        return None
    evidence, _ = await complete(
        session, user.seen_logs(session.reader), resolution.evidence, Evidence(None, None), ignore_event
    )
    verdict = _judge(resolution, evidence, manifest, judged_by)
    contents = await _contents(session, manifest, read_lock)
    return KitFacts(
        judged=_judged(verdict, resolution.title),
        contents=contents,
        warnings=_warnings(resolution, judged_by),
        key_lost="; ".join(notice.text for notice in resolution.lost_keys)[:200],
        weights=await _weights(user, session, contents.kit if contents else None, policy),
        results=tuple(_results(evidence, session)),
        approvals=_approvals(evidence, judged_by),
        approvals_short=_approvals_short(verdict, fallback.approval),
        copies=tuple(_copies(session, await replicas(resolution), now)),
        description=entry.sha256 if (entry := manifest.by_path.get(KIT_FILE)) else None,
    )


def _with_officers(policy: Policy, asked: DemandedApproval | None, now: int) -> Policy:
    """The policy, with the officers of the plan in place of its own. Its rows stay what they are: the plan has a link
    for approvals."""
    if asked is None:
        return policy
    officers = {f"officer {number}": identity for number, identity in enumerate(asked.by, 1)}
    places = {name: frozenset({identity}) for name, identity in officers.items()}
    rule = ApprovalRule(asked.scope, asked.at_least, officers, places, as_of=now)
    required = tuple(row for row in policy.require if row != APPROVALS_ROW)
    return replace(policy, approvals=rule, require=required)


def _judge(resolution: Resolution, evidence: CollectedEvidence, manifest: Manifest, policy: Policy) -> Verdict:
    """The verdict before a file is fetched, as a pull makes it."""
    found = evidence.evidence(manifest.encode(), tuple(announced(manifest)))
    return judge_of(resolution)(found, policy_before_fetch(policy, manifest))


def _judged(verdict: Verdict, title: str) -> JudgedKit:
    refused = refusal(verdict, title, "the policy", lambda rows, name: "")
    if refused is None:
        return JudgedKit("accepted")
    return JudgedKit("unproven" if isinstance(refused, Unavailable) else "refused", refused.why)


def _approvals_short(verdict: Verdict, asked: DemandedApproval | None) -> str:
    row = verdict.row(APPROVALS_ROW)
    return row.summary if asked is not None and row.state != "pass" else ""


def _approvals(evidence: CollectedEvidence, policy: Policy) -> tuple[StatedApproval, ...]:
    found = listed_approvals(evidence.lines, policy.approvals, policy)
    stated = ((each.proven.approved, each.proven.end, each.until) for each in found)
    return tuple(
        StatedApproval(approved.by, approved.scope, approved.since, until, end is not None)
        for approved, end, until in stated
        if approved.artifact == evidence.artifact
    )


def _warnings(resolution: Resolution, policy: Policy) -> tuple[KitWarning, ...]:
    members = {member.id for body in policy.pins for member in body.members}
    nodes = {node.record.node.id for node in resolution.evidence.bound}

    def weight_of(advisory: Advisory) -> KitWarning:
        by = advisory.by
        if by.kind == "identity" and by.id == resolution.publisher:
            return KitWarning(advisory.kind, "its publisher", "publisher")
        known = by.id in members or (by.kind == "node" and by.id in nodes) or by.id in policy.refuse_from
        return KitWarning(advisory.kind, f"{by.kind} {by.id[:12]}", "member" if known else "other")

    return tuple(map(weight_of, resolution.advisories))


def _results(evidence: CollectedEvidence, session: Session) -> Iterator[StatedResult]:
    claims, proofs = evidence.claims, [kept.proof for kept in evidence.proofs]
    authors, vouches = claims.authors(evidence.policy.pins), evidence.vouches()
    judged, _ = judge_evaluations(
        claims, evidence.artifact, vouches, authors, evidence.objects, proofs, evidence.bound, session.reader
    )
    for each in judged:
        for threshold, value, _ in each.results.rows():
            by, suite = each.vouch.by.id, each.results.criteria.suite
            yield StatedResult(by, suite, threshold.metric, value, each.results.at, _order(each), each.announced)


def _order(judged: JudgedEvaluation) -> Order:
    if judged.before:
        return "first"
    if judged.after:
        return "after"
    return "unproven" if judged.announcements else "none"


def _copies(session: Session, found: Sequence[Replica], now: int) -> Iterator[KitCopy]:
    nodes: dict[str, RemoteNode] = {node.name: node for node in session.nodes}
    for each in found:
        node = nodes[each.node]
        failed = each.claimed and each.state in NOT_COUNTED
        if node.former or not (each.counts or failed or each.withdrawn):
            continue
        days = [said.result.day for said in each.audits if said.result.outcome == PASSED]
        tested = min(now, (max(days) + 1) * DAY - 1) if days else None
        cloud = each.place.cloud if each.place else ""
        yield KitCopy(
            node=each.node,
            holder=Holder(node.member.id, each.jurisdiction, tested is not None, each.reach, cloud),
            tested=tested,
            failed=failed or bool(each.withdrawn),
            answers=each.complete,
            numeric=node.numeric,
        )


async def _weights(user: User, session: Session, kit: Kit | None, policy: Policy) -> tuple[ParentWeights, ...]:
    found = []
    for artifact in kit.artifacts if kit is not None else ():
        name = next((each.name for each in kit.weights if each.artifact == artifact), "") if kit else ""
        try:
            resolution = await user.resolve(session, f"sha256:{artifact}", policy)
            found.append(ParentWeights(name, artifact, _warnings(resolution, policy)))
        except (NotFound, Unavailable):
            found.append(ParentWeights(name, artifact, None))
    return tuple(found)


async def _contents(session: Session, manifest: Manifest, read_lock: ReadLock) -> KitContents | None:
    """What the kit is made of; None if no node gives its `kit.json`."""
    entry = manifest.by_path.get(KIT_FILE)
    if entry is None:
        return KitContents(None)
    try:
        kit = Kit.parse(await fetch_small(session, entry, MAX_KIT))
    except Malformed as error:
        return KitContents(None, error.why or error.what)
    except ComityError:
        return None
    return KitContents(kit, "", kit_problems(kit, manifest), await _lock_problems(session, kit, manifest, read_lock))


async def _lock_problems(session: Session, kit: Kit, manifest: Manifest, read_lock: ReadLock) -> tuple[str, ...] | None:
    """What is wrong between the lock and the wheels; None if no node gives the lock."""
    entry = manifest.by_path.get(LOCK_FILE)
    if entry is None:
        return ()  # a kit with wheels names its lock: that it is missing is a problem of the parts
    try:
        return lock_problems(kit, read_lock(await fetch_small(session, entry, MAX_LOCK)))
    except Malformed as error:
        return (error.why or error.what,)
    except ComityError:
        return None
