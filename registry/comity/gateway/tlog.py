"""The C2SP HTTP APIs of transparency logs, witnesses and mirrors, all under `/tlog`: tlog-tiles, tlog-witness,
tlog-mirror.

Logs are those that the node writes or mirrors, and outside logs that the operator added. The prefix of a log is the
SHA-256 of its origin, as tlog-mirror requires; if several keys share an origin, that of the first. Each log also has
the SHA-256 of its verifier key as a prefix. The cosigner of the node is a mirror and signs only logs that it stores.
The plain witness has another key and name, and signs checkpoints that extend those it signed before, without storing
entries.

Add-checkpoint checks the state of the log and stores the checkpoint:

(1) the body is an add-checkpoint request                                                               else 400
(2) the origin is a known log                                                                           else 404
(3) a known key of that origin signed the checkpoint, and the log has one history                       else 403
(4) the checkpoint is valid without extension lines, and not smaller than the old size                  else 400
(5) the old size is that of the newest checkpoint seen; the response gives that size                    else 409
(6) an empty log has the root of the empty tree; the proof is valid from the old to the new root        else 422
(7) the stored state has not changed since it was read                                                  else 409

For a mirrored log, entries may then be uploaded for the checkpoint; the mirror key does not sign here. For logs that
the operator named, the plain witness signs. Extension lines are refused because an ML-DSA cosignature would not cover
them.

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

Tiles are served up to the served checkpoint only: of the own log the newest, of a mirrored log the newest that the
cosigner of this node signed, as tlog-mirror requires. So a served tile never changes. For outside witnesses of the own
log see `comity.node.outside_witnesses`.
"""

from __future__ import annotations

import asyncio
import gzip
import struct
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeVar

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from comity.content.blobs import BlobStore
from comity.content.secrets import read_keys
from comity.gateway.http import ConnectionSlots, read_body
from comity.ledger.ledger import Ledger
from comity.ledger.log_store import LogState
from comity.ledger.records import WitnessedHead
from comity.node.config import Tlog
from comity.node.home import OpenedHome
from comity.node.keys import NodeKeys
from comity.node.members import Membership
from comity.node.own_log import OUTSIDE_MARK, LedgerMark
from comity.node.replication.cosigner import CheckpointCosigner
from comity.node.replication.mirror import Quotas, statement_of
from comity.node.replication.misbehaviour import MisbehaviourProofs
from comity.node.replication.setup import ReplicationTasks
from comity.node.replication.side_objects import missing_side_objects
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Conflict, Equivocation, Malformed, NotFound, Refused, Unavailable, Untrusted
from comity.trust.keys import PrivateKey
from comity.trust.statements import NodeRecord
from comity.trust.tlog.merkle import ENTRIES, HASH_SIZE, WIDTH, parse_tile_path, verify_consistency
from comity.trust.tlog.note import Checkpoint, NoteSignature, SignedNote, VerifierKey, cosign, cosigner_key, verify_note
from comity.trust.tlog.proof import ROOTS
from comity.trust.tlog.witness import (
    MAX_PROOF_HASHES,
    MAX_REQUEST,
    AddCheckpoint,
    MirrorInfo,
    MirrorUpload,
    Package,
    encode_signatures,
)

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


_log: Final = structlog.get_logger("comity.gateway")


class KnownLogs:
    """Logs by origin and by prefix. Not thread-safe: call from the event loop."""

    def __init__(self, ledger: AsyncLedger, membership: Membership, settings: Tlog, mark: LedgerMark) -> None:
        """Blocking. `mark` is the mark of what was signed for outside logs."""
        self._ledger = ledger
        self._membership = membership
        self._pushed = tuple(map(VerifierKey.parse, settings.mirror))
        self.witnessed = frozenset(map(VerifierKey.parse, settings.witness))
        """Logs that the plain witness signs."""
        self._ledger_copy_error = _ledger_copy_error(ledger.tables, mark, (*self._pushed, *self.witnessed))
        self._prefixes: dict[str, VerifierKey] = {}

    def require_original_ledger(self, key: VerifierKey) -> None:
        """Raise Unavailable (LEDGER-COPY) for an outside log if this ledger may be older than the last signature for
        outside logs."""
        if self._ledger_copy_error is not None and key not in self._membership.log_keys(key.name):
            raise self._ledger_copy_error

    async def stored_logs(self) -> list[VerifierKey]:
        """Return the logs whose entries are stored; of one origin, the first log comes first."""
        return await self._ledger.run(self._ledger.tables.logs.keys)

    async def mirrored(self, origin: str) -> tuple[VerifierKey, ...]:
        """Return the logs of `origin` that accept uploads: of members and outside ones, never the own log."""
        bound = self._membership.log_keys(origin)
        keys = [*await self.stored_logs(), *bound, *self._pushed]
        own = self._membership.seat.record.log
        return tuple(dict.fromkeys(key for key in keys if key.name == origin and key != own))

    async def submitted(self, origin: str) -> tuple[VerifierKey, ...]:
        """Return the logs of `origin` that accept checkpoints. Raises NotFound (UNKNOWN-LOG)."""
        keys = (*await self.mirrored(origin), *(key for key in self.witnessed if key.name == origin))
        if not keys:
            why = "the log is not of a member, and the operator has not added it"
            raise NotFound("unknown log", why=why, code="UNKNOWN-LOG")
        return tuple(dict.fromkeys(keys))

    async def log_by_prefix(self, prefix: str) -> VerifierKey:
        """Return the log that is served under `prefix`. Raises NotFound (NO-SUCH-LOG)."""
        if prefix not in self._prefixes:
            for key in await self.stored_logs():
                self._prefixes.setdefault(sha256(key.name.encode()), key)
                self._prefixes.setdefault(sha256(str(key).encode()), key)
        if prefix not in self._prefixes:
            raise NotFound("no such log", why="no stored log has this prefix", code="NO-SUCH-LOG")
        return self._prefixes[prefix]

    async def prefix(self, key: VerifierKey) -> Digest:
        """Return the prefix of a stored log."""
        shared = sha256(key.name.encode())
        return shared if await self.log_by_prefix(shared) == key else sha256(str(key).encode())

    def witnessed_log(self, prefix: str) -> VerifierKey:
        """Return the log of the plain witness with this `prefix`. Raises NotFound (NO-SUCH-LOG)."""
        for key in sorted(self.witnessed, key=str):
            if prefix in (sha256(key.name.encode()), sha256(str(key).encode())):
                return key
        raise NotFound("no such log", why="no witnessed log has this prefix", code="NO-SUCH-LOG")


def _ledger_copy_error(ledger: Ledger, mark: LedgerMark, outside: Iterable[VerifierKey]) -> Unavailable | None:
    """Return the error that blocks signatures for outside logs: a copied ledger may miss signatures, and no peer has a
    record of them. None if the ledger is not a copy."""
    logs = list(outside)
    if not logs:
        return None
    begun = any(ledger.witnessed.submitted(log) for log in logs)
    if not mark.mismatches(begun=begun):
        mark.write()
        return None
    why = "it may be older than the last signature for outside logs, and no peer has a record"
    hint = f"if nothing was signed since the copy: {mark.reset_command()}"
    _log.error("ledger is a copy: not signing for outside logs", why=why, hint=hint)
    return Unavailable("this ledger is a copy", why=why, hint=hint, code="LEDGER-COPY")


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """One name and one or two keys, which sign nothing else."""

    name: str
    pairs: tuple[PrivateKey, ...]

    @classmethod
    def load(cls, settings: Tlog, keys: NodeKeys) -> Self | None:
        """Return None if the operator configured no witness. Blocking.

        Raises as `read_keys` does, and Malformed (CONFIG) for a name or key that the node uses otherwise, because an
        Ed25519 cosignature does not state its role.
        """
        if not settings.witness_name:
            return None
        pairs = read_keys(settings.witness_key)
        used = {key.public for key in (keys.log, *keys.cosigners, *keys.online.keys)}
        names = {keys.record.origin, *(key.name for key in keys.record.cosigners)}
        if settings.witness_name in names or any(key.public in used for key in pairs):
            why = "the log or cosigner of the node uses it; a witness needs its own"
            raise Malformed("the name or key of the witness is in use", why=why, code="CONFIG")
        for key in pairs:
            cosigner_key(settings.witness_name, key.public)  # of a kind that cosigns
        return cls(settings.witness_name, pairs)

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        return tuple(cosigner_key(self.name, key.public) for key in self.pairs)

    def signed(self, note: SignedNote) -> bool:
        """Return whether `note` has a signature line of this witness."""
        return any(line.by(key) for line in note.signatures for key in self.keys)

    def cosign(self, checkpoint: Checkpoint, clock: Callable[[], float]) -> tuple[NoteSignature, ...]:
        """Sign the checkpoint; the caller has verified it."""
        now = int(clock())
        return tuple(cosign(checkpoint, self.name, key, now) for key in self.pairs)


MAX_PENDING: Final = 8
"""Maximum number of pending checkpoints per log, so that an upload can finish while the log grows."""


class WitnessRoutes:
    """Handlers for checkpoints. Not thread-safe: call from the event loop."""

    def __init__(
        self,
        ledger: AsyncLedger,
        clock: Clock,
        misbehaviour: MisbehaviourProofs,
        known: KnownLogs,
        witness: WitnessKey | None,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._misbehaviour = misbehaviour
        self._known = known
        self._witness = witness
        self._recent: dict[VerifierKey, OrderedDict[int, SignedNote]] = {}

    async def add_checkpoint(self, request: Request) -> Response:
        """`POST add-checkpoint`."""
        submitted = AddCheckpoint.parse(await read_body(request, MAX_REQUEST))  # (1)
        keys = await self._known.submitted(submitted.origin)  # (2)
        key = self._signer(submitted.checkpoint, keys)
        checkpoint = Checkpoint.parse(submitted.checkpoint.text)  # (4), (6)
        if submitted.old > checkpoint.size:
            why = f"from {submitted.old} to {checkpoint.size}"
            raise Malformed("the old size is larger than the checkpoint's", why=why, code="ADD-CHECKPOINT")
        seen = await self._seen(key)
        if submitted.old != seen.size:
            return _stale(seen)  # (5)
        await self._record_fork(key, seen, checkpoint, submitted.checkpoint)
        verify_consistency(seen.size, seen.root, checkpoint.size, checkpoint.root, submitted.proof)  # (6)
        try:
            lines = await self._advance(key, seen, submitted.checkpoint)  # (7)
        except Conflict as error:
            if error.code != "LOG-MOVED":
                raise
            return _stale(await self._seen(key))
        return Response(encode_signatures(lines), media_type="text/plain; charset=utf-8")

    async def witness_checkpoint(self, request: Request) -> Response:
        """`GET <prefix>/checkpoint` of the plain witness: the newest checkpoint that it signed."""
        key = self._known.witnessed_log(request.path_params["log"])
        note = await self._ledger.run(self._ledger.tables.witnessed.submitted, key)
        if note is None or self._witness is None or not self._witness.signed(note):
            raise NotFound("no checkpoint", why=f"the witness has signed none of {key.name} yet", code="NO-CHECKPOINT")
        headers = {"Cache-Control": "public, max-age=1"}
        return Response(note.encode(), media_type="text/plain; charset=utf-8", headers=headers)

    async def pending(self, key: VerifierKey) -> dict[int, SignedNote]:
        """Return the checkpoints, by size, for which uploads are accepted; the newest is last."""
        seen = await self._seen(key)
        recent = dict(self._recent.get(key, {}))
        if seen.note:
            recent[seen.size] = SignedNote.parse(seen.note)
        return dict(sorted(recent.items()))

    def _signer(self, note: SignedNote, keys: tuple[VerifierKey, ...]) -> VerifierKey:
        """Return the log that signed `note`. Raises Untrusted, and as `admit` does."""
        key = verify_note(note, keys)[0]  # (3)
        self.admit(key)
        return key

    def admit(self, key: VerifierKey) -> None:
        """Raise Refused (SPLIT-VIEW), and as `KnownLogs.require_original_ledger` does."""
        self._known.require_original_ledger(key)
        if self._misbehaviour.frozen(key):
            why = "the log showed two histories, and the proof is stored here"
            raise Refused("this log is blocked", why=why, code="SPLIT-VIEW")

    async def _seen(self, key: VerifierKey) -> WitnessedHead:
        """Raises Untrusted (SPLIT-VIEW), with the proof stored, if the submitted checkpoint contradicts the
        stored log."""
        witnessed = self._ledger.tables.witnessed
        try:
            return await self._ledger.run(witnessed.latest, key)
        except Untrusted:
            note = await self._ledger.run(witnessed.submitted, key)
            if note is not None:
                await self._misbehaviour.contradicts(key, note)
            raise

    async def _record_fork(
        self, key: VerifierKey, seen: WitnessedHead, checkpoint: Checkpoint, note: SignedNote
    ) -> None:
        """Store two notes of one size with different roots, which prove misbehaviour. Later checks refuse the
        request."""
        if seen.note and checkpoint.size == seen.size and checkpoint.root != seen.root:
            await self._misbehaviour.keep(ROOTS, key, (seen.note, note.encode()))

    async def _advance(self, key: VerifierKey, seen: WitnessedHead, note: SignedNote) -> tuple[NoteSignature, ...]:
        checkpoint = Checkpoint.parse(note.text)
        signs = self._witness if key in self._known.witnessed else None
        lines = signs.cosign(checkpoint, self._clock) if signs else ()
        own = SignedNote(note.text, tuple(line for line in note.signatures if line.by(key)))
        await self._ledger.run(self._ledger.tables.witnessed.move, key, seen, own.with_signatures(*lines))
        recent = self._recent.setdefault(key, OrderedDict())
        recent[checkpoint.size] = own
        while len(recent) > MAX_PENDING:
            recent.popitem(last=False)
        _log.info("checkpoint submitted", origin=key.name, size=checkpoint.size, signed=bool(lines))
        return lines


def _stale(seen: WitnessedHead) -> Response:
    return Response(f"{seen.size}\n", 409, {"Content-Type": "text/x.tlog.size"})


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
        self,
        ledger: AsyncLedger,
        store: BlobStore,
        pools: Pools,
        quotas: Quotas,
        misbehaviour: MisbehaviourProofs,
        cosigner: CheckpointCosigner,
        on_advance: Callable[[str], Awaitable[None]],
        known: KnownLogs,
        submissions: WitnessRoutes,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._quotas = quotas
        self._misbehaviour = misbehaviour
        self._cosigner = cosigner
        self._on_advance = on_advance
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
        statements = [statement_of(line) for line in lines]
        named = [item for statement in statements if statement for item in statement.objects]
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
        cosigned = await self._ledger.run(self._ledger.tables.cosignatures.cosigned, str(key), target.size)
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


SHORT_CACHE: Final = {"Cache-Control": "public, max-age=1"}
IMMUTABLE_CACHE: Final = {"Cache-Control": "public, max-age=31536000, immutable"}


class TileRoutes:
    def __init__(
        self,
        ledger: AsyncLedger,
        pools: Pools,
        record: NodeRecord,
        url: str,
        known: KnownLogs,
        witness: WitnessKey | None,
    ) -> None:
        self._ledger = ledger
        self._pools = pools
        self._record = record
        self._url = url
        self._known = known
        self._witness = witness

    async def index(self, request: Request) -> JSONResponse:
        """List the served logs, and the keys that sign for them."""
        base = f"{self._url}/tlog"
        logs = []
        for key in await self._known.stored_logs():
            size = Checkpoint.parse(note.text).size if (note := await self._served_checkpoint_or_none(key)) else None
            prefix = f"{base}/{await self._known.prefix(key)}"
            own = key == self._record.log
            logs.append({"origin": key.name, "vkey": str(key), "prefix": prefix, "size": size, "own": own})
        record = self._record
        mirror = {"vkeys": list(map(str, record.cosigners)), "submission": base, "monitoring": base}
        witness = None
        if self._witness is not None:
            witnessed_log = sorted(map(str, self._known.witnessed))
            vkeys = list(map(str, self._witness.keys))
            witness = {"vkeys": vkeys, "submission": base, "monitoring": f"{base}/witness", "logs": witnessed_log}
        return JSONResponse({"logs": logs, "mirror": mirror, "witness": witness}, headers=SHORT_CACHE)

    async def checkpoint(self, request: Request) -> Response:
        key = await self._known.log_by_prefix(request.path_params["log"])
        note = await self._served_checkpoint(key)
        return Response(note.encode(), media_type="text/plain; charset=utf-8", headers=SHORT_CACHE)

    async def tile(self, request: Request) -> Response:
        key = await self._known.log_by_prefix(request.path_params["log"])
        try:
            tile = parse_tile_path(f"tile/{request.path_params['tile']}")
        except Malformed as error:
            raise NotFound("no such tile", why=error.why, code="NO-SUCH-TILE") from error
        size = Checkpoint.parse((await self._served_checkpoint(key)).text).size
        if (tile.index * WIDTH + tile.width) << 8 * max(tile.level, 0) > size:
            why = f"the served checkpoint covers {size} entries"
            raise NotFound("no such tile yet", why=why, code="NO-SUCH-TILE")
        data = await self._ledger.run(self._ledger.tables.history.tile, str(key), tile)
        headers = dict(IMMUTABLE_CACHE)
        if tile.level == ENTRIES:
            headers["Vary"] = "Accept-Encoding"
            if _takes_gzip(request):
                data = await self._pools.hashing(gzip.compress, data, 6, mtime=0)
                headers["Content-Encoding"] = "gzip"
        return Response(data, media_type="application/octet-stream", headers=headers)

    async def _served_checkpoint(self, key: VerifierKey) -> SignedNote:
        """Return the checkpoint that bounds what is served of a log. Raises NotFound (NO-CHECKPOINT)."""
        record, cosignatures = self._record, self._ledger.tables.cosignatures
        if key == record.log:
            return await self._ledger.run(cosignatures.cosigned, str(key))
        return await self._ledger.run(cosignatures.newest_by, str(key), record.cosigners)

    async def _served_checkpoint_or_none(self, key: VerifierKey) -> SignedNote | None:
        try:
            return await self._served_checkpoint(key)
        except NotFound:
            return None


def _takes_gzip(request: Request) -> bool:
    """Return whether gzip is accepted without a weight, as clients send it."""
    return "gzip" in request.headers.get("accept-encoding", "").lower().replace(" ", "").split(",")


def tlog_routes(home: OpenedHome, replication: ReplicationTasks) -> list[Route]:
    """Blocking. Raises as `WitnessKey.load` does."""
    ledger, settings = home.ledger, home.config.tlog
    known = KnownLogs(ledger, home.membership, settings, home.mark(OUTSIDE_MARK))
    witness = WitnessKey.load(settings, home.keys)
    tiles = TileRoutes(ledger, home.pools, home.keys.record, home.config.gateway.url, known, witness)
    submissions = WitnessRoutes(ledger, home.clock, replication.misbehaviour, known, witness)
    uploads = MirrorRoutes(
        ledger,
        home.store,
        home.pools,
        replication.quotas,
        replication.misbehaviour,
        replication.cosigner,
        replication.advanced,
        known,
        submissions,
    )
    return [
        Route("/tlog", tiles.index),
        Route("/tlog/add-checkpoint", submissions.add_checkpoint, methods=["POST"]),
        Route("/tlog/add-entries", uploads.add_entries, methods=["POST"]),
        Route("/tlog/witness/{log}/checkpoint", submissions.witness_checkpoint),
        Route("/tlog/{log}/checkpoint", tiles.checkpoint),
        Route("/tlog/{log}/tile/{tile:path}", tiles.tile),
    ]
