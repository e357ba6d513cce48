"""Charter bodies that drafts name, read from the store when somebody looks at them."""

from __future__ import annotations

from collections import ChainMap, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from comity.content.store import BlobStore
from comity.trust.charter import MAX_BYTES, Body
from comity.trust.digest import Digest
from comity.trust.errors import Unavailable

MAX_REMEMBERED: Final = 32 * 1024 * 1024


class StoredBodies(Mapping[Digest, bytes]):
    """The bodies named by `digests` that are here, as bytes. Reading blocks; what was read lately is remembered."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._lately: OrderedDict[Digest, bytes] = OrderedDict()
        self.digests: frozenset[Digest] = frozenset()

    def beside(self, bodies: Iterable[Body]) -> Mapping[Digest, bytes]:
        """These, and some that may not be in the store."""
        return ChainMap({body.digest: body.data for body in bodies}, self)  # type: ignore[arg-type]

    def __getitem__(self, digest: Digest) -> bytes:
        if digest not in self._lately:
            self._lately[digest] = self._read(digest)
            while sum(map(len, self._lately.values())) > MAX_REMEMBERED:
                self._lately.popitem(last=False)
        return self._lately.get(digest, b"")

    def __iter__(self) -> Iterator[Digest]:
        return (digest for digest in self.digests if self._store.has(digest))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _read(self, digest: Digest) -> bytes:
        try:
            if digest not in self.digests or not self._store.has(digest) or self._store.size(digest) > MAX_BYTES:
                raise KeyError(digest)
            return b"".join(self._store.iterate(digest, 0, self._store.size(digest)))
        except Unavailable as error:  # it was put aside meanwhile
            raise KeyError(digest) from error
