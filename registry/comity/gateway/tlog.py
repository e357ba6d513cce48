"""The logs for everybody: the faces that C2SP gives transparency logs, witnesses and mirrors, over HTTP.

    known       which logs these faces know, and under which prefix
    tiles       reading: checkpoints, tiles, entries (tlog-tiles)
    witness     add-checkpoint: what logs submit (tlog-witness)
    witness_key the plain witness's own key
    mirror      add-entries: a log that is pushed here, not pulled (tlog-mirror)
    body        the body of an upload, read in parts
    routes      the addresses

The node's cosigner is a mirror: here, as everywhere, it signs only what it holds. The plain witness has another key and
another name, and signs what continues what it signed before. How our own log is shown to outside witnesses is said in
`comity.node.outside_witnesses`.


The body of an upload, read in parts while it comes: never more in memory than a package and a part of the next.

Which logs the faces know: those that the node writes or mirrors, and those outside that the operator added.

A log's prefix is the SHA-256 of its origin, as tlog-mirror asks. Where several keys share an origin it means the log
that was first under it; each has the SHA-256 of its verifier key as a prefix besides.


The plain witness's own key: for outside logs that are signed without being held.

Submitting checkpoints (C2SP tlog-witness): what a log shows here is checked, remembered for ever, and maybe signed.

(1) the body is an add-checkpoint request                                                               else 400
(2) the origin is a log that is known here                                                              else 404
(3) a key that is known for that origin signed the checkpoint, and it shows one history                 else 403
(4) the checkpoint is one of our kind, and not smaller than the old size                                else 400
(5) the old size is that of the newest checkpoint seen: the answer says which it is                     else 409
(6) an empty log has the root of the empty tree; the proof leads from the old root to the new one       else 422
(7) the state moves from exactly the one that was looked at                                             else 409

For a mirrored log that is all: entries may now be brought for the new checkpoint, and the mirror's key does not sign
here. For logs that the operator has named, the plain witness signs. Extension lines are refused (4): an ML-DSA
cosignature would not cover them.


Pushed logs (C2SP tlog-mirror): entries that a client brings, each package proven into a checkpoint that is pending.

(1) the head names a log that is mirrored here, never the node's own                                    else 404
(2) a checkpoint of that log is pending                                                                 else 422
(3) `end` is the size of one of the newest of them, not behind what is mirrored; `start` is the next
    entry or a little before                                                                            else 409
(4) each package, as it comes, is proven to be in the tree of `end` leaves                              else 422
(5) the side objects that its statements name are here, and the log stays within its quota        else 503, 507
(6) what is new of it is durable before the next one is read
(7) once all of it is here, the log moves to the checkpoint, and the node's cosigner signs it

A body that ends early is no loss: what was proven stays, and the answer (202) says where to go on.


Reading logs over HTTP (C2SP tlog-tiles): checkpoint, tiles and entries of every log that is held here.

What is shown is bounded by the checkpoint that is shown: of the node's own log the newest, of a mirrored one the newest
that this node's cosigner has signed, as tlog-mirror asks. No tile is served that goes beyond it, so that a tile once
served is what it is for ever.


The addresses of the C2SP faces, all under `/tlog`: the submission prefix of witness and mirror alike."""

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

from comity.content.secrets import read_keys
from comity.gateway.context import GatewayContext
from comity.gateway.http import ConnectionPlaces, read_body
from comity.ledger.ledger import Ledger
from comity.ledger.log_store import LogState
from comity.ledger.records import WitnessedHead
from comity.node.context import OUTSIDE, NodeContext
from comity.node.replication.mirror import statement_of
from comity.node.replication.side_objects import absent
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Conflict, Equivocation, Malformed, NotFound, Refused, Unavailable, Untrusted
from comity.trust.keys import PrivateKey
from comity.trust.tlog.merkle import ENTRIES, HASH_SIZE, WIDTH, parse_tile_path, verify_consistency
from comity.trust.tlog.note import Checkpoint, NoteSignature, SignedNote, VerifierKey, cosign, cosigner_key, verify_note
from comity.trust.tlog.proof import ROOTS
from comity.trust.tlog.witness import (
    MAX_REQUEST,
    MAX_UPLOAD_HASHES,
    AddCheckpoint,
    MirrorInfo,
    MirrorUpload,
    Package,
    encode_signatures,
)

_CHUNK: Final = 64 * 1024


class RequestBody:
    """Reads `request`, unpacked where gzip packed it.

    A body that ends early, breaks off or grows too large has ended: what comes after the last whole part is dropped, as
    tlog-mirror wants it. Raises Malformed (ENCODING) for another packing.
    """

    def __init__(self, request: Request) -> None:
        coding = request.headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("identity", "gzip"):
            raise Malformed("a packing that is not known here", why=f"{coding[:40]!r}", code="ENCODING")
        stream = _whole(request.stream())
        self._parts = _unpacked(stream) if coding == "gzip" else stream
        self._held = bytearray()

    async def upload(self) -> MirrorUpload:
        """The head. Raises Malformed, also where the body ends in it."""
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
        """The entries and hashes of the next package; None where the body has ended before its end.

        Raises Untrusted (SUBTREE) for more hashes than a proof has.
        """
        entries: list[bytes] = []
        while len(entries) < package.end - package.start:
            if (entry := await self._prefixed()) is None:
                return None
            entries.append(entry)
        if (count := await self._exactly(1)) is None:
            return None
        if count[0] > MAX_UPLOAD_HASHES:
            raise Untrusted("bad subtree proof", why=f"{count[0]} hashes, at most {MAX_UPLOAD_HASHES}", code="SUBTREE")
        if (hashes := await self._exactly(count[0] * HASH_SIZE)) is None:
            return None
        return entries, [hashes[at : at + HASH_SIZE] for at in range(0, len(hashes), HASH_SIZE)]

    async def _prefixed(self) -> bytes | None:
        length = await self._exactly(2)
        return None if length is None else await self._exactly(int.from_bytes(length, "big"))

    async def _exactly(self, size: int) -> bytes | None:
        while len(self._held) < size:
            part = await anext(self._parts, None)
            if part is None:
                return None
            self._held += part
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken


async def _whole(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """`parts` up to where the client left, stalled, or sent too much."""
    try:
        async for part in parts:
            yield part
    except (ClientDisconnect, Malformed, TimeoutError):
        return


async def _unpacked(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What gzip packed, in small parts; broken packing ends it."""
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
    """Logs by origin and by prefix. Touched by the event loop only."""

    def __init__(self, core: NodeContext) -> None:
        """Blocking."""
        self._core = core
        self._pushed = tuple(map(VerifierKey.parse, core.config.tlog.mirror))
        self.witnessed = frozenset(map(VerifierKey.parse, core.config.tlog.witness))
        """The logs that the plain witness signs for."""
        self._forgetful = _forgetful(core, (*self._pushed, *self.witnessed))
        self._prefixes: dict[str, VerifierKey] = {}

    def require_memory(self, key: VerifierKey) -> None:
        """Raises Unavailable (LEDGER-COPY) for an outside log, where this ledger may be older than what was signed."""
        if self._forgetful is not None and key not in self._core.membership.log_keys(key.name):
            raise self._forgetful

    async def held(self) -> list[VerifierKey]:
        """The logs whose entries are here, the first under its origin first."""
        return await self._core.pools.ledger(self._core.ledger.logs.keys)

    async def mirrored(self, origin: str) -> tuple[VerifierKey, ...]:
        """The logs called `origin` whose entries may be pushed here: members' and outside ones, never our own."""
        bound = self._core.membership.log_keys(origin)
        keys = [*await self.held(), *bound, *self._pushed]
        own = self._core.seat.record.log
        return tuple(dict.fromkeys(key for key in keys if key.name == origin and key != own))

    async def submitted(self, origin: str) -> tuple[VerifierKey, ...]:
        """The logs called `origin` whose checkpoints are taken here. Raises NotFound (UNKNOWN-LOG)."""
        keys = (*await self.mirrored(origin), *(key for key in self.witnessed if key.name == origin))
        if not keys:
            why = "it is neither a member's log nor one that the operator has added"
            raise NotFound("not a log that is known here", why=why, code="UNKNOWN-LOG")
        return tuple(dict.fromkeys(keys))

    async def served(self, prefix: str) -> VerifierKey:
        """The log whose entries are served under `prefix`. Raises NotFound (NO-SUCH-LOG)."""
        if prefix not in self._prefixes:
            for key in await self.held():
                self._prefixes.setdefault(sha256(key.name.encode()), key)
                self._prefixes.setdefault(sha256(str(key).encode()), key)
        if prefix not in self._prefixes:
            raise NotFound("no such log", why="no log that is held here has this prefix", code="NO-SUCH-LOG")
        return self._prefixes[prefix]

    async def prefix(self, key: VerifierKey) -> Digest:
        """Where a log that is held here is served."""
        shared = sha256(key.name.encode())
        return shared if await self.served(shared) == key else sha256(str(key).encode())

    def watched(self, prefix: str) -> VerifierKey:
        """The log that the plain witness shows under `prefix`. Raises NotFound (NO-SUCH-LOG)."""
        for key in sorted(self.witnessed, key=str):
            if prefix in (sha256(key.name.encode()), sha256(str(key).encode())):
                return key
        raise NotFound("no such log", why="no log that is witnessed here has this prefix", code="NO-SUCH-LOG")


def _forgetful(core: NodeContext, outside: Iterable[VerifierKey]) -> Unavailable | None:
    """Why nothing is signed for outside logs: no peer says what was, so a copy of a ledger may not go on from it."""
    logs, mark = list(outside), core.mark(OUTSIDE)
    if not logs:
        return None
    begun = any(core.ledger.witnessed.submitted(log) for log in logs)
    if not mark.is_of_another(begun=begun):
        mark.renew()
        return None
    why = "it may be older than what was signed for outside logs, and no peer could tell"
    hint = f"if nothing was signed since it was made: {mark.vouching_command()}"
    _log.error("this ledger is a copy: nothing is signed for outside logs", why=why, hint=hint)
    return Unavailable("this ledger is a copy", why=why, hint=hint, code="LEDGER-COPY")


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """One name, one or two keys, none of which signs anything else."""

    name: str
    pairs: tuple[PrivateKey, ...]

    @classmethod
    def load(cls, core: NodeContext) -> Self | None:
        """None where the operator named no witness. Blocking.

        Raises what `read_keys` raises, and Malformed (CONFIG) for a name or key that the node has another use for: an
        Ed25519 cosignature does not say in which role it was made.
        """
        settings, keys = core.config.tlog, core.keys
        if not settings.witness_name:
            return None
        pairs = read_keys(settings.witness_key)
        taken = {key.public for key in (keys.log, *keys.cosigners, *keys.online.keys)}
        names = {keys.record.origin, *(key.name for key in keys.record.cosigners)}
        if settings.witness_name in names or any(key.public in taken for key in pairs):
            why = "the node's log or its cosigner has the same; a witness needs its own"
            raise Malformed("the witness's name or key is taken", why=why, code="CONFIG")
        for key in pairs:
            cosigner_key(settings.witness_name, key.public)  # of a kind that cosigns
        return cls(settings.witness_name, pairs)

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        return tuple(cosigner_key(self.name, key.public) for key in self.pairs)

    def signed(self, note: SignedNote) -> bool:
        """Whether a line of `note` names this witness."""
        return any(line.by(key) for line in note.signatures for key in self.keys)

    def cosign(self, checkpoint: Checkpoint, clock: Callable[[], float]) -> tuple[NoteSignature, ...]:
        """The caller answers for the checkpoint."""
        now = int(clock())
        return tuple(cosign(checkpoint, self.name, key, now) for key in self.pairs)


RECENT: Final = 8
"""Checkpoints of a log for which entries may still be brought, so that an upload outlives a growing log."""


class WitnessRoutes:
    """Takes checkpoints. Touched by the event loop only."""

    def __init__(self, running: GatewayContext, known: KnownLogs, witness: WitnessKey | None) -> None:
        self._core = running.core
        self._convictions = running.replication.convictions
        self._known = known
        self._witness = witness
        self._recent: dict[VerifierKey, OrderedDict[int, SignedNote]] = {}

    async def add_checkpoint(self, request: Request) -> Response:
        """Answers `POST add-checkpoint`."""
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
        await self._refuse_fork(key, seen, checkpoint, submitted.checkpoint)
        verify_consistency(seen.size, seen.root, checkpoint.size, checkpoint.root, submitted.proof)  # (6)
        try:
            lines = await self._move(key, seen, submitted.checkpoint)  # (7)
        except Conflict as error:
            if error.code != "LOG-MOVED":
                raise
            return _stale(await self._seen(key))
        return Response(encode_signatures(lines), media_type="text/plain; charset=utf-8")

    async def monitoring(self, request: Request) -> Response:
        """Answers `GET <prefix>/checkpoint` for the plain witness: the newest checkpoint that it signed."""
        key = self._known.watched(request.path_params["log"])
        note = await self._core.pools.ledger(self._core.ledger.witnessed.submitted, key)
        if note is None or self._witness is None or not self._witness.signed(note):
            raise NotFound("no checkpoint", why=f"none of {key.name} was signed here yet", code="NO-CHECKPOINT")
        headers = {"Cache-Control": "public, max-age=1"}
        return Response(note.encode(), media_type="text/plain; charset=utf-8", headers=headers)

    async def pending(self, key: VerifierKey) -> dict[int, SignedNote]:
        """The checkpoints, by size, for which entries of a log are taken; the newest is the last."""
        seen = await self._seen(key)
        recent = dict(self._recent.get(key, {}))
        if seen.note:
            recent[seen.size] = SignedNote.parse(seen.note)
        return dict(sorted(recent.items()))

    def _signer(self, note: SignedNote, keys: tuple[VerifierKey, ...]) -> VerifierKey:
        """The log that made `note`. Raises Untrusted, and as `admit` does."""
        key = verify_note(note, keys)[0]  # (3)
        self.admit(key)
        return key

    def admit(self, key: VerifierKey) -> None:
        """Raises Refused (SPLIT-VIEW), and as `Known.require_memory` does."""
        self._known.require_memory(key)
        if self._convictions.frozen(key):
            why = "it has shown two histories, and the proof is kept here"
            raise Refused("nothing of this log is taken any more", why=why, code="SPLIT-VIEW")

    async def _seen(self, key: VerifierKey) -> WitnessedHead:
        """Raises Untrusted (SPLIT-VIEW), with the proof kept, where the log submitted another history than is held."""
        witnessed = self._core.ledger.witnessed
        try:
            return await self._core.pools.ledger(witnessed.latest, key)
        except Untrusted:
            note = await self._core.pools.ledger(witnessed.submitted, key)
            if note is not None:
                await self._convictions.contradicts(key, note)
            raise

    async def _refuse_fork(
        self, key: VerifierKey, seen: WitnessedHead, checkpoint: Checkpoint, note: SignedNote
    ) -> None:
        """Keep two notes of one size with different roots: they convict the log. What follows refuses the request."""
        if seen.note and checkpoint.size == seen.size and checkpoint.root != seen.root:
            await self._convictions.keep(ROOTS, key, (seen.note, note.encode()))

    async def _move(self, key: VerifierKey, seen: WitnessedHead, note: SignedNote) -> tuple[NoteSignature, ...]:
        checkpoint = Checkpoint.parse(note.text)
        signs = self._witness if key in self._known.witnessed else None
        lines = signs.cosign(checkpoint, self._core.clock) if signs else ()
        own = SignedNote(note.text, tuple(line for line in note.signatures if line.by(key)))
        await self._core.pools.ledger(self._core.ledger.witnessed.move, key, seen, own.adding(*lines))
        recent = self._recent.setdefault(key, OrderedDict())
        recent[checkpoint.size] = own
        while len(recent) > RECENT:
            recent.popitem(last=False)
        _log.info("checkpoint submitted", origin=key.name, size=checkpoint.size, signed=bool(lines))
        return lines


def _stale(seen: WitnessedHead) -> Response:
    return Response(f"{seen.size}\n", 409, {"Content-Type": "text/x.tlog.size"})


PACKAGES: Final = 64
"""Packages that one request may bring; clients are told to send half as many."""
BEHIND: Final = 32 * WIDTH
"""Entries that a request may bring again."""
AT_ONCE: Final = 4
"""Uploads at once: each may hold a package of up to 16 MiB in memory."""
DEADLINE: Final = 300.0
"""Seconds of one upload."""

_GZIP: Final = {"Accept-Encoding": "gzip"}

T = TypeVar("T")


class MirrorRoutes:
    """Takes entries. Touched by the event loop only."""

    def __init__(self, running: GatewayContext, known: KnownLogs, submissions: WitnessRoutes) -> None:
        self._core = running.core
        self._ledger = running.core.ledger
        self._replication = running.replication
        self._known = known
        self._submissions = submissions
        self._places = ConnectionPlaces(AT_ONCE, "uploads")
        self._turns: defaultdict[VerifierKey, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def add_entries(self, request: Request) -> Response:
        """Answers `POST add-entries`."""
        async with self._places.taken(request.scope) as progress:
            body = RequestBody(request)
            upload = await body.upload()
            key, note = await self._pending(upload)  # (1), (2)
            state = await self._state(key)
            if note is None or not self._fits(upload, state):  # (3)
                return await self._elsewhere(key, upload.end if note else None)
            try:
                whole = await self._take(key, upload, note, body, progress)
                lines = await self._commit(key, note) if whole else ()
            except Conflict as error:
                if error.code != "LOG-MOVED":
                    raise
                return await self._elsewhere(key, upload.end)
            if not whole:
                return await self._elsewhere(key, upload.end, status=202)
            return Response(encode_signatures(lines), 200, _GZIP, "text/plain; charset=utf-8")

    async def _pending(self, upload: MirrorUpload) -> tuple[VerifierKey, SignedNote | None]:
        """The log that is meant, and its checkpoint of size `end`, or None where none is pending.

        Of several under one origin, the first for which `end` is pending is meant. Raises NotFound (UNKNOWN-LOG),
        Untrusted (NO-PENDING) for a log of which no checkpoint was submitted, and as `Submissions.admit` does.
        """
        keys = await self._known.mirrored(upload.origin)
        if not keys:
            raise NotFound("not a log that is mirrored here", why="its operator has not added it", code="UNKNOWN-LOG")
        pending = {key: found for key in keys if (found := await self._submissions.pending(key))}
        if not pending:
            raise Untrusted("no checkpoint is pending", why="add-checkpoint comes first", code="NO-PENDING")
        meant = next((key for key, found in pending.items() if upload.end in found), next(iter(pending)))
        self._submissions.admit(meant)
        return meant, pending[meant].get(upload.end)

    async def _state(self, key: VerifierKey) -> LogState:
        return await self._core.pools.ledger(_begun, self._ledger, key)

    @staticmethod
    def _fits(upload: MirrorUpload, state: LogState) -> bool:
        return state.size <= upload.end and state.staged - BEHIND <= upload.start <= state.staged

    async def _elsewhere(self, key: VerifierKey, end: int | None, *, status: int = 409) -> Response:
        """Where the log stands, for a client that has to go on from there."""
        state, pending = await self._state(key), await self._submissions.pending(key)
        size = end if end is not None and end >= state.size else max(pending)
        body = MirrorInfo(size, state.staged).encode()
        return Response(body, status, _GZIP | {"Content-Type": "text/x.tlog.mirror-info"})

    async def _take(
        self, key: VerifierKey, upload: MirrorUpload, note: SignedNote, body: RequestBody, progress: Callable[[], None]
    ) -> bool:
        """Keep what the body brings; whether that was all. Raises what refuses a package, and Malformed (ADD-ENTRIES)
        where not one whole package came."""
        checkpoint, until = Checkpoint.parse(note.text), asyncio.get_running_loop().time() + DEADLINE
        for taken, package in enumerate(upload.packages()):
            brought = await _before(until, body.package(package)) if taken < PACKAGES else None
            if brought is None:
                if not taken:
                    raise Malformed("not an upload", why="it ends within its first package", code="ADD-ENTRIES")
                return False
            await self._keep(key, checkpoint, package, *brought)
            progress()
        return True

    async def _keep(
        self, key: VerifierKey, target: Checkpoint, package: Package, lines: Sequence[bytes], proof: Sequence[bytes]
    ) -> None:
        logs, ledger = self._ledger.logs, self._core.pools.ledger
        before = await ledger(logs.staged_leaves, str(key), package.first, package.start)
        await self._core.pools.hashing(package.verify, before, lines, proof, target.size, target.root)  # (4)
        await self._core.pools.files(self._require_objects, lines)  # (5)
        async with self._turns[key]:
            fresh = max(0, (await self._state(key)).staged - package.start)
            if fresh < len(lines):
                await self._replication.quotas.require(key, target.size, lines[fresh:])
                await ledger(logs.stage, str(key), package.start + fresh, lines[fresh:])  # (6)

    def _require_objects(self, lines: Sequence[bytes]) -> None:
        """Blocking. Raises Unavailable (SIDE-OBJECT) where a line names what is not here."""
        statements = [statement_of(line) for line in lines]
        named = [item for statement in statements if statement for item in statement.objects]
        if missing := absent(self._core.store, named):
            why = f"{len(missing)} objects that these entries name are missing, {missing[0].digest} the first"
            raise Unavailable("entries without their side objects", why=why, code="SIDE-OBJECT")

    async def _commit(self, key: VerifierKey, note: SignedNote) -> tuple[NoteSignature, ...]:
        """Move the log to the checkpoint and sign it (7). Raises Conflict where it is further already."""
        target = Checkpoint.parse(note.text)
        async with self._turns[key]:
            state = await self._state(key)
            if state.size > target.size:
                raise Conflict("the log is further already", why=f"it has {state.size} entries", code="LOG-MOVED")
            try:
                await self._core.pools.ledger(self._ledger.logs.advance, str(key), target.size, [], note)
            except Equivocation as error:
                await self._replication.convictions.keep(ROOTS, key, error.proof)
                raise
        await self._replication.advanced(str(key))
        await self._replication.cosigner.attend(key)
        cosigned = await self._core.pools.ledger(self._ledger.cosignatures.cosigned, str(key), target.size)
        cosigners = self._core.seat.record.cosigners
        lines = tuple(line for line in cosigned.signatures if any(line.by(own) for own in cosigners))
        if not lines:
            why = "the node has just started, or the log has grown meanwhile"
            raise Unavailable("not signed yet", why=why, hint="send the same request again", code="UNSIGNED")
        _log.info("mirrored", origin=key.name, size=target.size, pushed=True)
        return lines


def _begun(ledger: Ledger, key: VerifierKey) -> LogState:
    """Blocking. The log as it stands, begun if it was not."""
    try:
        return ledger.logs.get(str(key))
    except NotFound:
        return ledger.logs.create(key.name, str(key))


async def _before(until: float, part: Awaitable[T | None]) -> T | None:
    """`part`, or None where it takes longer: the body has ended then."""
    try:
        async with asyncio.timeout_at(until):
            return await part
    except TimeoutError:
        return None


MOMENT: Final = {"Cache-Control": "public, max-age=1"}
FOR_EVER: Final = {"Cache-Control": "public, max-age=31536000, immutable"}


class TileRoutes:
    def __init__(self, running: GatewayContext, known: KnownLogs, witness: WitnessKey | None) -> None:
        self._core = running.core
        self._known = known
        self._witness = witness

    async def index(self, request: Request) -> JSONResponse:
        """Every log that is served here, and who signs for them."""
        base = f"{self._core.config.gateway.url}/tlog"
        logs = []
        for key in await self._known.held():
            size = Checkpoint.parse(note.text).size if (note := await self._shown_or_none(key)) else None
            prefix = f"{base}/{await self._known.prefix(key)}"
            own = key == self._core.seat.record.log
            logs.append({"origin": key.name, "vkey": str(key), "prefix": prefix, "size": size, "own": own})
        record = self._core.seat.record
        mirror = {"vkeys": list(map(str, record.cosigners)), "submission": base, "monitoring": base}
        witness = None
        if self._witness is not None:
            watched = sorted(map(str, self._known.witnessed))
            vkeys = list(map(str, self._witness.keys))
            witness = {"vkeys": vkeys, "submission": base, "monitoring": f"{base}/witness", "logs": watched}
        return JSONResponse({"logs": logs, "mirror": mirror, "witness": witness}, headers=MOMENT)

    async def checkpoint(self, request: Request) -> Response:
        key = await self._known.served(request.path_params["log"])
        note = await self._shown(key)
        return Response(note.encode(), media_type="text/plain; charset=utf-8", headers=MOMENT)

    async def tile(self, request: Request) -> Response:
        key = await self._known.served(request.path_params["log"])
        try:
            tile = parse_tile_path(f"tile/{request.path_params['tile']}")
        except Malformed as error:
            raise NotFound("no such tile", why=error.why, code="NO-SUCH-TILE") from error
        size = Checkpoint.parse((await self._shown(key)).text).size
        if (tile.index * WIDTH + tile.width) << 8 * max(tile.level, 0) > size:
            why = f"the checkpoint that is shown covers {size} entries"
            raise NotFound("no such tile yet", why=why, code="NO-SUCH-TILE")
        data = await self._core.pools.ledger(self._core.ledger.history.tile, str(key), tile)
        headers = dict(FOR_EVER)
        if tile.level == ENTRIES:
            headers["Vary"] = "Accept-Encoding"
            if _takes_gzip(request):
                data = await self._core.pools.hashing(gzip.compress, data, 6, mtime=0)
                headers["Content-Encoding"] = "gzip"
        return Response(data, media_type="application/octet-stream", headers=headers)

    async def _shown(self, key: VerifierKey) -> SignedNote:
        """The checkpoint that bounds what is served of a log. Raises NotFound (NO-CHECKPOINT)."""
        record, cosignatures = self._core.seat.record, self._core.ledger.cosignatures
        if key == record.log:
            return await self._core.pools.ledger(cosignatures.cosigned, str(key))
        return await self._core.pools.ledger(cosignatures.newest_by, str(key), record.cosigners)

    async def _shown_or_none(self, key: VerifierKey) -> SignedNote | None:
        try:
            return await self._shown(key)
        except NotFound:
            return None


def _takes_gzip(request: Request) -> bool:
    """Whether gzip is named without a weight, as every client does that means it."""
    return "gzip" in request.headers.get("accept-encoding", "").lower().replace(" ", "").split(",")


def tlog_routes(running: GatewayContext) -> list[Route]:
    """Blocking. Raises what `WitnessKey.load` raises."""
    known = KnownLogs(running.core)
    witness = WitnessKey.load(running.core)
    tiles = TileRoutes(running, known, witness)
    submissions = WitnessRoutes(running, known, witness)
    uploads = MirrorRoutes(running, known, submissions)
    return [
        Route("/tlog", tiles.index),
        Route("/tlog/add-checkpoint", submissions.add_checkpoint, methods=["POST"]),
        Route("/tlog/add-entries", uploads.add_entries, methods=["POST"]),
        Route("/tlog/witness/{log}/checkpoint", submissions.monitoring),
        Route("/tlog/{log}/checkpoint", tiles.checkpoint),
        Route("/tlog/{log}/tile/{tile:path}", tiles.tile),
    ]
