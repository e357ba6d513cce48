"""Has a node on this machine load a bundle, which is served to it as a peer would, by the calls of comity.v1.

The node reads it with the client, the limits and the checks that it has for peers. Consistency proofs are computed from
the tree's edge where the bundle starts and the entries that it carries. The Unix socket is in a folder that only this
user can list; other users of this machine who know its name could read the bundle, and nothing else.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from comity.rules.tree_proofs import consistency_proof
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, NotFound, Refused, Unavailable, Untrusted
from comity.trust.tlog.merkle import leaf_hash, node_hash
from comity.wire import limits
from comity.wire.access import Caller, OperatorAccess
from comity.wire.blob import BlobLocation, BlobStat, small_of
from comity.wire.bundle import LoadedArtifact, LoadedCharter, LoadedLog, LoadEnded
from comity.wire.charter import AskReceipt, JoinRequest
from comity.wire.client import NodeClient
from comity.wire.fields import read_line
from comity.wire.log import LocatedProof, LogHead, ShownMisbehaviour
from comity.wire.messages import LocatedEntry
from comity.wire.node import Charter
from comity.wire.server import make_server
from comity.wire.services import Services
from comity.wire.throttle import Allowance, Throttle

from comity_client.bundles.contents import CarriedLog, parse_misbehaviour_proof
from comity_client.bundles.folder import BundleFolder
from comity_client.events import OnEvent, Progress, Started, ignore_event, in_thread

CHUNK_BYTES: Final = 16 * 1024 * 1024
"""The largest size of a file of entries."""
ANSWER_ENTRIES: Final = 256
PREFIX: Final = ".load-"
SOCKET: Final = "s"
"""Short, because the path of a socket has at most 107 bytes."""
TREES: Final = 4
"""Trees in memory: 64 bytes for each entry of a log."""


class CarriedTree:
    """The part of a log's tree that a bundle can compute: complete subtrees on its edge at the start, and to the right
    of it. No I/O.

    Args:
        leaves: the hashes of the entries from `log.start.size` on.
    """

    def __init__(self, log: CarriedLog, leaves: Sequence[bytes]) -> None:
        self._nodes: dict[tuple[int, int], bytes] = {}
        size, at = log.start.size, 0
        for hash_, level in zip(log.start.hashes, _levels(size), strict=True):
            self._nodes[level, at >> level] = hash_
            at += 1 << level
        for index, leaf in enumerate(leaves, size):
            self._add(index, leaf)

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """Raises NotFound if `old` is before the start."""
        return consistency_proof(old, new, self._node)

    def _add(self, index: int, subtree: bytes) -> None:
        level = 0
        self._nodes[0, index] = subtree
        while index & 1:
            left = self._nodes.get((level, index - 1))
            if left is None:
                return
            subtree, level, index = node_hash(left, subtree), level + 1, index >> 1
            self._nodes[level, index] = subtree

    def _node(self, level: int, index: int) -> bytes:
        found = self._nodes.get((level, index))
        if found is None:
            raise NotFound("no such proof in this bundle", why="it is about entries before its start", code="GAP")
        return found


def _levels(size: int) -> list[int]:
    """The levels of the complete subtrees on the edge of a tree, largest first."""
    return [level for level in reversed(range(size.bit_length())) if size >> level & 1]


class CarriedLogs:
    """Implements `LogService` from a bundle."""

    def __init__(self, folder: BundleFolder) -> None:
        self._folder = folder
        self._logs = {log.log: (number, log) for number, log in enumerate(folder.index.logs)}
        self._starts = {number: _starts(folder, number) for number, _ in self._logs.values()}
        self._trees: dict[str, CarriedTree] = {}
        self._chunk: tuple[str, list[bytes]] = ("", [])

    async def logs(self) -> AsyncGenerator[LogHead, None]:
        for log, (number, _) in self._logs.items():
            with suppress(NotFound):  # on a disk that is not here
                note = await asyncio.to_thread(self._folder.file, _checkpoint(number), limits.NOTE)
                yield LogHead(log.partition("+")[0], log, note)

    async def checkpoint(self, origin: str, index: int | None = None, up_to: int | None = None) -> bytes:
        number, log = self._named(origin)
        if up_to is not None and up_to < log.end.size:
            why = f"the one checkpoint of {log.origin} here is of {log.end.size} entries"
            raise NotFound("no earlier checkpoint in a bundle", why=why, code="NO-CHECKPOINT")
        return await asyncio.to_thread(self._folder.file, _checkpoint(number), limits.NOTE)

    async def entries(self, origin: str, start: int, end: int) -> Sequence[bytes]:
        number, log = self._named(origin)
        if start < log.start.size:
            why = f"it starts at entry {log.start.size} of {log.origin}, and entry {start} is wanted"
            raise NotFound("an earlier bundle is missing", why=why, hint="load the earlier bundles first", code="GAP")
        return await asyncio.to_thread(self._lines, number, start, min(end, log.end.size))

    async def inclusion(self, origin: str, index: int, size: int) -> tuple[bytes, ...]:
        raise NotFound("no inclusion proofs in a bundle", why="they follow from its entries", code="NO-PROOF")

    async def consistency(self, origin: str, old_size: int, new_size: int) -> tuple[bytes, ...]:
        number, log = self._named(origin)
        if old_size < log.start.size or new_size > log.end.size:
            why = f"it has {log.origin} from entry {log.start.size} to {log.end.size}; entry {old_size} is wanted"
            raise NotFound("an earlier bundle is missing", why=why, hint="load the earlier bundles first", code="GAP")
        tree = self._trees.get(origin)
        if tree is None:
            if len(self._trees) >= TREES:
                self._trees.clear()
            tree = self._trees[origin] = await asyncio.to_thread(self._tree, number, log)
        return tree.consistency(old_size, new_size)

    async def proofs(self, line_digest: Digest, origin: str | None = None) -> AsyncGenerator[LocatedProof, None]:
        raise NotFound("no inclusion proofs in a bundle", why="they follow from its entries", code="NO-PROOF")
        yield  # makes this a generator

    async def misbehaviour(self) -> AsyncGenerator[ShownMisbehaviour, None]:
        for number in range(limits.MISBEHAVIOUR):
            path = f"misbehaviour/{number:05d}"
            if not self._folder.has(path):
                return
            data = await asyncio.to_thread(self._folder.file, path, 4 * limits.PROOF * limits.MISBEHAVIOUR_PARTS)
            yield ShownMisbehaviour(*parse_misbehaviour_proof(data))

    def _named(self, log: str) -> tuple[int, CarriedLog]:
        if log not in self._logs:
            raise NotFound("no such log in this bundle", why=log.partition("+")[0])
        return self._logs[log]

    def _lines(self, number: int, start: int, end: int) -> list[bytes]:
        """Some lines from `start`. Blocking."""
        begin = max((at for at in self._starts[number] if at <= start), default=None)
        if begin is None or start >= end:
            return []
        path = f"logs/{number:05d}/{begin:012d}.lines"
        chunk = self._chunk
        if chunk[0] != path:
            chunk = self._chunk = path, split_lines(self._folder.file(path, CHUNK_BYTES))
        return chunk[1][start - begin : min(end, start + ANSWER_ENTRIES) - begin]

    def _tree(self, number: int, log: CarriedLog) -> CarriedTree:
        """Blocking."""
        leaves = list[bytes]()
        while len(leaves) < log.end.size - log.start.size:
            lines = self._lines(number, log.start.size + len(leaves), log.end.size)
            if not lines:
                raise NotFound("entries of a log are not in this bundle", why=log.origin, code="GAP")
            leaves += map(leaf_hash, lines)
        return CarriedTree(log, leaves)


def split_lines(data: bytes) -> list[bytes]:
    """The lines of a file of entries. Raises Malformed."""
    lines = data.split(b"\n")
    if lines.pop():
        raise Malformed("a file of entries is malformed", why="its last line has no end", code="BUNDLE")
    return [read_line(line) for line in lines]


def _starts(folder: BundleFolder, number: int) -> list[int]:
    prefix = f"logs/{number:05d}/"
    paths = (file.path for file in folder.layout.files if file.path.startswith(prefix))
    return [int(path.removeprefix(prefix)[:12]) for path in paths if path.endswith(".lines")]


def _checkpoint(number: int) -> str:
    return f"logs/{number:05d}/checkpoint"


class CarriedBlobs:
    """Implements `BlobService` from a bundle."""

    def __init__(self, folder: BundleFolder, on_sent: Callable[[int], None]) -> None:
        self._folder = folder
        self._on_sent = on_sent

    async def stat(self, digests: Sequence[Digest]) -> tuple[BlobStat, ...]:
        return tuple(self._stat(digest) for digest in digests)

    def small(self, digests: Sequence[Digest]) -> AsyncGenerator[Sequence[tuple[Digest, bytes]], None]:
        return small_of(self, digests)

    async def records(self, digest: Digest, layout: str) -> bytes:
        return await asyncio.to_thread(self._folder.records, digest, layout)

    async def locations(self, digest: Digest) -> tuple[BlobLocation, ...]:
        return ()

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        blocks = self._folder.read_blob(digest, offset, length)
        while (data := await asyncio.to_thread(next, blocks, b"")) != b"":
            yield data
            self._on_sent(len(data))

    def _stat(self, digest: Digest) -> BlobStat:
        try:
            return BlobStat(digest, True, self._folder.blob_size(digest))
        except NotFound:
            return BlobStat(digest, False, 0)


class CarriedCharters:
    """Implements `CharterService` from a bundle."""

    def __init__(self, folder: BundleFolder) -> None:
        self._folder = folder

    async def epochs(self, start: int = 0) -> AsyncGenerator[Charter, None]:
        index = self._folder.index
        if not index.first_epoch <= start < index.first_epoch + index.epochs:
            raise NotFound("no such charter", why=f"epoch {start} is not in this bundle", code="NO-CHARTER")
        for epoch in range(start, index.first_epoch + index.epochs):
            body = await asyncio.to_thread(self._folder.file, f"charter/{epoch:06d}.body", limits.CHARTER_BODY)
            path = f"charter/{epoch:06d}.certificate"
            lines = split_lines(await asyncio.to_thread(self._folder.file, path, limits.ANSWER))
            yield Charter(epoch, body, tuple(lines))

    async def next_epoch_entries(self, prev: Digest | None = None) -> AsyncGenerator[LocatedEntry, None]:
        raise NotFound("no list of statements in a bundle", why="they are in its logs", code="NO-CHARTER")
        yield  # makes this a generator

    async def ask(self, caller: Caller, lines: Sequence[bytes]) -> AskReceipt:
        raise Refused("a bundle takes nothing", why="it is read only")

    async def asks(self) -> AsyncGenerator[JoinRequest, None]:
        return
        yield  # makes this a generator


@asynccontextmanager
async def served(folder: BundleFolder, beside: Path, on_sent: Callable[[int], None]) -> AsyncIterator[Path]:
    """Serve a bundle while the block runs. Yields the socket.

    Args:
        beside: the operator socket of the node: the new socket is in the same folder if this user may write there,
            because the node may not see this user's temporary folder.
        on_sent: called with the number of bytes of objects and files that the node has read.
    """
    services = Services(log=CarriedLogs(folder), blob=CarriedBlobs(folder, on_sent), charter=CarriedCharters(folder))
    allowance = Allowance(calls_per_second=100_000.0, burst=100_000, at_once=64)
    server = make_server(OperatorAccess(), services, Throttle(allowance), connections=16)
    place = beside.parent if os.access(beside.parent, os.W_OK) else Path(tempfile.gettempdir())
    _remove_abandoned(place)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=place) as made:
        Path(made).chmod(0o711)
        path = Path(made) / SOCKET
        try:
            server.add_secure_port(f"unix:{path}", OperatorAccess().credentials())
        except RuntimeError as error:
            raise Unavailable("the bundle cannot be served", why=f"{path}: {error}", code="LISTEN") from error
        await server.start()
        path.chmod(0o666)
        try:
            yield path
        finally:
            await server.stop(1.0)


def _remove_abandoned(place: Path) -> None:
    """Remove what loads left that were killed: nobody listens there any more."""
    for folder in place.glob(f"{PREFIX}*"):
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            if probe.connect_ex(os.fsencode(folder / SOCKET)) == errno.ECONNREFUSED:
                shutil.rmtree(folder)


@dataclass(slots=True)
class LoadResult:
    """What the node took, and what it did not, each with the node's reason.

    Attributes:
        disks: disks that were read, and those of the bundle.
        damaged: why a disk that was named was not read, by its folder.
        restored: whether a disk was restored from parity.
    """

    disks: tuple[int, int]
    damaged: dict[str, str]
    restored: bool
    charter: LoadedCharter | None = None
    logs: list[LoadedLog] = field(default_factory=list)
    artifacts: list[LoadedArtifact] = field(default_factory=list)
    not_listed: int = 0

    @property
    def changed(self) -> bool:
        """Whether the node has anything that it did not have before."""
        grown = self.charter is not None and self.charter.now > self.charter.before
        return grown or any(log.now > log.before for log in self.logs) or any(not item.code for item in self.artifacts)

    @property
    def refused(self) -> list[LoadedCharter | LoadedLog | LoadedArtifact]:
        """What was not taken."""
        every: list[LoadedCharter | LoadedLog | LoadedArtifact] = [*self.logs, *self.artifacts]
        if self.charter is not None:
            every.insert(0, self.charter)
        return [item for item in every if item.code]


async def load_bundle(
    folders: Sequence[Path],
    socket: Path,
    *,
    check: bool = False,
    on_event: OnEvent = ignore_event,
) -> LoadResult:
    """Have the node with this operator socket load the bundle in `folders`. Repeat it to continue.

    Args:
        check: read every file first, and compare it with the list of contents.

    Raises NotFound (NO-BUNDLE), Malformed and Untrusted (BUNDLE, WRONG-FEDERATION) before the node is asked to take
    anything; Conflict (LOADING); Unavailable.
    """
    bundle = await asyncio.to_thread(BundleFolder.open, folders)
    async with NodeClient.operator(socket) as client:
        await _require_federation(client, bundle)
        if check:
            await _check(bundle, on_event)
        code = bundle.index.code
        here = sum(number < code.data for number in bundle.disks)
        result = LoadResult((len(bundle.disks), code.total), bundle.damaged, bundle.whole and here < code.data)
        on_event(Started(len(bundle.layout.files), bundle.index.size, 0, bundle.index.size))
        async with served(bundle, socket, lambda count: on_event(Progress("", count))) as source:
            while not await _pass(client, source, result):
                pass
    return result


async def _pass(client: NodeClient, source: Path, result: LoadResult) -> bool:
    """One call. Returns whether the node has finished."""
    artifacts = {item.artifact: item for item in result.artifacts}
    logs = {log.log: log for log in result.logs}
    async with aclosing(client.bundles.load(source)) as events:
        async for event in events:
            match event:
                case LoadedCharter():
                    before = result.charter.before if result.charter else event.before
                    result.charter = LoadedCharter(before, event.now, event.why, event.code)
                case LoadedLog():
                    begun = logs[event.log].before if event.log in logs else event.before
                    logs[event.log] = replace(event, before=begun)
                case LoadedArtifact():
                    artifacts[event.artifact] = event
                case LoadEnded():
                    result.logs, result.artifacts = list(logs.values()), list(artifacts.values())
                    result.not_listed = event.not_listed
                    return event.finished
    raise Malformed("the node ended the load without a result", why="its last event is missing")


async def _require_federation(client: NodeClient, bundle: BundleFolder) -> None:
    """Raises Untrusted (WRONG-FEDERATION)."""
    try:
        federation: str = sha256((await client.charter(0)).body)
    except NotFound:
        federation = ""
    if federation != bundle.index.federation:
        why = f"it says {bundle.index.federation[:16] or 'none'}, the node follows {federation[:16] or 'none'}"
        raise Untrusted("this bundle is of another federation", why=why, hint="comity status", code="WRONG-FEDERATION")


async def _check(bundle: BundleFolder, on_event: OnEvent) -> None:
    """Raises Untrusted (BUNDLE)."""
    on_event(Started(len(bundle.layout.files), bundle.index.size, 0, bundle.index.size))
    bad = await in_thread(lambda report: bundle.check(lambda count: report(Progress("", count))), on_event)
    if bad:
        why = f"{len(bad)} files are not as listed, such as {bad[0]}"
        raise Untrusted("this bundle is damaged", why=why, hint="copy it again from where it was made", code="BUNDLE")
