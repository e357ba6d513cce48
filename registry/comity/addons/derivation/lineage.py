"""Lineage of an artifact: the graph of claims about its ancestors, from nodes or from an evidence pack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from comity_client.artifact_client import ArtifactClient
from comity_client.evidence.resolve import Resolution
from comity_client.session import Session

from comity.addons.derivation.derive import Derivation, derive
from comity.evidence_pack import read_pack
from comity.trust.claims import ParsedClaims, Publication, read_claims
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, NotFound
from comity.trust.evidence import EvidenceReader
from comity.trust.frozen import frozen
from comity.trust.lineage import LineageGraph, LocalComparison, lineage_of
from comity.trust.policy import Policy
from comity.trust.statements import Extent
from comity.trust.verify import counted_publication


@frozen
class Lineage:
    """The graph, notes on what did not verify, and why requested edges could not be computed again."""

    graph: LineageGraph
    notes: tuple[str, ...]
    unchecked: tuple[str, ...] = ()


def find_lineage(
    client: ArtifactClient, what: Path | str, *, check: bool = False, hub_cache: Path | None = None
) -> Lineage:
    """Return the lineage of an artifact: of a folder from its pack only, of a reference from the statements of all
    nodes.

    Args:
        check: recompute the weights of each edge whose two artifacts are on this machine.

    Raises as `User.resolve` and `lineage_of_folder` do.
    """
    user = client.user

    async def work(session: Session) -> Lineage:
        return lineage_of_resolution(await user.resolve(session, str(what)))

    folder = Path(what) if Path(what).is_dir() else None
    found = lineage_of_folder(folder, client.policy()) if folder else user.run(work)
    if not check:
        return found
    places = {found.graph.root.digest: folder} if folder else {}

    def derivation(child: Digest, parent: Digest) -> Derivation:
        sides = (client.local_copy(places.get(d) or f"sha256:{d}", hub_cache=hub_cache) for d in (child, parent))
        return derive(*sides)

    return check_edges(found, derivation)


def lineage_of_resolution(resolution: Resolution) -> Lineage:
    """Return the lineage from the statements of all reachable nodes. Invalid statements are skipped, not raised."""
    evidence = resolution.evidence
    found = lineage_of_claims(evidence.claims, resolution.artifact, resolution.current, evidence.policy)
    asked, current = resolution.publication, resolution.current
    if asked is None or current is None or asked.published.name == current.published.name:
        return found
    newest = (
        f"{current.published.name} is the newest statement of its publisher about these bytes: its parents are shown"
    )
    return replace(found, notes=(newest, *found.notes))


def lineage_of_folder(folder: Path, policy: Policy) -> Lineage:
    """Return the lineage from the evidence pack in the folder of an artifact; its files are not read.

    Raises NotFound if there is no pack, Malformed if it exceeds a bound.
    """
    reader = EvidenceReader()
    evidence = read_pack(folder, reader)
    if evidence.manifest is None:
        why = "the folder has no evidence pack"
        raise NotFound(f"no lineage for {folder}", why=why, hint="comity pull REF --out DIR", code="NO-PACK")
    artifact = sha256(evidence.manifest)
    counted = counted_publication(evidence, policy, reader)
    return lineage_of_claims(read_claims(evidence.claims, artifact, reader), artifact, counted, policy)


def lineage_of_claims(readings: ParsedClaims, artifact: Digest, chosen: Publication | None, policy: Policy) -> Lineage:
    """Return the lineage that the claims prove.

    Args:
        chosen: the publication of `artifact` to use; None if there is none.
    """
    graph, notes = lineage_of(readings, artifact, chosen, policy, readings.bound(policy.pins))
    return Lineage(graph, tuple(note.text for note in notes))


def check_edges(lineage: Lineage, derive: Callable[[Digest, Digest], Derivation]) -> Lineage:
    """Compute again each edge between two digests for which `derive(child, parent)` succeeds."""
    graph, unchecked = lineage.graph, []
    for edge in lineage.graph.edges:
        child, parent = graph.node(edge.child), graph.node(edge.parent)
        if child.digest is None or parent.digest is None or edge.closes_cycle:
            continue
        try:
            found = derive(child.digest, parent.digest)
        except ComityError as error:
            unchecked.append(f"{child.title} from {parent.title}: {error}")
            continue
        tensors = Extent(len(found.comparison.tensors), len(found.comparison.equal))
        result = LocalComparison(found.comparison.exact, tensors, found.comparison.steps)
        graph = graph.with_comparison(child.digest, parent.digest, result)
    return Lineage(graph, lineage.notes, tuple(unchecked))
