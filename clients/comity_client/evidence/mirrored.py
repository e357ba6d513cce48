"""Which artifact a reference to an upstream commit means, `hf:org/name@commit`, by the nodes that mirrored it.

Only nodes of pinned members count, each member once. If they saw different bytes for one commit, those that most
members fetched win; if equal, those that most members saw first. The others are listed.
"""

from __future__ import annotations

from collections.abc import Mapping

from comity.trust.claims import MirrorEvidence, collect_mirror_evidence
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, NotFound, PolicyNotMet
from comity.trust.frozen import frozen
from comity.trust.names import Reference
from comity.trust.resolution import majority_first, preferred_artifact
from comity.trust.rows.findings import member_names
from comity.trust.statement import Entry
from comity.trust.statement_kinds import OBSERVED
from comity.trust.upstream import Observed

from comity_client.evidence.inquiry import Inquiry, ProvenAnswers
from comity_client.evidence.prove import ProvenStatements


@frozen
class MirroredCommit:
    """The commit that a reference means, `hf:org/name@commit`, and the artifact that it counts as. `mirroring` is what
    is proven about this artifact, also under other commits."""

    name: str
    artifact: Digest
    mirroring: MirrorEvidence

    @property
    def basis(self) -> str:
        """Text that names the members whose claims decided."""
        members = self.mirroring.corroborating(self.name)
        if not members:
            return "a claim of a node that imported it from a folder; no node fetched it"
        return f"nodes that mirrored it; corroborated {len(members)}: {member_names(members)}"


async def decide_commit(inquiry: Inquiry, reference: Reference) -> MirroredCommit:
    """Return the commit and the artifact that the reference means.

    Raises NotFound (NOT-MIRRORED), Unavailable; PolicyNotMet if nodes contradict each other and no rule decides
    (UPSTREAM-DISPUTED) or the reference matches several commits (NO-ORDER).
    """
    said = await inquiry.ask(lambda node, held: node.resolve_beside(held, reference.repository or ""))
    if not said.answers.found:
        raise said.answers.failure(f"{reference} is not known")
    found = _evidence_by_artifact(said.proven)
    wanted = {name for mirroring in found.values() for name in commits_meant(reference, mirroring)}
    if not wanted:
        names = {name for mirroring in found.values() for name in mirroring.names}
        others = sorted(name for name in names if name.partition("@")[0] == reference.repository)
        why = "no node of a pinned member claims to have fetched it"
        raise NotFound(
            f"{reference} is not mirrored here",
            why=f"{why}; they fetched {', '.join(others[:5])}" if others else why,
            hint=f"comity import {reference}",
            code="NOT-MIRRORED",
        )
    commit = _one_of(wanted, reference, found, inquiry, said)
    seen = said.sightings(
        inquiry.policy, lambda entry: entry.statement.subject if _observed_name(entry) == commit else None
    )
    artifact = preferred_artifact(found, commit, seen)
    if artifact is None:
        raise _disputed_commit(commit, {digest: m for digest, m in found.items() if commit in m.names})
    return MirroredCommit(commit, artifact, found[artifact])


def _one_of(
    wanted: set[str],
    reference: Reference,
    found: Mapping[Digest, MirrorEvidence],
    inquiry: Inquiry,
    said: ProvenAnswers,
) -> str:
    """Return the commit of the reference: the only one, else the one that most members fetched, else the one that most
    members saw first. Raises PolicyNotMet (NO-ORDER)."""
    if len(wanted) == 1:
        return next(iter(wanted))
    counts = {
        name: len({m.lineage for mirroring in found.values() for m in mirroring.corroborating(name)}) for name in wanted
    }
    best = [name for name, count in counts.items() if count == max(counts.values())]
    if len(best) == 1:
        return best[0]
    first = majority_first(
        said.sightings(inquiry.policy, lambda entry: name if (name := _observed_name(entry)) in best else None)
    )
    if first is not None:
        return first[0]
    listed = sorted(wanted)
    raise PolicyNotMet(
        f"{reference} is ambiguous",
        why=f"{len(listed)} commits are mirrored: {', '.join(listed[:5])}",
        hint=f"comity show {listed[0]}",
        code="NO-ORDER",
    )


def _evidence_by_artifact(proven: ProvenStatements) -> Mapping[Digest, MirrorEvidence]:
    observed = [entry for entry in proven.entries if entry.statement.predicate == OBSERVED]
    digests = dict.fromkeys(entry.statement.subject for entry in observed)
    found = {digest: collect_mirror_evidence(observed, digest, proven.bound) for digest in digests}
    return {digest: mirroring for digest, mirroring in found.items() if mirroring.seen}


def _observed_name(entry: Entry) -> str | None:
    """Return the name of the commit that a proven entry observed."""
    if entry.statement.predicate != OBSERVED:
        return None
    try:
        return Observed.parse(entry.statement).upstream.name
    except ComityError:
        return None


def commits_meant(reference: Reference, mirroring: MirrorEvidence) -> tuple[str, ...]:
    """Return the observed commits that the reference can mean: of its repository, and with its version, if it has one,
    as the commit or as what was asked of the upstream."""
    return tuple(name for name in mirroring.names if _means_commit(reference, name, mirroring))


def _means_commit(reference: Reference, name: str, mirroring: MirrorEvidence) -> bool:
    repository, _, commit = name.partition("@")
    if repository != reference.repository:
        return False
    if reference.version in (None, commit):
        return True
    asked = (seen.observed.upstream for seen in mirroring.seen)
    return any(upstream.name == name and upstream.requested == reference.version for upstream in asked)


def _disputed_commit(name: str, rivals: Mapping[Digest, MirrorEvidence]) -> PolicyNotMet:
    listed = "; ".join(
        f"sha256:{digest} by {member_names([m for seen in mirroring.seen for m in seen.members])}"
        for digest, mirroring in sorted(rivals.items())
    )
    return PolicyNotMet(
        f"{name} is disputed",
        why=f"nodes observed different content: {listed}; all are kept",
        hint=f"comity trust bind {name} sha256:DIGEST",
        code="UPSTREAM-DISPUTED",
    )
