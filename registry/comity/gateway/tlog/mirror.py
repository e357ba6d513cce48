"""Pushed logs (C2SP tlog-mirror): entries that a client brings, each package proven into a checkpoint that is pending.

(1) the head names a log that is mirrored here, never the node's own                                    else 404
(2) a checkpoint of that log is pending                                                                 else 422
(3) `end` is the size of one of the newest of them, not behind what is mirrored; `start` is the next
    entry or a little before                                                                            else 409
(4) each package, as it comes, is proven to be in the tree of `end` leaves                              else 422
(5) the side objects that its statements name are here, and the log stays within its quota        else 503, 507
(6) what is new of it is durable before the next one is read
(7) once all of it is here, the log moves to the checkpoint, and the node's cosigner signs it

A body that ends early is no loss: what was proven stays, and the answer (202) says where to go on.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import structlog
from starlette.requests import Request
from starlette.responses import Response

from comity.gateway.places import Places
from comity.gateway.running import Running
from comity.gateway.tlog.body import Body
from comity.gateway.tlog.known import Known
from comity.gateway.tlog.witness import Submissions
from comity.ledger.ledger import Ledger
from comity.ledger.logs import LogState
from comity.node.replication.quota import statement_of
from comity.node.replication.side_objects import absent
from comity.trust.errors import Conflict, Equivocation, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.tlog.checkpoint import Checkpoint
from comity.trust.tlog.mirror import MirrorInfo, Package, Upload
from comity.trust.tlog.misbehaviour import ROOTS
from comity.trust.tlog.note import NoteSignature, SignedNote, VerifierKey
from comity.trust.tlog.tiles import WIDTH
from comity.trust.tlog.witness import encode_signatures

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

_log: Final = structlog.get_logger("comity.gateway")


class Uploads:
    """Takes entries. Touched by the event loop only."""

    def __init__(self, running: Running, known: Known, submissions: Submissions) -> None:
        self._core = running.core
        self._ledger = running.core.ledger
        self._replication = running.replication
        self._known = known
        self._submissions = submissions
        self._places = Places(AT_ONCE, "uploads")
        self._turns: defaultdict[VerifierKey, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def add_entries(self, request: Request) -> Response:
        """Answers `POST add-entries`."""
        async with self._places.taken(request.scope) as progress:
            body = Body(request)
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

    async def _pending(self, upload: Upload) -> tuple[VerifierKey, SignedNote | None]:
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
    def _fits(upload: Upload, state: LogState) -> bool:
        return state.size <= upload.end and state.staged - BEHIND <= upload.start <= state.staged

    async def _elsewhere(self, key: VerifierKey, end: int | None, *, status: int = 409) -> Response:
        """Where the log stands, for a client that has to go on from there."""
        state, pending = await self._state(key), await self._submissions.pending(key)
        size = end if end is not None and end >= state.size else max(pending)
        body = MirrorInfo(size, state.staged).encode()
        return Response(body, status, _GZIP | {"Content-Type": "text/x.tlog.mirror-info"})

    async def _take(
        self, key: VerifierKey, upload: Upload, note: SignedNote, body: Body, progress: Callable[[], None]
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
