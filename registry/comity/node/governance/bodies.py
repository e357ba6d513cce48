"""Charter bodies that drafts name, read from the store when somebody looks at them."""

from __future__ import annotations

from collections import ChainMap, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from threading import Lock
from typing import Final

from comity.content.store import BlobStore
from comity.trust.charter import MAX_BYTES, Body
from comity.trust.digest import Digest, sha256
from comity.trust.errors import ComityError, Unavailable

MAX_REMEMBERED: Final = 16 * 1024 * 1024
"""Bytes of bodies, as they are and as they were read: what one member names is half of that at most, so that its
drafts do not have those of others read again each time."""
MAX_SEATS: Final = 1024
"""Bodies of which it is remembered who would have a seat."""


class StoredBodies(Mapping[Digest, bytes]):
    """The bodies named by `digests` that are here, as bytes. Reading blocks; what was read lately is remembered."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._lately: OrderedDict[Digest, bytes] = OrderedDict()
        self._parsed: OrderedDict[Digest, Body] = OrderedDict()
        self._seats: OrderedDict[Digest, frozenset[Digest]] = OrderedDict()
        self._turn = Lock()
        self.digests: frozenset[Digest] = frozenset()

    def beside(self, bodies: Iterable[Body]) -> Mapping[Digest, bytes]:
        """These, and some that may not be in the store."""
        return ChainMap({body.digest: body.data for body in bodies}, self)  # type: ignore[arg-type]

    def parse(self, data: bytes) -> Body:
        """`Body.parse` with a memory. Thread-safe. Raises Malformed."""
        digest = sha256(data)
        with self._turn:
            if digest in self._parsed:
                self._parsed.move_to_end(digest)
                return self._parsed[digest]
        parsed = Body.parse(data)
        with self._turn:
            self._parsed[digest] = parsed
            while sum(len(body.data) for body in self._parsed.values()) > MAX_REMEMBERED:
                self._parsed.popitem(last=False)
        return parsed

    def seats(self, digest: Digest) -> frozenset[Digest]:
        """Who would have a seat; nobody where a body is not here, or none. Blocking; each body is read once."""
        if digest not in self._seats and digest in self:
            try:
                found = frozenset(seat.id for seat in self.parse(self[digest]).members)
            except ComityError:
                found = frozenset()
            with self._turn:
                self._seats[digest] = found
                while len(self._seats) > MAX_SEATS:
                    self._seats.popitem(last=False)
        return self._seats.get(digest, frozenset())

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
