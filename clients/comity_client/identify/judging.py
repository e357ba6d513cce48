"""What a policy says of an artifact whose files are on this machine, wherever they lie: as after a pull, with the
evidence that nodes have. Nothing is fetched but evidence, and nothing is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from comity.bounded_file import read_bounded
from comity.rules.refusal import refusal
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError
from comity.trust.evidence import MAX_MODEL_SIG, MODEL_SIG, Verdict
from comity.trust.frozen import frozen
from comity.trust.lineage import lineage_of
from comity.trust.policy import Policy

from comity_client.events import Advised, OnEvent, Resolved
from comity_client.evidence.lookup import reference_of
from comity_client.evidence.resolve import resolve
from comity_client.pull.order import PullContext, PullOrder
from comity_client.pull.pull import Gathered, fetch_manifest, gather, inspected, judge_of

RELATIONS: Final[Mapping[str, str]] = {
    "same-weights": "the same tensors as",
    "converted": "cast from",
    "quantized": "quantised from",
    "overlap": "some tensors follow from",
}
"""The relation of a `derived` statement whose result is exact, for people."""


@frozen
class KnownDerivation:
    """That somebody computed the weights of an artifact again from those of another one, and signed the result.
    `relation` is that of a `derived` statement; `equal` of `tensors` follow from the parent, and if `exact` all do."""

    parent: Digest
    title: str
    relation: str
    exact: bool
    equal: int
    tensors: int
    by: str

    @property
    def words(self) -> str:
        """Whose result it is, and no more than it says."""
        how = RELATIONS[self.relation] if self.exact else f"{self.equal} of {self.tensors} tensors follow from"
        return f"{how} {self.title}, as {self.by} computed and signed"


@frozen
class KnownArtifact:
    """An artifact that files here are of.

    Attributes:
        title: its name and version, or its digest.
        basis: how it was found.
        verdict: of the policy about the files that are here; None if it could not be judged.
        problem: why it is refused, or could not be judged.
        exit_status: of the verdict, or of the error.
        advised: warnings, each with whether the publisher gave it.
        derived: from which artifacts it was derived, as proven authors say.
    """

    artifact: Digest
    title: str
    basis: str = ""
    verdict: Verdict | None = None
    problem: str = ""
    exit_status: int = 0
    advised: tuple[Advised, ...] = ()
    derived: tuple[KnownDerivation, ...] = ()


async def judge(
    context_of: Callable[[OnEvent], PullContext],
    manifest: Manifest,
    here: Mapping[Digest, Path],
    folder: Path,
) -> KnownArtifact:
    """Judge an artifact. Errors are in the answer.

    Args:
        context_of: returns what it is judged with.
        here: where files are, by their SHA-256.
        folder: where an evidence pack of an earlier pull may be.
    """
    artifact, title, basis, advised = manifest.digest, f"sha256:{manifest.digest}", "", list[Advised]()

    def note(event: object) -> None:
        nonlocal title, basis
        if isinstance(event, Resolved):
            title, basis = event.title, event.basis
        elif isinstance(event, Advised):
            advised.append(event)

    try:
        context = context_of(note)
        found = await gather_known(context, artifact, folder)
        files = [(entry, here[entry.sha256]) for entry in manifest.files if entry.sha256 in here]
        seen = [await asyncio.to_thread(inspected, entry, path) for entry, path in files]
        model_sig = await asyncio.to_thread(model_sig_here, manifest, here)
        evidence = found.evidence_with(seen, partial=len(seen) < len(manifest.files), model_sig=model_sig)
        verdict = judge_of(found.resolution)(evidence, context.inquiry.policy)
    except ComityError as error:
        return KnownArtifact(artifact, title, basis, None, str(error), error.exit_status, tuple(advised))
    refused = refusal(verdict, title, "the policy", lambda rows, named: "")
    problem = "" if refused is None else str(found.alarms[0] if found.alarms else refused)
    derived = tuple(_derived(found, context.inquiry.policy))
    return KnownArtifact(artifact, title, basis, verdict, problem, verdict.exit_status, tuple(advised), derived)


def model_sig_here(manifest: Manifest, here: Mapping[Digest, Path]) -> bytes | None:
    """Return the `model.sig` among the files of an artifact; None if it is not here. One that was added to a folder
    later is not looked for: files of several artifacts may be there. Blocking. Raises NotFound, Malformed,
    Unavailable."""
    entry = manifest.by_path.get(MODEL_SIG)
    if entry is None or entry.size > MAX_MODEL_SIG or entry.sha256 not in here:
        return None
    data = read_bounded(here[entry.sha256], MAX_MODEL_SIG)
    return data if sha256(data) == entry.sha256 else None  # it may have changed since it was hashed


def _derived(found: Gathered, policy: Policy) -> Iterator[KnownDerivation]:
    """What proven `derived` statements say of the artifact itself."""
    known = found.evidence
    graph, _ = lineage_of(known.claims, found.manifest.digest, found.resolution.publication, policy, known.bound)
    for edge in graph.edges:
        if edge.child == graph.root.key:
            for claim in edge.derivations:
                said, title = claim.derived, graph.node(edge.parent).title
                counts = said.tensors.equal, said.tensors.total
                yield KnownDerivation(said.parent, title, said.relation, said.exact, *counts, claim.by)


async def gather_known(context: PullContext, artifact: Digest, folder: Path) -> Gathered:
    """Return what nodes, and an evidence pack in `folder`, say of an artifact. Raises as `resolve` and `gather` do."""
    order = PullOrder(f"sha256:{artifact}", folder)
    reference = reference_of(order.reference)
    resolution = await resolve(context.inquiry, reference, context.bindings, context.names, fetch_manifest)
    return await gather(context, order, resolution)
