"""A node that takes statements: through its open port where its operator allows, or its operator's socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.content.durable import disk_errors
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, Refused, Unavailable, Untrusted
from comity.trust.identity import check_inception
from comity.trust.statement import parse_entry
from comity.trust.statements import NodeRecord, check_node_record
from comity.trust.tlog.note import VerifierKey
from comity.wire import limits
from comity.wire.client import NodeClient
from comity.wire.messages import InlineObject, MissingObject, SubmitReceipt, UploadHeader
from comity_client.events import OnEvent, Progress, first_error
from comity_client.session import RemoteNode, Session

SOCKET: Final = "unix:"
INLINE_BYTES: Final = 2 * 1024 * 1024
"""Small objects that go along with the lines; larger ones are uploaded."""
UPLOADS_AT_ONCE: Final = 4
TRIES: Final = 5
"""Rounds in a row that bring nothing, after which the node is given up. What arrived is not sent again."""
MAX_ROUNDS: Final = 1_000
"""Rounds in all: a node that takes a byte a round, or asks for the same objects in turn, is given up as well."""
PAUSE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Uplink:
    """A connection to one node that logs, and the key by which its log is known. `operator`: through its socket."""

    client: NodeClient
    name: str
    log: VerifierKey
    operator: bool

    @property
    def origin(self) -> str:
        return self.log.name


@asynccontextmanager
async def open_uplink(session: Session, target: str) -> AsyncIterator[Uplink]:
    """A node of a pinned federation by name or address, or a node on this machine by the path of its operator's socket,
    with `unix:` before it or not.

    Raises NotFound, Unavailable, Refused; Untrusted where the node behind the socket is not who its records say.
    """
    socket = Path(target.removeprefix(SOCKET))
    if not target.startswith(SOCKET) and not socket.is_socket():
        node = session.named(target)
        yield Uplink(await _reached(node), node.name, node.record.log, operator=False)
        return
    async with NodeClient.operator(socket) as client:
        record = await _own_record(client)
        for node in session.nodes:
            if node.record.origin == record.origin and node.record.log != record.log:
                why = f"its log {record.origin} has another key than in the pinned federation"
                raise Untrusted(f"{target} is not the pinned node", why=why, code="NODE-RECORD")
        yield Uplink(client, record.name, record.log, operator=True)


async def log_lines(
    uplink: Uplink,
    lines: Sequence[bytes],
    objects: Mapping[Digest, bytes],
    files: Mapping[Digest, Path],
    *,
    link: bool,
    on_event: OnEvent,
) -> tuple[SubmitReceipt, ...]:
    """Have the node log `lines`, bringing it what they name and it lacks. Repeating it does no harm.

    Args:
        objects, files: everything that the lines name, by digest.
        link: have the node adopt files from this disk instead of sending them; needs the operator's socket.

    Returns one receipt a line: a claim, until a checkpoint proves it. Raises Refused, Untrusted, OutOfSpace,
    Unavailable (ASKED-AGAIN for a node that never has enough), NotFound (it asks for an object that is not here).
    """
    if link and not uplink.operator:
        hint = "name its operator's socket: --node PATH"
        raise Refused(f"{uplink.name} takes no files by link here", why="only its operators may", hint=hint)
    inline = _inline(objects)
    arrivals, failures, barren = _Arrivals(), list[ComityError](), 0
    for _ in range(MAX_ROUNDS):
        submitted = await uplink.client.submit(lines, inline)
        if submitted.receipts:
            return _checked(uplink, lines, submitted.receipts)
        barren = 0 if arrivals.grow(submitted.missing) else barren + 1
        if barren == TRIES:
            break
        delivery = _Delivery(uplink, submitted.submission, objects, files, link, on_event)
        failures = await delivery.bring(submitted.missing)
        if failures:
            await asyncio.sleep(PAUSE * 2**barren)
        inline = []
    if failures:
        raise failures[0]
    raise Unavailable(
        f"{uplink.name} logs nothing",
        why="it asks again for objects that it was sent whole",
        hint="use another node: --node NAME",
        code="ASKED-AGAIN",
    )


class _Arrivals:
    """What a node says that it still lacks, from round to round. Not thread-safe."""

    def __init__(self) -> None:
        self._received: dict[Digest, int] = {}
        self._whole: set[Digest] = set()

    def grow(self, missing: Sequence[MissingObject]) -> bool:
        """Whether the node has more than ever before: an object asked for the first time, more of one, or all of it."""
        lacking = {item.digest for item in missing}
        more = [item for item in missing if item.received > self._received.get(item.digest, -1)]
        whole = set(self._received) - lacking - self._whole
        self._received |= {item.digest: item.received for item in more}
        self._whole |= whole
        return bool(more or whole)


@dataclass(frozen=True, slots=True)
class _Delivery:
    """One submission's missing objects, on their way to the node."""

    uplink: Uplink
    submission: Digest
    objects: Mapping[Digest, bytes]
    files: Mapping[Digest, Path]
    link: bool
    on_event: OnEvent

    async def bring(self, missing: Sequence[MissingObject]) -> list[ComityError]:
        """Bring each once. Returns the failures that may pass; raises the others."""
        turn = asyncio.Semaphore(UPLOADS_AT_ONCE)
        passing: list[ComityError] = []

        async def one(wanted: MissingObject) -> None:
            async with turn:
                try:
                    await self._one(wanted)
                except NotFound:
                    raise
                except (Unavailable, Conflict) as error:
                    passing.append(error)

        try:
            async with asyncio.TaskGroup() as tasks:
                for wanted in missing:
                    tasks.create_task(one(wanted))
        except* ComityError as failures:
            raise first_error(failures) from None
        return passing

    async def _one(self, wanted: MissingObject) -> None:
        data, path = self.objects.get(wanted.digest), self.files.get(wanted.digest)
        header = UploadHeader(self.submission, wanted.digest, wanted.size, wanted.received)
        if data is not None:
            await self.uplink.client.upload(header, _parts(data, wanted.received))
        elif path is None:
            why = "nothing that these statements name has that digest"
            raise NotFound(f"{self.uplink.name} asks for {short(wanted.digest)}", why=why)
        elif self.link:
            await self.uplink.client.within(limits.LONGEST_CALL).adopt(path.absolute(), wanted.digest, wanted.size)
            self.on_event(Progress(path.name, wanted.size))
        else:
            await self.uplink.client.upload(header, _chunks(path, wanted.received, self.on_event))


def _inline(objects: Mapping[Digest, bytes]) -> list[InlineObject]:
    """As many of the objects, smallest first, as one message takes."""
    chosen, room = [], INLINE_BYTES
    for digest, data in sorted(objects.items(), key=lambda item: len(item[1])):
        room -= len(data)
        if room < 0:
            break
        chosen.append(InlineObject(digest, data))
    return chosen


def _checked(uplink: Uplink, lines: Sequence[bytes], receipts: tuple[SubmitReceipt, ...]) -> tuple[SubmitReceipt, ...]:
    if len(receipts) != len(lines) or any(receipt.origin != uplink.origin for receipt in receipts):
        raise Malformed(f"{uplink.name} gave receipts for something else", why="not these lines in its own log")
    return receipts


async def _parts(data: bytes, offset: int) -> AsyncIterator[bytes]:
    for start in range(offset, len(data), limits.CHUNK):
        yield data[start : start + limits.CHUNK]


async def _chunks(path: Path, offset: int, on_event: OnEvent) -> AsyncIterator[bytes]:
    with disk_errors(f"{path} was not read"), path.open("rb", buffering=0) as file:
        file.seek(offset)
        while chunk := await asyncio.to_thread(file.read, limits.CHUNK):
            yield chunk
            on_event(Progress(path.name, len(chunk)))


async def _reached(node: RemoteNode) -> NodeClient:
    """The node at the first of its addresses that answers."""

    async def here(client: NodeClient) -> NodeClient:
        await client.node()
        return client

    return await node.ask(here)


async def _own_record(client: NodeClient) -> NodeRecord:
    """The node's record, proven by the identity of the member that it claims."""
    facts = await client.node()
    if facts.node_record is None or not facts.identity:
        raise Unavailable("the node has no record yet", why="it belongs to no member", hint="comity init --help")
    inception = check_inception(parse_entry(facts.identity[0]))
    return check_node_record(parse_entry(facts.node_record), inception.keys)
