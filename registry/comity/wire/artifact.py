"""`ArtifactService`: statements about names and artifacts. Values and calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine
from contextlib import aclosing
from typing import Annotated, Any, Final, Protocol, TypeAlias

from comity.rules.descent import DescentQuestion
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.v1 import artifact_pb2, types_pb2
from comity.wire import limits
from comity.wire.calls import ServiceCalls, call
from comity.wire.codec import At, Data, Exact, Items, Read
from comity.wire.concerns import ConcernPart
from comity.wire.descent import DescentPage
from comity.wire.fields import read_integer
from comity.wire.files import FILE_PREFIXES, FileIndexPart, FilePrefixes, FoundFiles
from comity.wire.found import Found, FoundAnswer, FoundManifest, Lookup, in_few_messages, read_found
from comity.wire.held import HELD, Held, Selected, in_messages, read_selected
from comity.wire.messages import LocatedEntry, compress
from comity.wire.rpc import Context, Rpcs, rpc_of

rpc = Rpcs(artifact_pb2)
HEAD_BYTES: Final = 32
_Name: TypeAlias = Annotated[str, Exact(limits.NAME)]
_Named: TypeAlias = Annotated[Collection[Digest], Items(limits.NAMED, cut=True)]
"""Authors whose statements are among the answer, whatever others say."""


@frozen
class SearchPage:
    """One page of results; `next_cursor` is empty on the last page. `advisories` are those of the publishers of what
    was found about it, and what they state of its kind."""

    found: Annotated[tuple[LocatedEntry, ...], Items(limits.SEARCH_PAGE)]
    next_cursor: Annotated[str, Exact(limits.TOKEN)] = ""
    advisories: Annotated[tuple[LocatedEntry, ...], Items(limits.SEARCH_ADVISORIES)] = ()


def _page_size(limit: int) -> int:
    return read_integer(limit, "limit", most=limits.SEARCH_PAGE) or limits.SEARCH_PAGE


def _kind(text: str) -> str:
    if not text:
        return ""
    from comity.rules.artifact_kind import check_kind  # it loads what most commands that ask nodes do not need

    return check_kind(text)


class ArtifactService(Protocol):
    """What the asker of `resolve` and `claims` has is left out where the answer is sent: an implementation gives all
    lines."""

    @rpc("Resolve", items=limits.RESOLVED, serve=lambda *call: _serve("resolve", *call))
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

    @rpc("GetClaims", items=limits.CLAIMS, serve=lambda *call: _serve("claims", *call))
    def claims(
        self, subject: Annotated[Digest, At("artifact")], named: _Named = ()
    ) -> AsyncGenerator[LocatedEntry, None]:
        """Statements about an artifact, and about the authors of those statements: apart and first, those of `named`,
        of its publishers, and of members. Raises NotFound."""

    @rpc(
        "FindArtifact",
        items=limits.FOUND,
        size=2 * limits.FOUND * limits.FOUND_BYTES,
        serve=lambda *call: _serve_found(*call),
    )
    def find(
        self,
        name: _Name,
        version: Annotated[str | None, Exact(limits.NAME)] = None,
        publisher: Digest | None = None,
        named: _Named = (),
    ) -> AsyncGenerator[FoundAnswer | FoundManifest, None]:
        """Answers to what an asker who looks for the artifact of a name asks. Raises NotFound."""

    @rpc("Search")
    async def search(
        self,
        query: _Name,
        cursor: Annotated[str, Exact(limits.TOKEN)] = "",
        limit: Annotated[int, Read(_page_size)] = 0,
        kind: Annotated[str, Read(_kind)] = "",
    ) -> SearchPage:
        """At most `limit` results; 0 for the maximum. With a kind, only artifacts whose publishers state it; a model is
        what its publisher calls nothing else."""

    @rpc("FindFiles", items=limits.FILES_MESSAGES)
    def files(self, prefixes: Annotated[FilePrefixes, FILE_PREFIXES]) -> AsyncGenerator[FoundFiles, None]:
        """The artifacts that have files with these prefixes. Raises Malformed (PREFIX-TOO-SHORT) where they stand for
        more than 65,536 files."""

    @rpc("ReadFileIndex", items=limits.INDEX_MESSAGES, size=2 * limits.INDEX_CALL)
    def file_index(self, after: int, head: Annotated[bytes, Data(HEAD_BYTES)]) -> AsyncGenerator[FileIndexPart, None]:
        """Records of the index of files after the first `after`, whose head is `head`; about 16 MiB, and then their
        state. Raises NotFound (FILE-INDEX-REPLACED)."""

    @rpc("GetConcerns", items=limits.CONCERNS)
    def concerns(self, publisher: Digest) -> AsyncGenerator[ConcernPart, None]:
        """What concerns a publisher, and then the keys of the authors. Raises Refused (FRONT-END)."""

    @rpc("ListDescent")
    async def descent(
        self,
        after: int,
        holder: Digest | None = None,
        publisher: Digest | None = None,
    ) -> DescentPage:
        """A page of counts of descent, after the number that the previous one ends with; only of artifacts that
        `holder` has, and that `publisher` published, if these are given. Raises Refused (FRONT-END)."""


async def _serve(
    method: str, service: ArtifactService, request: Any, context: Context
) -> AsyncIterator[types_pb2.Located]:
    """Serve a call whose answer is a selection, without what the asker has."""
    rpc, held = rpc_of(getattr(ArtifactService, method)), _held(request)
    async with aclosing(rpc.ask(service, request)) as entries:
        left = rpc.items
        async for message in in_messages(entries, held):
            if not left:
                return
            left -= 1
            yield message


async def _serve_found(
    service: ArtifactService, request: Any, context: Context
) -> AsyncIterator[artifact_pb2.FoundAnswers]:
    if request.compressed:
        compress(context)
    async with (
        aclosing(rpc_of(ArtifactService.find).ask(service, request)) as answers,
        aclosing(in_few_messages(answers, _held(request))) as messages,
    ):
        async for message in messages:
            yield message


def _held(request: Any) -> Held | None:
    return HELD.decode(request.held) if request.HasField("held") else None


def _selected(method: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, tuple[Selected, ...]]]:
    """Returns the client's method for a call whose answer is a selection, which it returns as a whole: what is held,
    and the arguments of the service's method. It raises Malformed (UNBOUNDED) for more entries than the call may have
    messages."""
    rpc = rpc_of(method)

    async def ask(service: ServiceCalls, held: Held | None, *arguments: Any) -> tuple[Selected, ...]:
        request, found = rpc.request.encode(*arguments), list[Selected]()
        if held is not None:
            request.held.CopyFrom(HELD.encode(held))
        async with aclosing(service._calls.stream(rpc, request)) as answer:
            async for message in answer:
                found += read_selected(message)
                if len(found) > rpc.items:
                    raise Malformed("the answer is too long", why="the node sent more than asked", code="UNBOUNDED")
        return tuple(found)

    return ask


def _with_lines(entries: Collection[Selected]) -> tuple[LocatedEntry, ...]:
    """Raises Malformed for a reference: who holds nothing is sent none."""
    found = tuple(entry for entry in entries if isinstance(entry, LocatedEntry))
    if len(found) < len(entries):
        raise Malformed("the answer has references", why="the question said of no line that it is held")
    return found


class ArtifactCalls(ServiceCalls):
    """The calls whose names end in `_beside` say which lines the asker has; the answer refers to these."""

    search = call(ArtifactService.search)
    files = call(ArtifactService.files)
    file_index = call(ArtifactService.file_index)
    concerns = call(ArtifactService.concerns)
    _descent = call(ArtifactService.descent)
    _resolve = _selected(ArtifactService.resolve)
    _claims = _selected(ArtifactService.claims)

    async def all_descent(self, question: DescentQuestion) -> AsyncGenerator[DescentPage, None]:
        """Yields every page of counts of descent. Raises Malformed if the pages of a node do not end."""
        after = 0
        while True:
            page = await self._descent(after, question.holder, question.publisher)
            yield page
            if not page.next:
                return
            if page.next <= after:
                raise Malformed("the answer is not in order", why="each page must end after the one before")
            after = page.next

    async def resolve(
        self, name: str, version: str | None = None, publisher: Digest | None = None, named: Collection[Digest] = ()
    ) -> tuple[LocatedEntry, ...]:
        """As `ArtifactService.resolve`."""
        return _with_lines(await self._resolve(None, name, version, publisher, named))

    def resolve_beside(
        self,
        held: Held,
        name: str,
        version: str | None = None,
        publisher: Digest | None = None,
        named: Collection[Digest] = (),
    ) -> Coroutine[Any, Any, tuple[Selected, ...]]:
        return self._resolve(held, name, version, publisher, named)

    def asked_beside(self, held: Held, asked: Lookup) -> Coroutine[Any, Any, tuple[Selected, ...]]:
        if asked.subject is not None:
            return self._of_any_authors(held, asked.subject, asked.named)
        return self._resolve(held, asked.name, asked.version, asked.publisher, asked.named)

    async def find_beside(self, held: Held, asked: Lookup) -> Found:
        """As `ArtifactService.find`, of a question with the version that is wanted. The answer is compressed, because a
        new connection has few packets under way: what does not fit into them takes another round trip."""
        rpc = rpc_of(ArtifactService.find)
        request = rpc.request.encode(asked.name, asked.version, asked.publisher, asked.named)
        request.held.CopyFrom(HELD.encode(held))
        request.compressed = True
        async with aclosing(self._calls.stream(rpc, request)) as messages:
            return await read_found(messages)

    async def claims(self, digest: Digest, named: Collection[Digest] = ()) -> tuple[LocatedEntry, ...]:
        """As `ArtifactService.claims`, for any number of authors."""
        return _with_lines(await self._of_any_authors(None, digest, named))

    def claims_beside(
        self, held: Held, digest: Digest, named: Collection[Digest] = ()
    ) -> Coroutine[Any, Any, tuple[Selected, ...]]:
        return self._of_any_authors(held, digest, named)

    async def _of_any_authors(
        self, held: Held | None, digest: Digest, named: Collection[Digest]
    ) -> tuple[Selected, ...]:
        authors = list(dict.fromkeys(named))
        found: dict[Selected, None] = {}
        for start in range(0, max(1, len(authors)), limits.NAMED):
            found |= dict.fromkeys(await self._claims(held, digest, authors[start : start + limits.NAMED]))
        return tuple(found)
