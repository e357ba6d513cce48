"""Every call of comity.v1 with generated values, and the bytes that go to the node and come back.

The values come from one seeded generator, so the bytes are the same in each run. Nothing is sent: the channel gives the
bytes of a request to the handler that a server would register, and takes those of its answer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import grpc
from comity.rules.artifact_pins import Pin
from comity.rules.copy_counts import CopyPolicy
from comity.rules.copy_questions import CopyQuestion
from comity.rules.descent import DescentCount, DescentQuestion, LineageRoot
from comity.trust.encoding import Digest, sha256
from comity.wire.access import CALLER, Caller
from comity.wire.artifact import SearchPage
from comity.wire.audit import (
    AuditOrder,
    AuditReply,
    ChallengeRequest,
    CheckedCopy,
    CopiesPage,
    HoldDecision,
    HoldOrder,
    ListedCopies,
    RetainedCopy,
    RetentionPage,
)
from comity.wire.blob import BlobLocation, BlobStat, small_of
from comity.wire.bundle import LoadEvent
from comity.wire.charter import AskReceipt, JoinRequest
from comity.wire.client import NodeClient
from comity.wire.concerns import ConcernPart
from comity.wire.descent import DescentPage
from comity.wire.files import FileIndexPart, FilePrefixes, FoundFiles, file_pair
from comity.wire.found import FoundAnswer, FoundManifest, Lookup
from comity.wire.held import SALT, Held
from comity.wire.log import LocatedProof, LogHead, ShownMisbehaviour
from comity.wire.messages import GO_AHEAD, LocatedEntry
from comity.wire.news import KnownCosignatures, LogNews, News
from comity.wire.node import Charter, NodeFacts, ReplicaCounts
from comity.wire.node_status import NodeStatus
from comity.wire.offer import ANY_GRANT, ANY_OFFER, GrantQuery, GrantStatus, OfferAction, OfferQuery, OfferStatus
from comity.wire.operator import SignInLink
from comity.wire.pin import ListedPin, ListedPinnedCopy
from comity.wire.publish import InlineObject, MissingObject, SubmitReceipt, Submitted, UploadHeader
from comity.wire.services import Services, register
from comity.wire.tls import PinnedChannel
from comity.wire.upstream import ImportEvent, ImportOrder, QueuedImport, UpstreamCheck
from support.wire_values import Values


class AnsweringNode:
    """Answers every call with generated values, and keeps the arguments."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self.asked: list[Any] = []

    async def node(self) -> NodeFacts:
        values = self._values
        counts = ReplicaCounts(*(values.number() for _ in range(5)))
        lines = values.line(), values.some(values.line), values.maybe(values.line)
        return NodeFacts(values.text(), values.origin(), *lines, values.some(values.word), None, counts)

    async def charter(self, epoch: int | None = None) -> Charter:
        self.asked.append(epoch)
        return Charter(epoch or 0, self._values.data(), self._values.some(self._values.line))

    async def epochs(self, start: int = 0) -> AsyncGenerator[Charter, None]:
        self.asked.append(start)
        for epoch in (start, start + 1):
            yield Charter(epoch, self._values.data(), self._values.some(self._values.line))

    async def next_epoch_entries(self, prev: Digest | None = None) -> AsyncGenerator[LocatedEntry, None]:
        self.asked.append(prev)
        for located in self._values.some(self._values.located):
            yield located

    async def ask(self, caller: Caller, lines: Sequence[bytes]) -> AskReceipt:
        self.asked.append((caller, tuple(lines)))
        return AskReceipt(self._values.digest(), self._values.number(), self._values.number())

    async def asks(self) -> AsyncGenerator[JoinRequest, None]:
        yield JoinRequest(self._values.digest(), self._values.number(), self._values.some(self._values.line, 1))

    async def logs(self) -> AsyncGenerator[LogHead, None]:
        yield LogHead(self._values.origin(), self._values.word(), self._values.data())

    async def checkpoint(self, origin: str, index: int | None = None, up_to: int | None = None) -> bytes:
        self.asked.append((origin, index, up_to))
        return self._values.data()

    async def entries(self, origin: str, start: int, end: int) -> Sequence[bytes]:
        self.asked.append((origin, start, end))
        return [self._values.line() for _ in range(min(2, end - start))]

    async def inclusion(self, origin: str, index: int, size: int) -> tuple[bytes, ...]:
        self.asked.append((origin, index, size))
        return self._values.some(lambda: bytes.fromhex(self._values.digest()))

    async def consistency(self, origin: str, old_size: int, new_size: int) -> tuple[bytes, ...]:
        self.asked.append((origin, old_size, new_size))
        return self._values.some(lambda: bytes.fromhex(self._values.digest()))

    async def proofs(self, line_digest: Digest, origin: str | None = None) -> AsyncGenerator[LocatedProof, None]:
        self.asked.append((line_digest, origin))
        yield LocatedProof(self._values.origin(), self._values.data())

    async def misbehaviour(self) -> AsyncGenerator[ShownMisbehaviour, None]:
        yield ShownMisbehaviour("split-view", self._values.origin(), self._values.some(self._values.data))

    async def resolve(
        self, name: str, version: str | None = None, publisher: Digest | None = None, named: Collection[Digest] = ()
    ) -> AsyncGenerator[LocatedEntry, None]:
        self.asked.append((name, version, publisher, tuple(named)))
        for located in self._values.some(self._values.located):
            yield located

    async def claims(self, subject: Digest, named: Collection[Digest] = ()) -> AsyncGenerator[LocatedEntry, None]:
        self.asked.append((subject, tuple(named)))
        for located in self._values.some(self._values.located):
            yield located

    async def find(
        self, name: str, version: str | None = None, publisher: Digest | None = None, named: Collection[Digest] = ()
    ) -> AsyncGenerator[FoundAnswer | FoundManifest, None]:
        self.asked.append((name, version, publisher, tuple(named)))
        authors = self._values.some(lambda: Digest(self._values.digest()))
        for asked in (Lookup.of_name(name, version, publisher, named), Lookup.about(sha256(b"artifact"), authors)):
            yield FoundAnswer(asked, self._entries())
        yield FoundManifest(self._manifest)

    async def _entries(self) -> AsyncGenerator[LocatedEntry, None]:
        for located in self._values.some(self._values.located):
            yield located

    async def _manifest(self) -> bytes:
        return b"manifest"

    async def search(self, query: str, cursor: str = "", limit: int = 0, kind: str = "") -> SearchPage:
        self.asked.append((query, cursor, limit, kind))
        located = self._values.located
        return SearchPage(self._values.some(located), self._values.word(), self._values.some(located))

    async def files(self, prefixes: FilePrefixes) -> AsyncGenerator[FoundFiles, None]:
        self.asked.append(prefixes)
        values = self._values
        pairs = [file_pair(bytes(16), Digest(values.digest())) for _ in range(3)]
        yield FoundFiles(values.number(), values.number(), b"".join(pairs[:2]), pairs[2], (values.number(200),))

    async def concerns(self, publisher: Digest) -> AsyncGenerator[ConcernPart, None]:
        self.asked.append(publisher)
        yield ConcernPart(self._values.number(), True, "own", (self._values.located(),))

    async def descent(self, after: int, holder: Digest | None = None, publisher: Digest | None = None) -> DescentPage:
        self.asked.append((after, holder, publisher))
        values = self._values
        roots = (LineageRoot("", "unknown"), LineageRoot(values.digest(), "signed"))
        count = DescentCount(roots, True, 7, values.number(), 2, values.number(), 1)
        return DescentPage(values.number(), (count,), 0, 13, (Digest(values.digest()),))

    async def file_index(self, after: int, head: bytes) -> AsyncGenerator[FileIndexPart, None]:
        self.asked.append((after, head))
        yield FileIndexPart(self._values.data(), self._values.data())

    async def stat(self, digests: Sequence[Digest]) -> tuple[BlobStat, ...]:
        self.asked.append(tuple(digests))
        return tuple(BlobStat(digest, True, 3) for digest in digests)

    def small(self, digests: Sequence[Digest]) -> AsyncGenerator[Sequence[tuple[Digest, bytes]], None]:
        return small_of(self, digests)

    async def records(self, digest: Digest, layout: str) -> bytes:
        self.asked.append((digest, layout))
        return self._values.data()

    async def locations(self, digest: Digest) -> tuple[BlobLocation, ...]:
        self.asked.append(digest)
        return self._values.some(lambda: BlobLocation(self._values.word(), self._values.text()))

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        self.asked.append((digest, offset, length))
        yield b"abc"[offset:length]

    async def submit(self, caller: Caller, lines: Sequence[bytes], objects: Sequence[InlineObject] = ()) -> Submitted:
        self.asked.append((caller, tuple(lines), tuple(objects)))
        values = self._values
        if values.coin():
            missing = MissingObject(values.digest(), (1 << 40) + values.number(), values.number())
            return Submitted(values.digest(), (missing,))
        return Submitted(values.digest(), (), (SubmitReceipt(values.origin(), values.number(), values.digest()),))

    async def upload(self, caller: Caller, header: UploadHeader, chunks: AsyncIterator[bytes]) -> int:
        self.asked.append((caller, header, b"".join([chunk async for chunk in chunks])))
        return header.size

    async def upload_objects(
        self, caller: Caller, submission: Digest, batches: AsyncIterator[Sequence[InlineObject]]
    ) -> int:
        sent = [each async for batch in batches for each in batch]
        self.asked.append((caller, submission, tuple(sent)))
        return len(sent)

    async def adopt(self, path: Path, digest: Digest, size: int) -> bool:
        self.asked.append((path, digest, size))
        return self._values.coin()

    async def decide_ask(self, member: Digest, *, keep: bool) -> None:
        self.asked.append((member, keep))

    async def sign_in_link(self) -> SignInLink:
        return SignInLink(f"http://{self._values.word()}", self._values.number())

    async def status(self) -> NodeStatus:
        return self._values.status()


class AnsweringPins(AnsweringNode):
    async def decide(
        self, artifact: Digest, name: str = "", policy: CopyPolicy | None = None, *, keep: bool = False
    ) -> None:
        self.asked.append((artifact, name, policy, keep))

    async def listed(self, artifact: Digest | None = None) -> AsyncGenerator[ListedPin, None]:
        self.asked.append(artifact)
        values = self._values
        pin = Pin(values.digest(), values.text(), values.policy())
        copies = values.some(lambda: ListedPinnedCopy(values.text(), "CH", "verified"))
        yield ListedPin(pin, values.policy(), values.policy(), values.coin(), values.coin(), copies)


class AnsweringAudits(AnsweringNode):
    async def audit(self, caller: Caller, order: AuditOrder) -> AuditReply:
        self.asked.append((caller, order))
        return self._values.reply()

    async def copies(
        self,
        artifact: Digest | None = None,
        after: Digest | None = None,
        question: CopyQuestion | None = None,
        names_of: tuple[Digest, ...] = (),
    ) -> CopiesPage:
        self.asked.append((artifact, after) if question is None else (artifact, after, question, names_of))
        values = self._values
        listed = ListedCopies(values.digest(), values.text(), values.some(values.copy))
        names = {values.digest(): values.text()}
        return CopiesPage((listed,), names, values.policy(), values.number(), values.digest(), False)

    async def logged(self, artifact: Digest) -> AsyncGenerator[LocatedEntry, None]:
        self.asked.append(artifact)
        for located in self._values.some(self._values.located):
            yield located

    async def check(self, artifact: Digest) -> AsyncGenerator[CheckedCopy, None]:
        self.asked.append(artifact)
        for checked in self._values.some(self._values.checked):
            yield checked

    async def decide(self, order: HoldOrder) -> HoldDecision:
        self.asked.append(order)
        values = self._values
        names = values.some(values.text), values.some(values.text)
        return HoldDecision(values.line(), values.number(), *names, values.number())

    async def retention(self, after: Digest | None = None) -> RetentionPage:
        self.asked.append(after)
        values = self._values
        copy = RetainedCopy(values.digest(), values.text(), values.coin(), values.text(), values.text(), 5, 6)
        return RetentionPage((copy,))

    async def challenges(self, request: ChallengeRequest) -> AsyncGenerator[AuditOrder, None]:
        self.asked.append(request)
        for order in self._values.some(self._values.order):
            yield order

    async def answer_carried(self, order: AuditOrder) -> AuditReply:
        self.asked.append(order)
        return self._values.reply()

    async def check_answer(self, reply: AuditReply) -> CheckedCopy:
        self.asked.append(reply)
        return self._values.checked()


class AnsweringNews(AnsweringNode):
    def read(  # type: ignore[override]  # the service of news has a call of this name too
        self, position: bytes, heartbeat: float, own_keys: Sequence[bytes] = ()
    ) -> AsyncGenerator[News, None]:
        self.asked.append((position, heartbeat, tuple(own_keys)))
        return self._pages()

    async def _pages(self) -> AsyncGenerator[News, None]:
        for page in self._values.some(self._values.page_of_news):
            yield page

    async def page(self, position: bytes, own_keys: Sequence[bytes] = ()) -> News:
        self.asked.append((position, tuple(own_keys)))
        return self._values.page_of_news()

    async def cosignatures(self, known: Sequence[KnownCosignatures]) -> AsyncGenerator[LogNews, None]:
        for item in known:
            self.asked.append(item)
            if (told := self._values.maybe(self._values.log_news)) is not None:
                yield told


class AnsweringOffers(AnsweringNode):
    async def search(  # type: ignore[override]  # the service of offers has a call of this name too
        self, query: OfferQuery = ANY_OFFER
    ) -> AsyncGenerator[OfferStatus, None]:
        self.asked.append(query)
        values = self._values
        state = values.located(), f"{values.origin()}+abcd+{values.word()}", values.digest(), (1, 2)
        yield OfferStatus(*state, values.number(), values.number(), values.coin(), values.text())

    async def offer(self, offer: Digest) -> AsyncGenerator[LocatedEntry, None]:
        self.asked.append(offer)
        for located in self._values.some(self._values.located):
            yield located

    async def grants(self, query: GrantQuery = ANY_GRANT) -> AsyncGenerator[GrantStatus, None]:
        self.asked.append(query)
        values = self._values
        answer, newest = values.maybe(values.located), values.maybe(values.digest)
        said = values.some(values.digest)
        yield GrantStatus(values.located(), values.digest(), "granted", answer, (4, 5), newest, said)

    async def allocate(self, action: OfferAction) -> tuple[LocatedEntry, ...]:
        self.asked.append(action)
        return self._values.some(self._values.located)


class AnsweringImports(AnsweringNode):
    async def run(self, order: ImportOrder) -> AsyncGenerator[ImportEvent, None]:
        self.asked.append(order)
        for event in self._values.import_events():
            yield event

    async def check(self, name: str, token: str = "") -> UpstreamCheck:
        self.asked.append((name, token))
        return UpstreamCheck("changed", self._values.line(), self._values.number())

    async def decide(self, name: str, endpoint: str = "", hosts: tuple[str, ...] = (), *, keep: bool = False) -> None:
        self.asked.append((name, endpoint, hosts, keep))

    async def queued(self) -> AsyncGenerator[QueuedImport, None]:
        values = self._values
        hosts, numbers = values.some(values.word), [values.number() for _ in range(5)]
        queued, failures, next_try, received, size = numbers
        told = (values.text(), next_try, received, size, values.text())
        yield QueuedImport(values.text(), values.word(), hosts, "waiting", queued, failures, *told)

    async def load(self, socket: Path) -> AsyncGenerator[LoadEvent, None]:
        self.asked.append(socket)
        for event in self._values.load_events():
            yield event


class _Context:
    def __init__(self, go_ahead: list[tuple[str, str]]) -> None:
        self._go_ahead = go_ahead

    def set_compression(self, compression: grpc.Compression) -> None:
        """Nothing is compressed here."""

    async def send_initial_metadata(self, metadata: Iterable[tuple[str, str]]) -> None:
        self._go_ahead += metadata


class _Answer:
    """The answer of one call, as the client reads it."""

    def __init__(self, messages: list[Any], request: bytes) -> None:
        self._messages = messages
        self.request = request

    async def read(self) -> Any:
        return self._messages.pop(0) if self._messages else grpc.aio.EOF

    def cancel(self) -> None:
        """There is nothing to cancel."""


class _Upload:
    def __init__(self, finish: Callable[[list[Any]], Any]) -> None:
        self._finish = finish
        self._requests: list[Any] = []

    async def write(self, request: Any) -> None:
        self._requests.append(request)

    async def initial_metadata(self) -> tuple[tuple[str, str], ...]:
        return (GO_AHEAD,)

    async def done_writing(self) -> None:
        """The requests are complete."""

    def __await__(self) -> Any:
        return self._finish(self._requests).__await__()

    def cancel(self) -> None:
        """There is nothing to cancel."""


class RecordingChannel:
    """Gives requests to registered handlers, and keeps the bytes of both: `calls` has, for each call made, its path,
    the requests and the answers."""

    def __init__(self, services: Services) -> None:
        self._handlers: dict[str, Any] = {}
        self.calls: list[tuple[str, list[bytes], list[bytes]]] = []
        register(services, cast(grpc.aio.Server, self))

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The registered handlers follow, which are the same."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self._handlers |= {f"/{service}/{name}": handler for name, handler in handlers.items()}

    def unary_unary(self, path: str, request_serializer: Any, response_deserializer: Any, **given: Any) -> Any:
        async def call(request: Any, timeout: float) -> Any:
            (answer,) = await self._made(path, [request_serializer(request)], response_deserializer)
            return answer

        return call

    def unary_stream(self, path: str, request_serializer: Any, response_deserializer: Any, **given: Any) -> Any:
        class Streamed(_Answer):
            async def read(answer) -> Any:
                if answer._messages == [None]:
                    answer._messages = await self._made(path, [answer.request], response_deserializer)
                return await super().read()

        def call(request: Any, timeout: float) -> _Answer:
            return Streamed([None], request_serializer(request))

        return call

    def stream_unary(self, path: str, request_serializer: Any, response_deserializer: Any, **given: Any) -> Any:
        async def finish(requests: list[Any]) -> Any:
            sent = [request_serializer(request) for request in requests]
            return (await self._made(path, sent, response_deserializer))[0]

        return lambda timeout: _Upload(finish)

    async def _made(self, path: str, requests: list[bytes], parse: Any) -> list[Any]:
        handler, go_ahead = self._handlers[path], list[tuple[str, str]]()
        read, write = handler.request_deserializer, handler.response_serializer or bytes
        context = _Context(go_ahead)

        async def received() -> AsyncIterator[Any]:
            for data in requests:
                yield read(data)

        if handler.unary_unary:
            answers = [await handler.unary_unary(read(requests[0]), context)]
        elif handler.stream_unary:
            answers = [await handler.stream_unary(received(), context)]
        else:
            answers = [answer async for answer in handler.unary_stream(read(requests[0]), context)]
        sent = [write(answer) for answer in answers]
        self.calls.append((path, requests, sent))
        return [parse(data) if parse else data for data in sent]


async def every_call(client: NodeClient, values: Values) -> None:
    """Make every call once or more, with generated arguments."""
    number, digest = values.number, values.digest
    await client.node()
    await client.charter(values.maybe(number))
    await client.epochs(number())
    await client.next_epoch_entries(values.maybe(digest))
    await client.ask(values.some(values.line, 1))
    await client.asks()
    await client.logs()
    await client.checkpoint(values.origin(), number())
    await client.checkpoint(values.origin(), up_to=number())
    start = number()
    async for _ in client.entries(values.origin(), start, start + 5):
        pass
    await client.inclusion(values.origin(), start, start + 5)
    await client.consistency(values.origin(), start + 1, start + 5)
    await client.proofs(digest(), values.maybe(values.origin))
    await client.misbehaviour()
    await client.resolve(values.text(), values.maybe(values.text), values.maybe(digest), values.some(digest))
    await client.claims(digest(), values.some(digest))
    await client.search(values.text(), values.word(), number(50))
    abc = sha256(b"abc")
    await client.object(abc)
    async for _ in client.objects([abc]):
        pass
    await client.records(digest(), "linear")
    await client.stat(values.some(digest, 1))
    await client.locations(digest())
    async for _ in client.read(digest(), 1, 2):
        pass
    await client.submit(values.some(values.line, 1), values.some(values.inline))
    await client.upload(UploadHeader(digest(), digest(), 6, 0), _chunks())
    await client.upload_objects(abc, _batches(), size=6)
    await client.adopt(Path(f"/{values.word()}"), digest(), number())
    await client.decide_ask(digest(), keep=values.coin())
    await client.sign_in_link()
    await client.status()


async def _batches() -> AsyncIterator[Sequence[InlineObject]]:
    yield [InlineObject(sha256(b"abc"), b"abc"), InlineObject(sha256(b"de"), b"de")]
    yield [InlineObject(sha256(b"f"), b"f")]


async def _chunks() -> AsyncIterator[bytes]:
    for chunk in (b"abc", b"def"):
        yield chunk


async def every_other_call(client: NodeClient, values: Values) -> None:
    """The calls of the services that `NodeClient` has apart."""
    number, digest = values.number, values.digest
    await client.pins.put(Pin(digest(), values.text(), values.policy()))
    await client.pins.end(digest())
    streams: list[AsyncIterator[Any]] = [
        client.pins.listed(values.maybe(digest)),
        client.audits.check(digest()),
        client.audits.retention(),
        client.news.read(values.data(), 1 + number(60), values.some(lambda: values.data(4))),
        client.upstream.run(values.import_order()),
        client.bundles.load(Path(f"/{values.word()}")),
    ]
    for stream in streams:
        async for _ in stream:
            pass
    await client.audits.audit(values.order(number(600)))
    await client.audits.copies(values.maybe(digest), values.maybe(digest))
    await client.audits.logged(digest())
    await client.audits.decide(values.hold_order())
    await client.audits.challenges(ChallengeRequest(values.text(), values.maybe(digest), number(256)))
    await client.audits.answer_carried(values.order())
    await client.audits.check_answer(values.reply())
    await client.news.page(values.data(), values.some(lambda: values.data(4)))
    await client.news.cosignatures(values.some(values.known))
    await client.upstream.check(values.text(), values.word())
    await client.offers.search(values.offer_query())
    await client.offers.get(digest())
    await client.offers.grants(GrantQuery(values.maybe(digest), values.maybe(digest), values.word(), limit=7))
    for action in values.offer_actions():
        await client.offers.allocate(action)


async def recorded(seed: str) -> tuple[list[tuple[str, list[str], list[str]]], list[str]]:
    """Each call with the requests and the answers in hexadecimal, and what the node was asked."""
    values = Values(seed)
    kinds = (AnsweringNode, AnsweringPins, AnsweringAudits, AnsweringNews, AnsweringOffers, AnsweringImports)
    node, pins, audits, told, offers, imports = (kind(values) for kind in kinds)
    services = Services(
        node=node,
        log=node,
        artifact=node,
        blob=node,
        publish=node,
        operator=node,
        charter=node,
        pin=cast(AnsweringPins, pins),
        audit=cast(AnsweringAudits, audits),
        news=cast(AnsweringNews, told),
        offer=cast(AnsweringOffers, offers),
        upstream=cast(AnsweringImports, imports),
        bundle=cast(AnsweringImports, imports),
    )
    channel = RecordingChannel(services)

    async def explain() -> None:
        return None

    CALLER.set(Caller("somebody"))
    client = NodeClient(PinnedChannel(cast(grpc.aio.Channel, channel), explain))
    await every_call(client, values)
    await every_other_call(client, values)
    asked = Lookup.of_name(values.text(), values.maybe(values.text), None, values.some(lambda: Digest(values.digest())))
    await client.find_beside(Held(bytes(SALT), bytes(8)), asked)
    async for _ in client.files(FilePrefixes(20, (values.number(100), 1_000_000))):
        pass
    async for _ in client.file_index(values.number(), bytes(32)):
        pass
    async for _ in client.files(FilePrefixes(20, (3,), pieces=True)):
        pass
    async for _ in client.concerns(Digest(values.digest())):
        pass
    async for _ in client.all_descent(DescentQuestion(Digest(values.digest()), None)):
        pass
    await client.upstream.decide(values.text(), values.word(), values.some(values.word), keep=True)
    async for _ in client.upstream.queued():
        pass
    await client.search(values.text(), kind="dataset")
    made = [(path, [data.hex() for data in sent], [data.hex() for data in got]) for path, sent, got in channel.calls]
    return made, [repr(asked) for each in (node, pins, audits, told, offers, imports) for asked in each.asked]
