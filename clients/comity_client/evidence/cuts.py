"""Proofs of growth for a pack: that what retired keys signed was logged before they were retired.

Fetched whether or not this user pins a rotation: whoever verifies the pack later may.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Final

from comity.trust.digest import Digest, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.judging.reading import Publication
from comity.trust.rotation import Cut
from comity.trust.tlog.checkpoint import Checkpoint
from comity.trust.tlog.growth import Growth
from comity.trust.tlog.proof import TlogProof

from comity_client.evidence.collecting import KeptProof
from comity_client.evidence.heads import ConsistencyProofs

MAX_CUTS: Final = 32
"""Cuts looked at for one publication: an honest publisher rotates seldom, and names few logs."""


async def collect_growths(
    publications: Iterable[Publication], kept: Iterable[KeptProof], proofs: ConsistencyProofs
) -> Mapping[Digest, bytes]:
    """What links the kept proofs to the cuts of the rotations that retired the keys behind `publications`; as far as
    nodes give it. Raises nothing for what they say."""
    found: dict[Digest, bytes] = {}
    here = tuple(kept)
    for publication in publications:
        for cut, checkpoint in _unlinked(publication, here):
            growth = await _link(cut, checkpoint, proofs)
            if growth is not None:
                found[sha256(growth.encode())] = growth.encode()
    return found


def _unlinked(publication: Publication, kept: Iterable[KeptProof]) -> Iterator[tuple[Cut, Checkpoint]]:
    """Cuts that could prove the publication older than its keys' retirement, each with a checkpoint of another size."""
    chain = publication.chain
    signers = set(chain.signers(publication.entry.envelope))
    cuts = [cut for step in chain.steps if step.before in signers for cut in step.rotation.cut][:MAX_CUTS]
    for proven in (TlogProof.parse(item.proof.data) for item in kept if item.line == publication.entry.line):
        checkpoint = Checkpoint.parse(proven.checkpoint.text)
        for cut in cuts:
            if cut.origin == checkpoint.origin and proven.index < cut.size != checkpoint.size:
                yield cut, checkpoint


async def _link(cut: Cut, checkpoint: Checkpoint, proofs: ConsistencyProofs) -> Growth | None:
    old, new = sorted([(cut.size, cut.root), (checkpoint.size, checkpoint.root)])
    async with aclosing(proofs(cut.origin, old[0], new[0])) as offered:
        async for hashes in offered:
            try:
                growth = Growth(cut.origin, old[0], new[0], hashes)
                growth.verify(old[1], new[1])
            except (Malformed, Untrusted):
                continue
            return growth
    return None
