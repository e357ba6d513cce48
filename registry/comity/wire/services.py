"""What a node has to think about: one protocol a service, in values. `servicers` does the talking.

Methods may raise any error of comity.trust.errors; it reaches the caller as a status. Arguments are within the bounds
of `limits`, and nothing more is known about them. Iterators are read with back-pressure and closed when the caller has
gone; those of data yield chunks of 64 KiB to 1 MiB, the last one excepted. Nothing here may block the event loop.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

from comity.trust.digest import Digest
from comity.wire.doors import Caller
from comity.wire.values import (
    AskReceipt,
    BlobStat,
    Charter,
    InlineObject,
    JoinRequest,
    Located,
    LocatedProof,
    Location,
    LogHead,
    Misbehaviour,
    NodeFacts,
    NodeStatus,
    SearchPage,
    Submitted,
    UploadHeader,
)


class NodeReads(Protocol):
    async def node(self) -> NodeFacts: ...

    async def charter(self, epoch: int | None) -> Charter:
        """The newest one held for None. Raises NotFound."""


class Governance(Protocol):
    def epochs(self, start: int) -> AsyncGenerator[Charter, None]:
        """Epochs from `start` on, in order, none left out. Raises NotFound."""

    def proceedings(self, prev: Digest | None) -> AsyncGenerator[Located, None]:
        """Lines about the epoch after `prev`, or after the newest. Raises NotFound."""

    async def ask(self, caller: Caller, lines: Sequence[bytes]) -> AskReceipt:
        """Note a request to join. Raises Untrusted, and Refused where this caller asks too often."""

    def asks(self) -> AsyncGenerator[JoinRequest, None]: ...


class LogReads(Protocol):
    def logs(self) -> AsyncGenerator[LogHead, None]: ...

    async def checkpoint(self, origin: str, index: int | None) -> bytes:
        """The newest note, or the one covering `index` that has most cosigners. Raises NotFound."""

    async def entries(self, origin: str, start: int, end: int) -> Sequence[bytes]:
        """Lines from `start` on, before `end`: as many as is convenient, none only at the end of the log. Raises
        NotFound for an unknown log and for a start beyond its size."""

    async def inclusion(self, origin: str, index: int, size: int) -> Sequence[bytes]: ...

    async def consistency(self, origin: str, old_size: int, new_size: int) -> Sequence[bytes]: ...

    def proofs(self, line_digest: Digest, origin: str | None) -> AsyncGenerator[LocatedProof, None]: ...

    def misbehaviour(self) -> AsyncGenerator[Misbehaviour, None]: ...


class ArtifactReads(Protocol):
    def resolve(self, name: str, version: str | None, publisher: Digest | None) -> AsyncGenerator[Located, None]: ...

    def claims(self, artifact: Digest) -> AsyncGenerator[Located, None]: ...

    async def search(self, query: str, cursor: str, limit: int) -> SearchPage: ...


class BlobReads(Protocol):
    async def stat(self, digests: Sequence[Digest]) -> Sequence[BlobStat]:
        """One for each, in order."""

    async def records(self, digest: Digest, layout: str) -> bytes:
        """Raises NotFound."""

    async def locations(self, digest: Digest) -> Sequence[Location]:
        """Raises NotFound."""

    def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """Up to `length` bytes, fewer only at the end of the blob. Raises NotFound."""


class Publishing(Protocol):
    async def submit(self, caller: Caller, lines: Sequence[bytes], objects: Sequence[InlineObject]) -> Submitted:
        """Raises Refused where this caller may not publish here."""

    async def upload(self, caller: Caller, header: UploadHeader, chunks: AsyncIterator[bytes]) -> int:
        """Take what comes; gives how much of the object is here. The caller sends no byte before `chunks` is asked for
        the first: refuse before. `chunks` may end early, or raise."""


class Operating(Protocol):
    async def adopt(self, path: Path, digest: Digest, size: int) -> bool:
        """Whether it was held already. `path` is absolute."""

    async def decide_ask(self, member: Digest, *, keep: bool) -> None:
        """Keep a request to join, or dismiss it. Raises NotFound, OutOfSpace."""

    async def status(self) -> NodeStatus: ...
