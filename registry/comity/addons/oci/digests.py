"""Which digests an artifact has in a registry, in 8 bytes for each, so that all versions of a repository can be
searched for one without opening them.

A version whose digests are not kept has its manifest read, whether or not the version may be served: nothing of it is
given to a reader here. How much of that one request has done is bounded (`SearchLimit`). What was read is kept, so the
next request goes on from there.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from comity.addons.oci.manifests import ModelPack, make_pack
from comity.node.threads import Pools
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest
from comity.trust.errors import Unavailable
from comity.trust.frozen import frozen
from comity.trust.statement import SideObject

PREFIX: Final = 16
"""Hex digits of a digest that are kept."""
MAX_KEPT: Final = 4_000_000
"""Digests of all packs that are kept, 32 MB."""
PACK: Final = 128
"""Digests that weigh as much as the rest of what is kept of a pack."""
MAX_READ: Final = 16 * 1024 * 1024
"""Bytes of manifests that one request has read: those of 100,000 files, as many as an artifact may have."""
MAX_MADE: Final = 16
"""Versions of which one request has the statements read."""


@frozen
class DigestSet:
    """Digests of which the beginnings are kept, sorted: two different ones may look the same, so what is found here has
    to be looked up."""

    prefixes: memoryview

    @classmethod
    def of(cls, digests: Iterable[Digest]) -> DigestSet:
        return cls(memoryview(array("Q", sorted({_prefix(digest) for digest in digests}))))

    def __len__(self) -> int:
        return len(self.prefixes)

    def may_have(self, digest: Digest) -> bool:
        wanted = _prefix(digest)
        at = bisect_left(self.prefixes, wanted)
        return at < len(self.prefixes) and self.prefixes[at] == wanted


def _prefix(digest: Digest) -> int:
    return int(digest[:PREFIX], 16)


@frozen
class PackDigests:
    """What is kept of a pack: the digest of its ModelPack manifest, None if it has none, and all its digests."""

    image: Digest | None
    all: DigestSet

    @classmethod
    def of(cls, pack: ModelPack) -> PackDigests:
        image = pack.manifest.digest if pack.manifest is not None else None
        return cls(image, DigestSet.of([*pack.files, *pack.documents]))


class SearchLimit:
    """What one request may still have read.

    Attributes:
        read: bytes of the manifests that it had read.
        made: versions of which it had the statements read.
        unfinished: it would have needed more.
    """

    def __init__(self) -> None:
        self.read = self.made = 0
        self.unfinished = False

    def may_read(self, size: int) -> bool:
        """Whether a manifest of `size` bytes may be read: the first one may, however large."""
        return self._noted(not self.read or self.read + size <= MAX_READ)

    def may_make(self) -> bool:
        """Whether the statements about one more version may be read."""
        return self._noted(self.made < MAX_MADE)

    def _noted(self, allowed: bool) -> bool:
        self.unfinished = self.unfinished or not allowed
        return allowed

    def refusal(self) -> Unavailable:
        """What a client is told that has to ask again."""
        why = "it has not looked through all versions of the repository yet"
        hint = "try again in a few seconds"
        return Unavailable("this node still searches for the digest", why=why, hint=hint, code="STILL-SEARCHING")


class PackIndex:
    """The digests of the packs that were made last. Not thread-safe: call from the event loop.

    Args:
        read: returns a manifest that is stored here, or raises ComityError.
    """

    def __init__(self, pools: Pools, read: Callable[[SideObject], Awaitable[Manifest]]) -> None:
        self._pools = pools
        self._read = read
        self._kept: OrderedDict[Digest, PackDigests] = OrderedDict()
        self._weight = 0

    async def of(self, manifest: SideObject, limit: SearchLimit) -> PackDigests | None:
        """The digests of the artifact with this manifest; None if they are not kept and may not be read. Raises as
        `read`."""
        if manifest.digest not in self._kept:
            if not limit.may_read(manifest.size):
                return None
            found = await self._pools.hashing(_digests, await self._read(manifest))
            limit.read += manifest.size  # not of one that is lost, which would keep the others from being read
            self.add(manifest.digest, found)
        self._kept.move_to_end(manifest.digest)
        return self._kept[manifest.digest]

    def add(self, artifact: Digest, found: PackDigests) -> None:
        if artifact in self._kept:
            return
        self._kept[artifact] = found
        self._weight += _weight(found)
        while self._weight > MAX_KEPT and len(self._kept) > 1:
            self._weight -= _weight(self._kept.popitem(last=False)[1])


def _digests(manifest: Manifest) -> PackDigests:
    return PackDigests.of(make_pack(manifest))


def _weight(found: PackDigests) -> int:
    return PACK + len(found.all)
