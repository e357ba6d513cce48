"""Entries that are uploaded for a pending checkpoint.

Add-entries stores entries that a client uploads, each package proven against a pending checkpoint:

(1) the log is mirrored here, and not the node's own                                                    else 404
(2) a checkpoint of that log is pending                                                                 else 422
(3) `end` is the size of a recent pending checkpoint, not below the mirrored size; `start` is the next
    entry or slightly before                                                                            else 409
(4) each package is proven to be in the tree of `end` leaves                                            else 422
(5) the side objects of its statements are here, and the log is within its quota                  else 503, 507
(6) new entries are durable before the next package is read
(7) when all entries are here, the log advances to the checkpoint, and the cosigner of the node signs it

A body that ends early is not an error: proven entries are kept, and the response (202) says where to continue.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeVar

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from comity.gateway.http import ConnectionSlots
from comity.gateway.tlog.logs import KnownLogs
from comity.gateway.tlog.witness import WitnessRoutes
from comity.ledger.entry_rows import named_objects
from comity.ledger.ledger import Ledger
from comity.ledger.log_store import LogState
from comity.node.home import ServedHome
from comity.node.replication.setup import ReplicationTasks
from comity.node.replication.side_objects import missing_side_objects
from comity.rules.misbehaviour import ROOTS
from comity.rules.tiles import WIDTH
from comity.rules.witness import MAX_PROOF_HASHES, MirrorInfo, MirrorUpload, Package, encode_signatures
from comity.trust.errors import Conflict, Equivocation, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.tlog.merkle import HASH_SIZE
from comity.trust.tlog.note import Checkpoint, NoteSignature, SignedNote, VerifierKey

_log: Final = structlog.get_logger("comity.gateway")


_CHUNK: Final = 64 * 1024


class RequestBody:
    """Reads the body of `request` in parts, decompressing gzip; at most one package and a part of the next are in
    memory.

    A body that ends early, disconnects or grows too large counts as ended; data after the last complete part are
    dropped, as tlog-mirror requires. Raises Malformed (ENCODING) for another content encoding.
    """

    def __init__(self, request: Request) -> None:
        coding = request.headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("identity", "gzip"):
            raise Malformed("unsupported content encoding", why=f"{coding[:40]!r}", code="ENCODING")
        stream = _whole(request.stream())
        self._parts = _unpacked(stream) if coding == "gzip" else stream
        self._buffer = bytearray()

    async def upload(self) -> MirrorUpload:
        """Return the head. Raises Malformed, also if the body ends in it."""
        head = await self._prefixed()
        numbers = await self._exactly(16)
        ticket = await self._prefixed()
        if head is None or numbers is None or ticket is None:
            raise Malformed("not an upload", why="the body ends in its head", code="ADD-ENTRIES")
        start, end = struct.unpack(">QQ", numbers)
        try:
            return MirrorUpload(head.decode("utf-8"), start, end, ticket)
        except UnicodeDecodeError as error:
            raise Malformed("not an upload", why="the origin is not UTF-8", code="ADD-ENTRIES") from error

    async def package(self, package: Package) -> tuple[list[bytes], list[bytes]] | None:
        """Return the entries and hashes of the next package; None if the body ends before the end of the package.

        Raises Untrusted (SUBTREE) for more hashes than a proof has.
        """
        entries: list[bytes] = []
        while len(entries) < package.end - package.start:
            if (entry := await self._prefixed()) is None:
                return None
            entries.append(entry)
        if (count := await self._exactly(1)) is None:
            return None
        if count[0] > MAX_PROOF_HASHES:
            raise Untrusted("bad subtree proof", why=f"{count[0]} hashes, at most {MAX_PROOF_HASHES}", code="SUBTREE")
        if (hashes := await self._exactly(count[0] * HASH_SIZE)) is None:
            return None
        return entries, [hashes[at : at + HASH_SIZE] for at in range(0, len(hashes), HASH_SIZE)]

    async def _prefixed(self) -> bytes | None:
        length = await self._exactly(2)
        return None if length is None else await self._exactly(int.from_bytes(length, "big"))

    async def _exactly(self, size: int) -> bytes | None:
        while len(self._buffer) < size:
            part = await anext(self._parts, None)
            if part is None:
                return None
            self._buffer += part
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data


async def _whole(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield `parts` until the client disconnects, stalls, or sends too much."""
    try:
        async for part in parts:
            yield part
    except (ClientDisconnect, Malformed, TimeoutError):
        return


async def _unpacked(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield decompressed data in small parts; invalid gzip ends it."""
    unpacker = zlib.decompressobj(wbits=31)
    async for part in parts:
        while part and not unpacker.eof:
            try:
                yield unpacker.decompress(part, _CHUNK)
            except zlib.error:
                return
            part = unpacker.unconsumed_tail


MAX_PACKAGES: Final = 64
"""Maximum number of packages per request; clients are told to send half as many."""
MAX_OVERLAP: Final = 32 * WIDTH
"""Maximum number of entries that a request may repeat."""
AT_ONCE: Final = 4
"""Maximum number of concurrent uploads; each may hold a package of up to 16 MiB in memory."""
DEADLINE: Final = 300.0
"""Maximum seconds of one upload."""

_GZIP: Final = {"Accept-Encoding": "gzip"}

T = TypeVar("T")


class MirrorRoutes:
    """Handlers for uploads of entries. Not thread-safe: call from the event loop."""

    def __init__(
        self, home: ServedHome, replication: ReplicationTasks, known: KnownLogs, submissions: WitnessRoutes
    ) -> None:
        self._ledger = home.ledger
        self._store = home.store
        self._pools = home.pools
        self._quotas = replication.quotas
        self._misbehaviour = replication.misbehaviour
        self._cosigner = replication.cosigner
        self._on_advance = replication.advanced
        self._known = known
        self._submissions = submissions
        self._slots = ConnectionSlots(AT_ONCE, "uploads")
        self._locks: defaultdict[VerifierKey, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def add_entries(self, request: Request) -> Response:
        """`POST add-entries`."""
        async with self._slots.slot(request.scope) as progress:
            body = RequestBody(request)
            upload = await body.upload()
            key, note = await self._pending(upload)  # (1), (2)
            state = await self._state(key)
            if note is None or not self._fits(upload, state):  # (3)
                return await self._mirror_info(key, upload.end if note else None)
            try:
                whole = await self._receive(key, upload, note, body, progress)
                lines = await self._commit(key, note) if whole else ()
            except Conflict as error:
                if error.code != "LOG-MOVED":
                    raise
                return await self._mirror_info(key, upload.end)
            if not whole:
                return await self._mirror_info(key, upload.end, status=202)
            return Response(encode_signatures(lines), 200, _GZIP, "text/plain; charset=utf-8")

    async def _pending(self, upload: MirrorUpload) -> tuple[VerifierKey, SignedNote | None]:
        """Return the log of the upload, and its checkpoint of size `end`, None if that is not pending.

        Of several logs of one origin, the first for which `end` is pending is used. Raises NotFound (UNKNOWN-LOG),
        Untrusted (NO-PENDING) if no checkpoint was submitted, and as `WitnessRoutes.admit` does.
        """
        keys = await self._known.mirrored(upload.origin)
        if not keys:
            raise NotFound("the log is not mirrored here", why="the operator has not added it", code="UNKNOWN-LOG")
        pending = {key: found for key in keys if (found := await self._submissions.pending(key))}
        if not pending:
            raise Untrusted("no checkpoint is pending", why="add-checkpoint comes first", code="NO-PENDING")
        chosen = next((key for key, found in pending.items() if upload.end in found), next(iter(pending)))
        self._submissions.admit(chosen)
        return chosen, pending[chosen].get(upload.end)

    async def _state(self, key: VerifierKey) -> LogState:
        return await self._ledger.run(_get_or_create, self._ledger.tables, key)

    @staticmethod
    def _fits(upload: MirrorUpload, state: LogState) -> bool:
        return state.size <= upload.end and state.staged - MAX_OVERLAP <= upload.start <= state.staged

    async def _mirror_info(self, key: VerifierKey, end: int | None, *, status: int = 409) -> Response:
        """Return the response that tells the client where to continue."""
        state, pending = await self._state(key), await self._submissions.pending(key)
        size = end if end is not None and end >= state.size else max(pending)
        body = MirrorInfo(size, state.staged).encode()
        return Response(body, status, _GZIP | {"Content-Type": "text/x.tlog.mirror-info"})

    async def _receive(
        self, key: VerifierKey, upload: MirrorUpload, note: SignedNote, body: RequestBody, progress: Callable[[], None]
    ) -> bool:
        """Store the packages of the body; returns whether it was complete. Raises the refusal of a package, and
        Malformed (ADD-ENTRIES) if there was no complete package."""
        checkpoint, until = Checkpoint.parse(note.text), asyncio.get_running_loop().time() + DEADLINE
        for count, package in enumerate(upload.packages()):
            received = await _until_deadline(until, body.package(package)) if count < MAX_PACKAGES else None
            if received is None:
                if not count:
                    raise Malformed("not an upload", why="it ends within its first package", code="ADD-ENTRIES")
                return False
            await self._stage(key, checkpoint, package, *received)
            progress()
        return True

    async def _stage(
        self, key: VerifierKey, target: Checkpoint, package: Package, lines: Sequence[bytes], proof: Sequence[bytes]
    ) -> None:
        logs, ledger = self._ledger.tables.logs, self._ledger.run
        before = await ledger(logs.staged_leaves, str(key), package.first, package.start)
        await self._pools.hashing(package.verify, before, lines, proof, target.size, target.root)  # (4)
        await self._pools.files(self._require_objects, lines)  # (5)
        async with self._locks[key]:
            fresh = max(0, (await self._state(key)).staged - package.start)
            if fresh < len(lines):
                await self._quotas.require(key, target.size, lines[fresh:])
                await ledger(logs.stage, str(key), package.start + fresh, lines[fresh:])  # (6)

    def _require_objects(self, lines: Sequence[bytes]) -> None:
        """Blocking. Raises Unavailable (SIDE-OBJECT) if an object that a line names is missing."""
        named = [item for line in lines for item in named_objects(line)]
        if missing := missing_side_objects(self._store, named):
            why = f"{len(missing)} objects that these entries name are missing, first {missing[0].digest}"
            raise Unavailable("side objects are missing", why=why, code="SIDE-OBJECT")

    async def _commit(self, key: VerifierKey, note: SignedNote) -> tuple[NoteSignature, ...]:
        """Advance the log to the checkpoint and sign it (7). Raises Conflict if the log is larger already."""
        target = Checkpoint.parse(note.text)
        async with self._locks[key]:
            state = await self._state(key)
            if state.size > target.size:
                raise Conflict("the log is larger already", why=f"it has {state.size} entries", code="LOG-MOVED")
            try:
                await self._ledger.run(self._ledger.tables.logs.advance, str(key), target.size, [], note)
            except Equivocation as error:
                await self._misbehaviour.keep(ROOTS, key, error.proof)
                raise
        await self._on_advance(str(key))
        await self._cosigner.cosign_if_due(key)
        cosigned = await self._ledger.run(self._ledger.tables.cosignatures.all, str(key), target.size)
        cosigners = self._cosigner.cosigners
        lines = tuple(line for line in cosigned.signatures if any(line.by(own) for own in cosigners))
        if not lines:
            why = "the node has just started, or the log has grown"
            raise Unavailable("not signed yet", why=why, hint="send the same request again", code="UNSIGNED")
        _log.info("mirrored", origin=key.name, size=target.size, pushed=True)
        return lines


def _get_or_create(ledger: Ledger, key: VerifierKey) -> LogState:
    """Blocking. Return the state of the log; create the log if it is missing."""
    try:
        return ledger.logs.get(str(key))
    except NotFound:
        return ledger.logs.create(key.name, str(key))


async def _until_deadline(until: float, part: Awaitable[T | None]) -> T | None:
    """Return `part`, or None on timeout: then the body counts as ended."""
    try:
        async with asyncio.timeout_at(until):
            return await part
    except TimeoutError:
        return None
