"""The log that this node writes, the mark of its ledger, and shared helpers to read the ledger.

`OwnLog` opens once the node knows that its ledger holds everything that it signed; then it logs the node's own identity
lines and appends statements. `iterate_entries` reads the ledger's index page by page.

A mark identifies the database: a file beside an SQLite ledger, which has the file's number; or a row in PostgreSQL,
which has the cluster, timeline, database and table, so that another machine of the same node finds it too. A copy has
another identity or no mark; then nothing is signed before a peer has shown what was signed. A disk that was rolled
back, or a backup written over the same file, is not detected this way: therefore peers are asked at every start, for a
limited time.
"""

from __future__ import annotations

import asyncio
import shlex
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog

from comity.content.durable import disk_errors, write_file
from comity.ledger.entry_index import EntryQuery, IndexedEntry
from comity.ledger.ledger import Ledger
from comity.ledger.sequencer import Make, Sequencer
from comity.node.keys import NodeKeys
from comity.node.members import Membership, OwnNode
from comity.node.settings import Advertise
from comity.node.threads import AsyncLedger
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, NotFound, Refused, Unavailable, Untrusted
from comity.trust.node_records import Addresses, NodeRecord
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import ADDRESSES
from comity.trust.tlog.note import VerifierKey

PAGE: Final = 200


def iterate_entries(
    ledger: Ledger, query: EntryQuery, *, limit: int | None = None, after: IndexedEntry | None = None
) -> Iterator[IndexedEntry]:
    """The matching entries in order, at most `limit`, after the entry `after`. Blocking."""
    while limit is None or limit > 0:
        size = PAGE if limit is None else min(PAGE, limit)
        page = ledger.index.find(query, limit=size, after=(after.vkey, after.index) if after else None)
        yield from page
        if len(page) < size:
            return
        after = page[-1]
        limit = None if limit is None else limit - size


def last_entry(ledger: Ledger, query: EntryQuery) -> int | None:
    """The index of the last matching entry of a log. Blocking."""
    return max((found.index for found in iterate_entries(ledger, query)), default=None)


def newest_addresses(ledger: Ledger, record: NodeRecord) -> bytes | None:
    """The newest `addresses` line of the node of `record` in its own log, or None. Blocking."""
    return ledger.proven.last_by(record.node.id, ADDRESSES, str(record.log))


def cosigned_times(ledger: Ledger, membership: Membership, log: VerifierKey) -> dict[Digest, int]:
    """By member, the newest time (POSIX seconds, by its clock) of its cosignatures of a log's newest checkpoint.
    Blocking."""
    try:
        note = ledger.cosignatures.cosigned(str(log))
    except NotFound:
        return {}
    return membership.cosigned_times(note)


LEDGER_MARK: Final = "ledger.inode"
OUTSIDE_MARK: Final = "outside.inode"
"""The mark for what was signed for outside logs. Peers cannot restore it: only the operator can reset it."""


class LedgerMark(Protocol):
    """The mark of the database that this node last wrote to."""

    @abstractmethod
    def mismatches(self, *, begun: bool) -> bool:
        """Whether this node last wrote to another database.

        Args:
            begun: whether the ledger holds entries of the own log, or signatures for outside logs. The mark is written
                before the first of these, so a ledger that holds some and has no mark is a copy.

        Raises Unavailable.
        """

    @abstractmethod
    def write(self) -> None:
        """Mark this ledger as the current one. Durable when it returns. Raises OutOfSpace, Unavailable."""

    @abstractmethod
    def reset_command(self) -> str:
        """The command with which an operator accepts a copy, if no peer is left to ask."""


@dataclass(frozen=True, slots=True)
class RowMark(LedgerMark):
    """The mark `name` in the tables of a ledger in PostgreSQL. One that an earlier version wrote to `file` counts until
    there is a row."""

    ledger: Ledger
    name: str
    database: str
    file: Path

    def mismatches(self, *, begun: bool) -> bool:
        marked = self.ledger.marks.get(self.name)
        if marked is None and self.file.exists():
            return FileMark(self.file, self.ledger.identity).mismatches(begun=begun)
        return marked != self.ledger.identity if marked is not None else begun

    def write(self) -> None:
        self.ledger.marks.put(self.name, self.ledger.identity)

    def reset_command(self) -> str:
        row = f"DELETE FROM marks WHERE name = '{self.name}'; "
        row += f"INSERT INTO marks VALUES ('{self.name}', '{self.ledger.identity}')"
        return f"psql {shlex.quote(self.database)} -c {shlex.quote(row)}"


@dataclass(frozen=True, slots=True)
class FileMark(LedgerMark):
    """The mark in `file`, beside a ledger with a known `identity`."""

    file: Path
    identity: str

    def mismatches(self, *, begun: bool) -> bool:
        with disk_errors("the ledger's mark was not read"):
            return self.file.read_text("utf-8", "replace").strip() != self.identity if self.file.exists() else begun

    def write(self) -> None:
        write_file(self.file, f"{self.identity}\n".encode(), point="continuity")

    def reset_command(self) -> str:
        return f"echo {shlex.quote(self.identity)} > {shlex.quote(str(self.file))}"


OPEN_TIMEOUT: Final = 10.0
"""Seconds that an append waits for the log to open."""

Recover = Callable[[], Awaitable[None]]
"""Returns when the ledger holds the newest log that this node ever signed. Raises Untrusted if it does not."""

Compose = Callable[[Make], Awaitable[list[tuple[int, bytes]]]]
"""Logs the lines that a function makes for the current log: `OwnLog.compose`."""

_log: Final = structlog.get_logger("comity.node")


class OwnLog:
    """Writes the node's own log. `run` does the work; `append` waits until the log is open.

    Attributes:
        signer: signs the node's own statements, which are logged here alone.
    """

    def __init__(
        self, ledger: AsyncLedger, own_node: OwnNode, keys: NodeKeys, advertise: Advertise, recover: Recover
    ) -> None:
        self._ledger = ledger
        self._own_node = own_node
        self.signer = keys.signer
        self._advertise = advertise
        self._recover = recover
        self.refusal: ComityError | None = None
        """Why the log is closed; None while it may be written."""
        self._sequencer = Sequencer(ledger.tables, own_node.record.log, keys.sign_checkpoint)
        self._open = asyncio.Event()

    async def append(self, line: bytes) -> int:
        """Log one line. Returns its index after it is on disk. Raises as `append_all` does."""
        (index,) = await self.append_all((line,))
        return index

    async def append_all(self, lines: Sequence[bytes]) -> list[int]:
        """Log statements together, all or none. Returns their indexes. A statement that is already in the log, with any
        signatures, is not logged again.

        Raises what `Sequencer.append_all` raises, Unavailable (LOG-STARTING), and Refused if the log is closed.
        """
        await self._require_open()
        return await self._sequencer.append_all(lines)

    async def compose(self, make: Make) -> list[tuple[int, bytes]]:
        """Log the lines that `make` returns for the current log. Returns index and line of each. Raises what
        `Sequencer.compose` raises."""
        await self._require_open()
        first, lines = await self._sequencer.compose(make)
        return list(enumerate(lines, first))

    async def run(self) -> None:
        """Sign and append until cancelled. Raises what ended the sequencer.

        If the log is not the one that was signed, nothing is written: the node keeps serving reads and refuses to sign.
        """
        try:
            await self._recover()
        except Untrusted as error:
            self.refusal = error
            self._open.set()
            _log.error("own log is closed: the node signs nothing", what=error.what, why=error.why, code=error.code)
            await asyncio.Event().wait()
        sequencing = asyncio.create_task(self._sequencer.run(), name="sequencer")
        try:
            own_records = asyncio.create_task(self._log_own_records(), name="introduce")
            await asyncio.wait((sequencing, own_records), return_when=asyncio.FIRST_COMPLETED)
            if own_records.done():
                own_records.result()
                self._open.set()
            await sequencing
        finally:
            sequencing.cancel()
            own_records.cancel()
            await asyncio.gather(sequencing, own_records, return_exceptions=True)

    async def _require_open(self) -> None:
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                await self._open.wait()
        except TimeoutError as error:
            why = "the node first asks its peers for the newest checkpoint that it signed"
            hint = "try again in a moment"
            raise Unavailable("this node's log is not open yet", why=why, hint=hint, code="LOG-STARTING") from error
        if self.refusal is not None:
            raise Refused("this node's log is closed", why=str(self.refusal), code=self.refusal.code)

    async def _log_own_records(self) -> None:
        """Log the inception, rotations and node record of this node, and its addresses if they changed."""
        own_node, advertise = self._own_node, self._advertise
        await self._sequencer.append_all((own_node.inception_line, *own_node.rotation_lines, own_node.record_line))
        newest = await self._ledger.run(newest_addresses, self._ledger.tables, own_node.record)
        wanted = (advertise.mutual, advertise.open)
        if any(wanted) and (newest is None or _listed_addresses(newest) != wanted):
            entry = sign_content(Addresses.of(own_node.record, *wanted, newest or b""), self.signer.online)
            await self._sequencer.append_all((entry.line,))


def _listed_addresses(line: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    addresses = Addresses.parse(parse_entry(line).statement)
    return addresses.mutual, addresses.open
