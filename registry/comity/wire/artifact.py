"""`ArtifactService`: statements about names and artifacts. Values, codec, calls and servicer."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Final, Protocol

from comity.trust.encoding import Digest
from comity.v1 import artifact_pb2, types_pb2
from comity.v1.artifact_pb2_grpc import ArtifactServiceServicer, ArtifactServiceStub
from comity.wire import limits
from comity.wire.calls import ServiceCalls
from comity.wire.codec import Exact, Items, MessageCodec
from comity.wire.fields import encode_digest, read_digest, read_integer, read_many, read_text
from comity.wire.messages import LOCATED, Context, LocatedEntry, at_most

if TYPE_CHECKING:
    from comity.v1.artifact_pb2_grpc import ArtifactServiceAsyncStub


@dataclass(frozen=True, slots=True)
class SearchPage:
    """One page of results; `next_cursor` is empty on the last page. `advisories` are those of the publishers of what
    was found about it."""

    found: Annotated[tuple[LocatedEntry, ...], Items(limits.SEARCH_PAGE)]
    next_cursor: Annotated[str, Exact(limits.TOKEN)] = ""
    advisories: Annotated[tuple[LocatedEntry, ...], Items(limits.SEARCH_ADVISORIES)] = ()


PAGE: Final = MessageCodec(SearchPage, artifact_pb2.SearchResponse)


class ArtifactCalls(ServiceCalls):
    """The calls of `ArtifactService`."""

    @cached_property
    def _artifact(self) -> ArtifactServiceAsyncStub:
        return ArtifactServiceStub(self._calls.connection.channel)

    async def resolve(
        self,
        name: str,
        version: str | None = None,
        publisher: Digest | None = None,
        named: Collection[Digest] = (),
    ) -> tuple[LocatedEntry, ...]:
        """Returns statements that claim a name, in the order in which the node first saw the claimants; only those of
        `publisher` if given. Claims and advisories of the first 256 of `named` are among them, whatever others say.
        Raises NotFound."""
        asked = None if publisher is None else encode_digest(publisher)
        request = artifact_pb2.ResolveRequest(name=name, version=version, publisher=asked, named=_named(named))
        return await self._calls.all(self._artifact.Resolve, request, LOCATED.decode, limits.RESOLVED)

    async def claims(self, digest: Digest, named: Collection[Digest] = ()) -> tuple[LocatedEntry, ...]:
        """Returns statements about an artifact, and about the authors of those statements: apart and first, those of
        `named`, of its publishers, and of members. Raises NotFound."""
        authors = [encode_digest(author) for author in dict.fromkeys(named)]
        found: dict[LocatedEntry, None] = {}
        for start in range(0, max(1, len(authors)), limits.NAMED):
            some = authors[start : start + limits.NAMED]
            request = artifact_pb2.GetClaimsRequest(artifact=encode_digest(digest), named=some)
            found |= dict.fromkeys(
                await self._calls.all(self._artifact.GetClaims, request, LOCATED.decode, limits.CLAIMS)
            )
        return tuple(found)

    async def search(self, query: str, cursor: str = "", limit: int = 0) -> SearchPage:
        request = artifact_pb2.SearchRequest(query=query, cursor=cursor, limit=limit)
        return PAGE.decode(await self._calls.unary(self._artifact.Search, request))


def _named(authors: Collection[Digest]) -> list[bytes]:
    return [encode_digest(author) for author in itertools.islice(authors, limits.NAMED)]


class ArtifactReads(Protocol):
    def resolve(
        self, name: str, version: str | None, publisher: Digest | None, named: Collection[Digest] = ()
    ) -> AsyncGenerator[LocatedEntry, None]: ...

    def claims(self, subject: Digest, named: Collection[Digest] = ()) -> AsyncGenerator[LocatedEntry, None]: ...

    async def search(self, query: str, cursor: str, limit: int) -> SearchPage: ...


class ArtifactServicer(ArtifactServiceServicer):
    def __init__(self, artifacts: ArtifactReads) -> None:
        self._artifacts = artifacts

    async def Resolve(self, request: artifact_pb2.ResolveRequest, context: Context) -> AsyncIterator[types_pb2.Located]:
        name = read_text(request.name, "name", limits.NAME)
        version = read_text(request.version, "version", limits.NAME) if request.HasField("version") else None
        publisher = read_digest(request.publisher) if request.HasField("publisher") else None
        named = read_many(request.named, "authors", limits.NAMED, read_digest)
        async for located in at_most(limits.RESOLVED, self._artifacts.resolve(name, version, publisher, named)):
            yield LOCATED.encode(located)

    async def GetClaims(
        self, request: artifact_pb2.GetClaimsRequest, context: Context
    ) -> AsyncIterator[types_pb2.Located]:
        named = read_many(request.named, "authors", limits.NAMED, read_digest)
        async for located in at_most(limits.CLAIMS, self._artifacts.claims(read_digest(request.artifact), named)):
            yield LOCATED.encode(located)

    async def Search(self, request: artifact_pb2.SearchRequest, context: Context) -> artifact_pb2.SearchResponse:
        page = await self._artifacts.search(
            read_text(request.query, "query", limits.NAME),
            read_text(request.cursor, "cursor", limits.TOKEN),
            read_integer(request.limit, "limit", most=limits.SEARCH_PAGE) or limits.SEARCH_PAGE,
        )
        return PAGE.encode(page)
