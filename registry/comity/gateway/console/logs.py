"""The log explorer: entries of a log by page, one entry with its proof, and checkpoints with their cosigners.

A log is named in an address by the first digits of the SHA-256 of its verifier key, because origins contain slashes and
two logs may share one. An entry is *verified here* if the intake verified its signatures; other entries are in the log,
but nothing is known of their authors.
"""

from __future__ import annotations

import json
from typing import Final

from comity.gateway.console.state import StateReader, kind_of
from comity.ledger.log_store import LogState
from comity.node.services.log import LogServicer
from comity.node.threads import AsyncLedger
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, NotFound, Unavailable
from comity.trust.frozen import frozen
from comity.trust.statement import Author, parse_entry
from comity.trust.statement_kinds import KNOWN_PREDICATES
from comity.trust.tlog.note import Checkpoint

PAGE: Final = 50
MAX_SHOWN: Final = 64 * 1024
"""Characters of a statement that are shown."""
DIGITS: Final = 16


def log_id(vkey: str) -> str:
    """The name of a log in addresses."""
    return sha256(vkey.encode())[:DIGITS]


@frozen
class LogLine:
    """An entry in a list. `verified`: its signatures were verified here; None while the log is not read so far."""

    index: int
    kind: str
    subject: str
    page: str
    by: str
    digest: Digest
    verified: bool | None


@frozen
class LogPage:
    """Entries, the newest first. `newer` and `older` are the `from` of the neighbouring pages, None at the ends."""

    log: LogState
    lines: tuple[LogLine, ...]
    newer: int | None
    older: int | None


@frozen
class EntryPage:
    """One entry. `text` is the statement as indented JSON; `proof_size` the size of the tree of its best proof."""

    log: LogState
    line: LogLine
    text: str
    cut: bool
    proof_size: int | None


class LogExplorer:
    """Reads logs. Not thread-safe: call from the event loop."""

    def __init__(self, ledger: AsyncLedger, states: StateReader) -> None:
        self._ledger = ledger
        self._states = states
        self._service = LogServicer(ledger)

    async def log(self, name: str) -> LogState:
        """Raises NotFound (NO-SUCH-LOG)."""
        for state in await self._ledger.read(self._ledger.tables.logs.all):
            if log_id(state.vkey) == name:
                return state
        raise NotFound("this node has no such log", code="NO-SUCH-LOG")

    async def entries(self, name: str, start: int | None) -> LogPage:
        """The entries from `start` downwards; by default the newest. Raises NotFound (NO-SUCH-LOG)."""
        log = await self.log(name)
        last = log.size - 1 if start is None else min(start, log.size - 1)
        first = max(0, last - PAGE + 1)
        lines = await self._ledger.run(self._read, log, first, last + 1) if log.size else []
        newer = min(log.size - 1, last + PAGE) if last < log.size - 1 else None
        return LogPage(log, tuple(reversed(lines)), newer, first - 1 if first > 0 else None)

    async def entry(self, name: str, index: int) -> EntryPage:
        """Raises NotFound (NO-SUCH-LOG, BEYOND-LOG)."""
        log = await self.log(name)
        if index >= log.size:
            raise NotFound("not in the log", why=f"{log.origin} has {log.size} entries here", code="BEYOND-LOG")
        (line,) = await self._ledger.run(self._read, log, index, index + 1)
        text = await self._ledger.run(self._text, log, index)
        size = await self._ledger.run(self._proof_size, log, index)
        return EntryPage(log, line, text[:MAX_SHOWN], len(text) > MAX_SHOWN, size)

    async def proof(self, name: str, index: int) -> bytes:
        """The tlog-proof of an entry. Raises NotFound (NO-SUCH-LOG, BEYOND-LOG, NO-PROOF)."""
        page = await self.entry(name, index)
        async for located in self._service.proofs(page.line.digest, page.log.vkey):
            return located.proof
        raise NotFound("no proof", code="NO-PROOF")

    async def checkpoint(self, name: str) -> bytes:
        """The newest checkpoint with its cosignatures. Raises NotFound (NO-SUCH-LOG, NO-CHECKPOINT)."""
        return await self._service.checkpoint((await self.log(name)).vkey, None)

    def _read(self, log: LogState, start: int, end: int) -> list[LogLine]:
        """Blocking."""
        lines = self._ledger.tables.history.entries(log.vkey, start, end)
        verified, names = self._verified(log, start, end), dict[Author, str]()
        return [self._line(start + at, line, verified, names) for at, line in enumerate(lines)]

    def _verified(self, log: LogState, start: int, end: int) -> frozenset[int] | None:
        """Blocking. The indexes of verified entries; None if the intake has not read them yet."""
        try:
            found = self._ledger.tables.index.entries_with(log.vkey, tuple(sorted(KNOWN_PREDICATES)), start, end)
        except Unavailable:
            return None
        return frozenset(index for index, _ in found)

    def _line(self, index: int, line: bytes, verified: frozenset[int] | None, names: dict[Author, str]) -> LogLine:
        """Blocking. `names` are those of the authors of this page, each of which is looked up once."""
        known = None if verified is None else index in verified
        try:
            entry = parse_entry(line)
        except ComityError:
            return LogLine(index, "", "", "", "", sha256(line), known)
        subject, page = self._states.subject(entry)
        by = entry.statement.by
        if by is not None and by not in names:
            names[by] = self._states.author(by)
        who = names[by] if by is not None else ""
        return LogLine(index, kind_of(entry), subject, page if known else "", who, entry.digest, known)

    def _text(self, log: LogState, index: int) -> str:
        """Blocking."""
        line = self._ledger.tables.history.entry(log.vkey, index)
        try:
            return json.dumps(json.loads(parse_entry(line).envelope.payload), indent=2, ensure_ascii=True)
        except (ComityError, ValueError):
            return line[:MAX_SHOWN].decode("ascii", "backslashreplace")

    def _proof_size(self, log: LogState, index: int) -> int | None:
        """Blocking. The size of the checkpoint that the proof of an entry leads to; None without one."""
        try:
            note = self._ledger.tables.cosignatures.best_note(log.vkey, index)
        except NotFound:
            return None
        return Checkpoint.parse(note.text).size
