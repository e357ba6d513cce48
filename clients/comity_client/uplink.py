"""Submit statements to one node: through its open port if its operator allows it, or through its operator socket.

Missing objects are uploaded in rounds. A node that makes no progress, or asks too often, is given up; one that limits
the rate of calls is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from comity.content.durable import disk_errors
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, Refused, Unavailable, Untrusted
from comity.trust.frozen import frozen
from comity.trust.identity import check_inception
from comity.trust.node_records import NodeRecord, check_node_record
from comity.trust.statement import parse_entry
from comity.trust.tlog.note import VerifierKey
from comity.wire import limits
from comity.wire.asking import patiently
from comity.wire.client import NodeClient
from comity.wire.publish import InlineObject, MissingObject, SubmitReceipt, UploadHeader

from comity_client.events import OnEvent, Progress, first_error
from comity_client.own_node import local_socket
from comity_client.session import RemoteNode, Session, Target

INLINE_BYTES: Final = 2 * 1024 * 1024
"""Maximum total bytes of small objects sent with the lines; other objects are uploaded."""
UPLOADS_AT_ONCE: Final = 4
MAX_IDLE_ROUNDS: Final = 5
"""Rounds in a row without progress, after which the submission fails. Received data are not sent again."""
MAX_ROUNDS: Final = 1_000
"""Maximum number of rounds, for nodes that accept a byte per round or ask for the same objects in turn."""
RETRY_DELAY: Final = 0.5


@frozen
class Uplink:
    """A connection to one node with a log, and the key of its log. `operator`: through the operator socket."""

    client: NodeClient
    name: str
    log: VerifierKey
    operator: bool

    @property
    def origin(self) -> str:
        return self.log.name


@asynccontextmanager
async def open_uplink(session: Session, target: Target) -> AsyncIterator[Uplink]:
    """Connect to a node of a pinned federation by name, address, URL or as a home log, or to a node on this machine by
    its operator socket or its home. A folder that is called like a pinned node, and whose node does not run, is that
    node's name.

    Raises NotFound, Unavailable, Refused; Untrusted if the node behind the socket does not match its pinned record.
    """
    socket = local_socket(target) if isinstance(target, str) else None
    if socket is not None and not socket.is_socket() and any(node.name == target for node in session.nodes):
        socket = None
    if socket is None:
        node = session.named(target) if isinstance(target, str) else session.home_node(target.home)
        yield Uplink(await _reached(node), node.name, node.record.log, operator=False)
        return
    async with NodeClient.operator(socket) as client:
        record = await _own_record(client)
        for node in session.nodes:
            same = (node.record.member, node.record.origin) == (record.member, record.origin)
            if same and node.record.log != record.log:
                why = f"its log {record.origin} has another key than in the pinned federation"
                raise Untrusted(f"{target} is not the pinned node", why=why, code="NODE-RECORD")
        yield Uplink(client, record.name, record.log, operator=True)


async def find_node(session: Session, target: str) -> RemoteNode:
    """Find the node of a pinned federation that `target` names as for `open_uplink`. Raises NotFound, Unavailable,
    Refused, Untrusted."""
    socket = local_socket(target)
    if socket is None or any(node.name == target for node in session.nodes):
        return session.named(target)
    async with open_uplink(session, target) as uplink:
        return session.named(str(uplink.log))


async def log_lines(
    uplink: Uplink,
    lines: Sequence[bytes],
    objects: Mapping[Digest, bytes],
    files: Mapping[Digest, Path],
    *,
    link: bool,
    on_event: OnEvent,
) -> tuple[SubmitReceipt, ...]:
    """Have the node log `lines`, and upload the objects that it lacks. Repeated calls are safe.

    Args:
        objects, files: everything that the lines name, by digest.
        link: have the node adopt files from this disk instead of sending them; needs the operator socket.

    Returns one receipt per line: a claim until a checkpoint proves it. Raises Refused, Untrusted, OutOfSpace,
    Unavailable (ASKED-AGAIN if the node keeps asking), NotFound if it asks for an object that is not here, and Conflict
    (CHANGED) if a file is no longer what it was.
    """
    if link and not uplink.operator:
        hint = "name the operator socket: --node PATH"
        raise Refused(f"{uplink.name} takes no files by link here", why="only its operators may", hint=hint)
    inline = _inline(objects)
    progress, failures, rounds_without_progress = _UploadProgress(), list[ComityError](), 0
    counted = _CountedFiles(files, on_event)
    for _ in range(MAX_ROUNDS):
        submitted = await patiently(partial(uplink.client.submit, lines, inline))
        if submitted.receipts:
            counted.whole_except(())
            return _checked(uplink, lines, submitted.receipts)
        rounds_without_progress = 0 if progress.update(submitted.missing) else rounds_without_progress + 1
        if rounds_without_progress == MAX_IDLE_ROUNDS:
            break
        counted.whole_except(submitted.missing)
        upload = _Upload(uplink, submitted.submission, objects, files, link, counted)
        failures = await upload.send(submitted.missing)
        if failures:
            await asyncio.sleep(RETRY_DELAY * 2**rounds_without_progress)
        inline = []
    if failures:
        raise failures[0]
    raise Unavailable(
        f"{uplink.name} logs nothing",
        why="the node asks again for objects that it received completely",
        hint="use another node: --node NAME",
        code="ASKED-AGAIN",
    )


class _CountedFiles:
    """Reports the bytes of files that one node has: each once, whether they are sent now, were sent before, or again.
    Not thread-safe."""

    def __init__(self, files: Mapping[Digest, Path], on_event: OnEvent) -> None:
        self._files = files
        self._on_event = on_event
        self._done: dict[Digest, int] = {}

    def reached(self, digest: Digest, count: int) -> None:
        """The node has the first `count` bytes of a file."""
        path, more = self._files.get(digest), count - self._done.get(digest, 0)
        if path is not None and more > 0:
            self._done[digest] = count
            self._on_event(Progress(path.name, more))

    def whole_except(self, missing: Sequence[MissingObject]) -> None:
        """The node has every file that is not `missing`, and a part of those."""
        received = {item.digest: item.received for item in missing}
        for digest, path in self._files.items():
            self.reached(digest, received[digest] if digest in received else _size(path))


def _size(path: Path) -> int:
    """The bytes of a file; 0 if it is gone here, which is no fault where the node has it."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


class _UploadProgress:
    """Tracks the missing objects that a node reports in each round. Not thread-safe."""

    def __init__(self) -> None:
        self._received: dict[Digest, int] = {}
        self._whole: set[Digest] = set()

    def update(self, missing: Sequence[MissingObject]) -> bool:
        """Return whether the node has more than before: an object asked for the first time, more bytes of one, or a
        complete one."""
        lacking = {item.digest for item in missing}
        more = [item for item in missing if item.received > self._received.get(item.digest, -1)]
        whole = set(self._received) - lacking - self._whole
        self._received |= {item.digest: item.received for item in more}
        self._whole |= whole
        return bool(more or whole)


@frozen
class _Upload:
    """The upload of the missing objects of one submission."""

    uplink: Uplink
    submission: Digest
    objects: Mapping[Digest, bytes]
    files: Mapping[Digest, Path]
    link: bool
    counted: _CountedFiles

    async def send(self, missing: Sequence[MissingObject]) -> list[ComityError]:
        """Send each object once. Returns the transient failures; raises the others."""
        turn = asyncio.Semaphore(UPLOADS_AT_ONCE)
        passing: list[ComityError] = []

        async def one(sending: Callable[[], Awaitable[None]]) -> None:
            async with turn:
                try:
                    await patiently(sending)
                except NotFound:
                    raise
                except (Unavailable, Conflict) as error:
                    if error.code == "CHANGED":
                        raise
                    passing.append(error)

        try:
            async with asyncio.TaskGroup() as tasks:
                small = [] if self.link else [wanted for wanted in missing if _is_small(wanted)]
                if small:
                    tasks.create_task(one(partial(self._together, small)))
                for wanted in missing:
                    if self.link or not _is_small(wanted):
                        tasks.create_task(one(partial(self._one, wanted)))
        except* ComityError as failures:
            raise first_error(failures) from None
        return passing

    async def _together(self, small: Sequence[MissingObject]) -> None:
        """Send small objects with one call; one by one to a node of an older version."""
        size = sum(wanted.size for wanted in small)
        try:
            await self.uplink.client.upload_objects(self.submission, self._batches(small), size=size)
        except Unavailable as error:
            if error.code != "UNIMPLEMENTED":
                raise
            for wanted in small:
                await self._one(wanted)

    async def _batches(self, small: Sequence[MissingObject]) -> AsyncIterator[Sequence[InlineObject]]:
        """The objects, as many together as one message has. Raises Conflict (CHANGED)."""
        left = list(reversed(small))
        while left:
            some, size = list[MissingObject](), 0
            while left and size + left[-1].size <= limits.CHUNK:
                some.append(left.pop())
                size += some[-1].size
            yield await asyncio.to_thread(self._read_whole, some)
            for wanted in some:
                self.counted.reached(wanted.digest, wanted.size)

    def _read_whole(self, some: Sequence[MissingObject]) -> list[InlineObject]:
        return [self._whole(wanted) for wanted in some]

    def _whole(self, wanted: MissingObject) -> InlineObject:
        """A small object with its bytes. Blocking. Raises NotFound, and Conflict (CHANGED)."""
        if (data := self.objects.get(wanted.digest)) is None:
            path = self._path(wanted)
            with disk_errors(f"{path} was not read"), path.open("rb", buffering=0) as file:
                data = file.read(wanted.size)
            if sha256(data) != wanted.digest:
                raise _changed(path)
        return InlineObject(wanted.digest, data)

    def _path(self, wanted: MissingObject) -> Path:
        if (path := self.files.get(wanted.digest)) is None:
            why = "these statements name no object with that digest"
            raise NotFound(f"{self.uplink.name} asks for {short(wanted.digest)}", why=why)
        return path

    async def _one(self, wanted: MissingObject) -> None:
        data = self.objects.get(wanted.digest)
        header = UploadHeader(self.submission, wanted.digest, wanted.size, wanted.received)
        if data is not None:
            await self.uplink.client.upload(header, _parts(data, wanted.received))
        else:
            path = self._path(wanted)
            try:
                await self._file(path, header)
            except Untrusted as error:
                await asyncio.to_thread(_require_unchanged, path, wanted)
                if not wanted.received:
                    raise
                what, why = f"{self.uplink.name} had another beginning of {path.name}", "it is sent again as a whole"
                raise Unavailable(what, why=why, code="DIGEST") from error

    async def _file(self, path: Path, header: UploadHeader) -> None:
        if self.link:
            client = self.uplink.client.with_timeout(limits.LONGEST_CALL)
            await client.adopt(path.absolute(), header.digest, header.size)
            self.counted.reached(header.digest, header.size)
        else:
            await self.uplink.client.upload(header, self._chunks(path, header))

    async def _chunks(self, path: Path, header: UploadHeader) -> AsyncIterator[bytes]:
        """The bytes of a file, and no more than it had. Raises Conflict (CHANGED) if it has fewer."""
        at = header.offset
        with disk_errors(f"{path} was not read"), path.open("rb", buffering=0) as file:
            file.seek(at)
            while at < header.size:
                chunk = await asyncio.to_thread(file.read, min(limits.CHUNK, header.size - at))
                if not chunk:
                    raise _changed(path)
                yield chunk
                at += len(chunk)
                self.counted.reached(header.digest, at)


def _is_small(wanted: MissingObject) -> bool:
    return wanted.size <= limits.SMALL_OBJECT and not wanted.received


def _require_unchanged(path: Path, wanted: MissingObject) -> None:
    """Raise Conflict (CHANGED) unless a file still has the bytes that were hashed. Blocking."""
    from comity.verifier import hash_file  # loads what commands do not need that only ask nodes

    with disk_errors(f"{path} was not read"):
        found = hash_file(path, lambda count: None)
    if found != (wanted.size, wanted.digest):
        raise _changed(path)


def _changed(path: Path) -> Conflict:
    why = f"{path} no longer has the bytes that were hashed and signed"
    hint = "restore it and run the same command again, or publish what is there now as another version"
    return Conflict("a file changed while it was published", why=why, hint=hint, code="CHANGED")


def _inline(objects: Mapping[Digest, bytes]) -> list[InlineObject]:
    """Return as many objects, smallest first, as fit in one message."""
    chosen, remaining = [], INLINE_BYTES
    for digest, data in sorted(objects.items(), key=lambda item: len(item[1])):
        remaining -= len(data)
        if remaining < 0:
            break
        chosen.append(InlineObject(digest, data))
    return chosen


def _checked(uplink: Uplink, lines: Sequence[bytes], receipts: tuple[SubmitReceipt, ...]) -> tuple[SubmitReceipt, ...]:
    if len(receipts) != len(lines) or any(receipt.origin != uplink.origin for receipt in receipts):
        raise Malformed(f"{uplink.name} returned wrong receipts", why="they are not for these lines in its own log")
    return receipts


async def _parts(data: bytes, offset: int) -> AsyncIterator[bytes]:
    for start in range(offset, len(data), limits.CHUNK):
        yield data[start : start + limits.CHUNK]


async def _reached(node: RemoteNode) -> NodeClient:
    """Return a client at the first address of the node that answers."""

    async def here(client: NodeClient) -> NodeClient:
        await client.node()
        return client

    return await node.ask(here)


async def _own_record(client: NodeClient) -> NodeRecord:
    """Return the record of the node, proven by the identity of the member that it claims."""
    facts = await client.node()
    if facts.node_record is None or not facts.identity:
        raise Unavailable("the node has no record yet", why="the node belongs to no member", hint="comity init --help")
    inception = check_inception(parse_entry(facts.identity[0]))
    return check_node_record(parse_entry(facts.node_record), inception.keys)
