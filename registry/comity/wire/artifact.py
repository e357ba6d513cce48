"""`ArtifactService`: statements about names and artifacts. Values and calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeAlias

from comity.trust.encoding import Digest
from comity.v1 import artifact_pb2
from comity.wire import limits
from comity.wire.calls import ServiceCalls, call, collected
from comity.wire.codec import At, Exact, Items, Read
from comity.wire.fields import read_integer
from comity.wire.messages import LocatedEntry
from comity.wire.rpc import Rpcs

rpc = Rpcs(artifact_pb2)
_Name: TypeAlias = Annotated[str, Exact(limits.NAME)]
_Named: TypeAlias = Annotated[Collection[Digest], Items(limits.NAMED, cut=True)]
"""Authors whose statements are among the answer, whatever others say."""


@dataclass(frozen=True, slots=True)
class SearchPage:
    """One page of results; `next_cursor` is empty on the last page. `advisories` are those of the publishers of what
    was found about it."""

    found: Annotated[tuple[LocatedEntry, ...], Items(limits.SEARCH_PAGE)]
    next_cursor: Annotated[str, Exact(limits.TOKEN)] = ""
    advisories: Annotated[tuple[LocatedEntry, ...], Items(limits.SEARCH_ADVISORIES)] = ()


def _page_size(limit: int) -> int:
    return read_integer(limit, "limit", most=limits.SEARCH_PAGE) or limits.SEARCH_PAGE


class ArtifactService(Protocol):
    @rpc("Resolve", items=limits.RESOLVED)
    def resolve(
        self,
        name: _Name,
        version: Annotated[str | None, Exact(limits.NAME)] = None,
        publisher: Digest | None = None,
        named: _Named = (),
    ) -> AsyncGenerator[LocatedEntry, None]:
        """Statements that claim a name, in the order in which the node first saw the claimants; only those of
        `publisher` if given. Claims and advisories of the first 256 of `named` are among them, whatever others say.
        Raises NotFound."""

    @rpc("GetClaims", items=limits.CLAIMS)
    def claims(
        self, subject: Annotated[Digest, At("artifact")], named: _Named = ()
    ) -> AsyncGenerator[LocatedEntry, None]:
        """Statements about an artifact, and about the authors of those statements: apart and first, those of `named`,
        of its publishers, and of members. Raises NotFound."""

    @rpc("Search")
    async def search(
        self,
        query: _Name,
        cursor: Annotated[str, Exact(limits.TOKEN)] = "",
        limit: Annotated[int, Read(_page_size)] = 0,
    ) -> SearchPage:
        """At most `limit` results; 0 for the maximum."""


class ArtifactCalls(ServiceCalls):
    resolve = collected(ArtifactService.resolve)
    search = call(ArtifactService.search)
    _claims = collected(ArtifactService.claims)

    async def claims(self, digest: Digest, named: Collection[Digest] = ()) -> tuple[LocatedEntry, ...]:
        """As `ArtifactService.claims`, for any number of authors."""
        authors = list(dict.fromkeys(named))
        found: dict[LocatedEntry, None] = {}
        for start in range(0, max(1, len(authors)), limits.NAMED):
            found |= dict.fromkeys(await self._claims(digest, authors[start : start + limits.NAMED]))
        return tuple(found)
