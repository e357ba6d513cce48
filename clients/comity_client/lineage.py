"""Lineage of an artifact: the graph of claims about its ancestors, from nodes or from an evidence pack; and derivations
that are computed again on this machine from two local copies.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from comity.derivation.check import Comparison, WeightFiles, compare, read_weights
from comity.trust.bound_nodes import bind_nodes
from comity.trust.claims import ParsedClaims, Publication, read_claims
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Conflict, NotFound
from comity.trust.evidence import EvidenceReader
from comity.trust.lineage import LineageGraph, LocalComparison, lineage_of
from comity.trust.policy import Policy
from comity.trust.statement import Author
from comity.trust.statements import MAX_STEPS, Derived, Extent, Parent
from comity.trust.verify import counted_publication
from comity.verifier import read_pack
from comity_client.events import Note, OnEvent
from comity_client.evidence.resolve import Resolution
from comity_client.pull.destinations import LocalCopy

QUANTISED = ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1")


@dataclass(frozen=True, slots=True)
class Derivation:
    """A child, its parent, and how the tensors of the child follow from those of the parent."""

    child: LocalCopy
    parent: LocalCopy
    comparison: Comparison

    @property
    def relation(self) -> str:
        """The relation, as a value of a `derived` statement."""
        if not self.comparison.exact:
            return "overlap"
        kinds = {step.partition("+")[0] for step in self.comparison.steps}
        if kinds & set(QUANTISED):
            return "quantized"
        return "same-weights" if set(self.comparison.steps) == {"copy"} else "converted"

    def statement_by(self, author: Author) -> Derived:
        """Return the statement for `author` to sign."""
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
        on_read: called with the bytes of child tensors processed since the last call; from several threads.

    Raises NotFound (NO-WEIGHTS) if one has no readable tensors, Conflict (SAME-ARTIFACT, or CHANGED if a file changed
    after it was hashed), and as `compare` does.
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
        why = f"{side.folder} has no safetensors or GGUF file"
        if weights.unread:
            why += f"; the format of {weights.unread[0]} is not supported"
        raise NotFound(f"{side.title} has no weights to compare", why=why, code="NO-WEIGHTS")
    return weights


@dataclass(frozen=True, slots=True)
class Lineage:
    """The graph, notes on what did not verify, and why requested edges could not be computed again."""

    graph: LineageGraph
    notes: tuple[str, ...]
    unchecked: tuple[str, ...] = ()


def lineage_of_resolution(resolution: Resolution, policy: Policy) -> Lineage:
    """Return the lineage from the statements of all reachable nodes. Invalid statements are skipped, not raised."""
    found = lineage_of_claims(resolution.gathered.readings, resolution.artifact, resolution.current, policy)
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
    bound, _, _ = bind_nodes(policy.pins, readings.entries, readings.chains)
    graph, notes = lineage_of(readings, artifact, chosen, policy, bound)
    return Lineage(graph, tuple(note.text for note in notes))


async def with_digests(
    parents: Iterable[Parent], resolve: Callable[[str], Awaitable[Resolution]], on_event: OnEvent
) -> tuple[Parent, ...]:
    """Return `parents`; a parent without a digest gets the digest that its name resolves to now, because a claim must
    not change with later resolutions. A parent that does not resolve is kept unchanged, with a note."""
    named = []
    for parent in parents:
        if parent.digest is None:
            try:
                resolution = await resolve(parent.name)
                parent = Parent(parent.relation, resolution.title, resolution.artifact)
                on_event(Note(f"parent {resolution.title} is sha256:{resolution.artifact}, by {resolution.basis}"))
            except ComityError as error:
                on_event(Note(f"parent {parent.name} is named without a digest: {error}"))
        named.append(parent)
    return tuple(named)


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
