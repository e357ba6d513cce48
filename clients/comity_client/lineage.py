"""What an artifact was made from: the graph of claims about it, and edges made again on this machine.

Check whether one artifact was made from another, both held here, and say so in a log.

The lineage of an artifact: from nodes, or from the pack beside its files; and edges made again on this machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from comity.derivation.check import Comparison, WeightFiles, compare, read_weights
from comity.trust.claims import Publication, bind, read_claims
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Conflict, NotFound
from comity.trust.lineage import FoundArtifact, LineageGraph, lineage_of
from comity.trust.policy import Policy
from comity.trust.statement import Author
from comity.trust.statements import MAX_STEPS, Derived, Extent, Parent
from comity.verifier import read_pack
from comity_client.events import Note, OnEvent
from comity_client.evidence.gather import beside, gather_ancestors
from comity_client.evidence.resolve import Resolution
from comity_client.pull.destinations import LocalCopy
from comity_client.session import Session

QUANTISED = ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1")


@dataclass(frozen=True, slots=True)
class Derivation:
    """A child, its parent, and how the one's tensors follow from the other's."""

    child: LocalCopy
    parent: LocalCopy
    comparison: Comparison

    @property
    def relation(self) -> str:
        """In the words of a `derived` statement."""
        if not self.comparison.exact:
            return "overlap"
        kinds = {step.partition("+")[0] for step in self.comparison.steps}
        if kinds & set(QUANTISED):
            return "quantized"
        return "same-weights" if set(self.comparison.steps) == {"copy"} else "converted"

    def said_by(self, author: Author) -> Derived:
        """The statement that `author` may sign."""
        found = self.comparison
        assert len(found.steps) <= MAX_STEPS
        return Derived(
            by=author,
            child=self.child.artifact,
            parent=self.parent.artifact,
            relation=self.relation,
            result="exact" if found.exact else "share",
            steps=found.steps,
            tools=found.tools,
            files=found.files,
            parent_files=found.parent_files,
            tensors=Extent(len(found.tensors), len(found.equal)),
            left_out=len(found.left_out),
            bytes=Extent(found.bytes, found.equal_bytes),
        )


def derive(child: LocalCopy, parent: LocalCopy, *, workers: int, on_read: Callable[[int], None]) -> Derivation:
    """Compare the weights of two artifacts that were hashed just now.

    Args:
        on_read: told the bytes of the child's tensors that were dealt with since the last call; from several threads.

    Raises NotFound (NO-WEIGHTS) where one has no tensors that are read here, Conflict (SAME-ARTIFACT, or CHANGED where
    a file is no longer what was hashed), and what `compare` raises.
    """
    if child.artifact == parent.artifact:
        why = f"both are sha256:{child.artifact}"
        raise Conflict("child and parent are the same artifact", why=why, code="SAME-ARTIFACT")
    comparison = compare(_weights(child), _weights(parent), workers=workers, on_read=on_read)
    for side in (child, parent):
        side.check_unchanged()
    return Derivation(child, parent, comparison)


def _weights(side: LocalCopy) -> WeightFiles:
    weights = read_weights(side.folder, side.manifest.by_path)
    if not weights.files:
        why = f"there is no safetensors or GGUF file in {side.folder}"
        if weights.unread:
            why += f"; {weights.unread[0]} is in a format that is not read here"
        raise NotFound(f"{side.title} has no weights to compare", why=why, code="NO-WEIGHTS")
    return weights


@dataclass(frozen=True, slots=True)
class Lineage:
    """The graph, notes on what did not verify, and why edges that were to be made again were not."""

    graph: LineageGraph
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
        result = FoundArtifact(found.comparison.exact, tensors, found.comparison.steps)
        graph = graph.checked(child.digest, parent.digest, result)
    return Lineage(graph, lineage.notes, tuple(unchecked))
