"""The log that this node writes, and shared helpers to read the ledger.

`OwnLog` opens once the node knows that its ledger holds everything that it signed; then it logs the node's own identity
lines and appends statements. `iterate_entries` reads the ledger's index page by page.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

import structlog

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


REPAIR_SECONDS: Final = 5.0
"""Seconds between two looks at a damaged log."""
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
            await self._until_sound()
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

    async def _until_sound(self) -> None:
        """Recover the log. While its entries are damaged, the node serves and signs nothing: the scrub fetches them."""
        log = str(self._own_node.record.log)
        while True:
            try:
                await self._recover()
                await self._ledger.run(self._ledger.tables.history.verify_right_edge, log)
            except Untrusted as error:
                if error.code != "LEDGER-CORRUPT":
                    raise
                if self.refusal is None:
                    _log.error(
                        "own log is closed until it is repaired", what=error.what, why=error.why, code=error.code
                    )
                self.refusal = error
                self._open.set()
                await asyncio.sleep(REPAIR_SECONDS)
            else:
                break
        if self.refusal is not None:
            self.refusal = None
            self._open.clear()

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
