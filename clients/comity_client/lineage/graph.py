"""The lineage of an artifact: from nodes, or from the pack beside its files; and edges made again on this machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from comity.trust.digest import Digest, sha256
from comity.trust.errors import ComityError, NotFound
from comity.trust.judging.ancestry import lineage_of
from comity.trust.judging.reading import Publication, read_claims
from comity.trust.judging.witnessing import bind
from comity.trust.lineage import Found, Graph
from comity.trust.policy import Policy
from comity.trust.statements.derived import Extent
from comity.trust.statements.published import Parent
from comity.verifier import read_pack

from comity_client.events import Note, OnEvent
from comity_client.evidence.ancestors import beside, gather_ancestors
from comity_client.evidence.catalogue import Resolution
from comity_client.lineage.derivations import Derivation
from comity_client.nodes.session import Session


@dataclass(frozen=True, slots=True)
class Lineage:
    """The graph, notes on what did not verify, and why edges that were to be made again were not."""

    graph: Graph
    notes: tuple[str, ...]
    unchecked: tuple[str, ...] = ()


async def of_resolution(session: Session, resolution: Resolution, policy: Policy) -> Lineage:
    """The lineage as all reachable nodes tell it. Raises nothing for what they say."""
    lines = resolution.gathered.lines
    more = await gather_ancestors(session, resolution.artifact, resolution.publication, lines, policy)
    return of_lines(beside(lines, more), resolution.artifact, resolution.publication, policy)


def of_folder(folder: Path, policy: Policy) -> Lineage:
    """The lineage as the pack in an artifact's folder tells it; its files are not looked at.

    Raises NotFound without a pack, Malformed where it breaks a bound.
    """
    evidence = read_pack(folder)
    if evidence.manifest is None:
        why = "there is no evidence pack beside its files"
        raise NotFound(f"nothing is known about {folder}", why=why, hint="comity pull REF --to DIR", code="NO-PACK")
    return of_lines(evidence.claims, sha256(evidence.manifest), None, policy)


def of_lines(lines: Iterable[bytes], artifact: Digest, chosen: Publication | None, policy: Policy) -> Lineage:
    """The lineage that `lines` amount to.

    Args:
        chosen: the publication of `artifact` to go by; where it is None, the one whose publisher the policy names.
    """
    readings = read_claims(lines, artifact)
    bound, _, _ = bind(policy.pins, readings.entries, readings.chains)

    def named(publication: Publication) -> bool:
        owner = policy.bound_publisher(publication.published.name.namespace)
        return publication.publisher.id in policy.publishers or publication.publisher.id == owner

    best = chosen or max(readings.publications, key=named, default=None)
    graph, notes = lineage_of(readings, artifact, best, policy, bound)
    return Lineage(graph, tuple(note.text for note in notes))


async def with_digests(
    parents: Iterable[Parent], resolve: Callable[[str], Awaitable[Resolution]], on_event: OnEvent
) -> tuple[Parent, ...]:
    """`parents`, with the digest of what a name stands for now, where it was given without: what it means tomorrow is
    no business of a claim. One that stands for nothing here is kept as it is, and a note says so."""
    named = []
    for parent in parents:
        if parent.digest is None:
            try:
                meant = await resolve(parent.name)
                parent = Parent(parent.relation, meant.title, meant.artifact)
                on_event(Note(f"parent {meant.title} is sha256:{meant.artifact}, by {meant.basis}"))
            except ComityError as error:
                on_event(Note(f"parent {parent.name} is named without a digest: {error}"))
        named.append(parent)
    return tuple(named)


def check_edges(lineage: Lineage, derive: Callable[[Digest, Digest], Derivation]) -> Lineage:
    """Make again here what can be: each edge between two digests, by `derive(child, parent)`."""
    graph, unchecked = lineage.graph, []
    for edge in lineage.graph.edges:
        child, parent = graph.node(edge.child), graph.node(edge.parent)
        if child.digest is None or parent.digest is None or edge.closes:
            continue
        try:
            found = derive(child.digest, parent.digest)
        except ComityError as error:
            unchecked.append(f"{child.title} from {parent.title}: {error}")
            continue
        tensors = Extent(len(found.comparison.tensors), len(found.comparison.equal))
        result = Found(found.comparison.exact, tensors, found.comparison.steps)
        graph = graph.checked(child.digest, parent.digest, result)
    return Lineage(graph, lineage.notes, tuple(unchecked))
