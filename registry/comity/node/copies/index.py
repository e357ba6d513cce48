"""An index of what the logs say about copies: holds, withdrawals, and results of audits.

It is derived from the proven statements of the ledger, in an SQLite file beside it (`comity.node.projection`), and
costs what is new. It also keeps what only this node knows: when it last tried each copy, and the answers of the last 90
days.

    grows with                    bound          charged to             at the bound
    holds, withdrawals            the log quota  the log                its log is not read on
    results of an auditor         MAX_RESULTS    the auditor's member   results about further copies are not indexed
    own audits                    KEPT_DAYS      this node's budget     removed
    what a log asks for           MAX_WANTED     the log                more of it is not indexed
    challenges carried by file    MAX_CARRIED    this node's operator   the oldest are forgotten

A result is indexed only about a copy that is claimed, once for each auditor's member.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final, TypeAlias

from comity.node.projection import START, Position, Projection, ProjectionTables, packed, unpacked
from comity.node.telemetry import warn_of_kept_file
from comity.rules.artifact_pins import MAX_WANTED
from comity.rules.audit import AuditChallenge
from comity.rules.copy_counts import MISSED, AuditResult, CopyPolicy, result_rank
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.trust.statement import SideObject

MAX_RESULTS: Final = 200_000
MAX_CARRIED: Final = 100_000
MAX_CHANGES: Final = 100_000
"""Changes that are kept for readers that follow the index."""
CLAIMS_READ: Final = 16_384
"""Claims, and results of audits, that `CopiesIndex.claims` reads at once: about 20 ms."""
ASKED_TOGETHER: Final = 256
"""Artifacts in one query."""
KEPT_DAYS: Final = 90
_SCHEMA: Final = """
CREATE TABLE copy (
    artifact BLOB NOT NULL, log INTEGER NOT NULL, node BLOB NOT NULL, held INTEGER NOT NULL,
    manifest BLOB NOT NULL, manifest_size INTEGER NOT NULL, pieces BLOB NOT NULL, pieces_size INTEGER NOT NULL,
    withdrawn INTEGER NOT NULL, reason TEXT NOT NULL,
    here INTEGER NOT NULL, tried INTEGER NOT NULL, draw INTEGER NOT NULL,
    PRIMARY KEY (artifact, log)) WITHOUT ROWID;
CREATE INDEX copy_next ON copy (tried, draw) WHERE here = 1 AND withdrawn < held;
CREATE INDEX copy_next_of ON copy (log, tried, draw) WHERE here = 1 AND withdrawn < held;
CREATE TABLE result (
    artifact BLOB NOT NULL, log INTEGER NOT NULL, auditor BLOB NOT NULL, missed INTEGER NOT NULL,
    day INTEGER NOT NULL, outcome TEXT NOT NULL, pieces INTEGER NOT NULL, proven INTEGER NOT NULL,
    PRIMARY KEY (artifact, log, auditor, missed)) WITHOUT ROWID;
CREATE INDEX result_day ON result (day);
CREATE TABLE wanted (
    log INTEGER NOT NULL, artifact BLOB NOT NULL, at INTEGER NOT NULL,
    copies INTEGER NOT NULL, jurisdictions INTEGER NOT NULL, reaches INTEGER NOT NULL,
    PRIMARY KEY (log, artifact)) WITHOUT ROWID;
CREATE INDEX wanted_artifact ON wanted (artifact);
"""
_KEPT: Final = """
CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, vkey TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS own_audit (
    id INTEGER PRIMARY KEY, day INTEGER NOT NULL, artifact BLOB NOT NULL, node BLOB NOT NULL,
    passed INTEGER NOT NULL, pieces INTEGER NOT NULL, line BLOB NOT NULL, logged INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS own_audit_day ON own_audit (logged, day);
CREATE TABLE IF NOT EXISTS open_challenge (
    nonce BLOB PRIMARY KEY, auditor BLOB NOT NULL, prover BLOB NOT NULL, artifact BLOB NOT NULL, pieces BLOB NOT NULL,
    numbers TEXT NOT NULL, log TEXT NOT NULL, drawn INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS open_challenge_drawn ON open_challenge (drawn);
"""
_CLAIMS: Final = """
SELECT artifact, count(*), group_concat(log || hex(node) || iif(withdrawn > held, reason, ''))
FROM copy WHERE {} GROUP BY artifact ORDER BY artifact
"""
"""Artifacts, the number of claims about each, and a text that is the same for equal claims: rows are read in the order
of the primary key, each artifact when its row is asked for."""
_HELD_HERE: Final = "EXISTS (SELECT 1 FROM copy WHERE artifact = ? AND log = ? AND withdrawn < held)"
"""Of an artifact and the number of this node's own log."""
_HOLD: Final = (
    f"INSERT INTO copy VALUES (?,?,?,?,?,?,?,?,-1,'',? AND {_HELD_HERE},0,?) ON CONFLICT (artifact, log) DO UPDATE SET"
    " node = excluded.node, held = excluded.held, manifest = excluded.manifest,"
    " manifest_size = excluded.manifest_size, pieces = excluded.pieces, pieces_size = excluded.pieces_size"
    " WHERE excluded.held > held"
)
_RESULT: Final = "log, auditor, day, outcome, pieces, proven"
_ResultRow: TypeAlias = tuple[int, bytes, int, str, int, int]
_TABLES: Final = ProjectionTables("copies", "the index of copies", 1, _SCHEMA, _KEPT, warn_of_kept_file)


@frozen
class HoldFact:
    """A `hold` at `index` of `log` (a verifier key), by the node `node`."""

    artifact: Digest
    log: str
    node: Digest
    index: int
    manifest: SideObject
    pieces: SideObject


@frozen
class WithdrawalFact:
    artifact: Digest
    log: str
    index: int
    reason: str


@frozen
class ResultFact:
    """The result of an audit of the copy that `log` claims."""

    artifact: Digest
    log: str
    result: AuditResult


@frozen
class WantedFact:
    """The node of `log` asks for copies of an artifact, at `index` of that log."""

    artifact: Digest
    log: str
    index: int
    policy: CopyPolicy


@frozen
class WantedEndFact:
    """The node of `log` ends what it asked for at `index` of that log."""

    artifact: Digest
    log: str
    index: int


CopyFact = HoldFact | WithdrawalFact | ResultFact | WantedFact | WantedEndFact


@frozen
class CopyRow:
    """The copy of an artifact that a log claims. `withdrawn` is the reason, if the claim was withdrawn later."""

    artifact: Digest
    log: str
    node: Digest
    manifest: SideObject
    pieces: SideObject
    withdrawn: str
    results: tuple[AuditResult, ...] = ()


@frozen
class LoggedClaim:
    """What a log claims about some artifact: a `CopyRow` without what is its artifact's alone."""

    log: str
    node: Digest
    withdrawn: str
    results: tuple[AuditResult, ...] = ()


@frozen
class ClaimsPage:
    """The claims about each of some artifacts, in the order of artifacts; `more`: others follow. Artifacts with equal
    claims that nobody audited have the same object."""

    found: tuple[tuple[Digest, tuple[LoggedClaim, ...]], ...]
    more: bool


@frozen
class OwnAudit:
    """An audit by this node: the signed answer if it passed, otherwise an empty line."""

    day: int
    artifact: Digest
    node: Digest
    passed: bool
    pieces: int
    line: bytes = b""
    id: int = 0


@frozen
class CarriedChallenge:
    """A challenge that went out in a file, for the copy that `log` claims; `drawn` at that POSIX time."""

    challenge: AuditChallenge
    log: str
    drawn: int


@frozen
class CopyChanges:
    """Artifacts about whose copies something was added, and the position after them. `missed`: more was changed than is
    kept, so that a reader has to look at every artifact again."""

    artifacts: tuple[Digest, ...]
    position: int
    missed: bool


DrawNumber = Callable[[], int]


class CopiesIndex(Projection):
    """Each call raises as those of `Projection`.

    Args:
        file: the database, created if it is missing.
        own_log: the verifier key of the log of this node.
        draw: returns a random number below 2**62.
    """

    def __init__(self, file: Path, own_log: str, draw: DrawNumber) -> None:
        """Raises Unavailable, OutOfSpace."""
        self._own_log = own_log
        self._draw = draw
        super().__init__(file, _TABLES, own_log)
        with self._reading() as database:
            self._rolled_back(database)
        self._changed: deque[Digest] = deque(maxlen=MAX_CHANGES)
        self._changes = 0
        self.opened_position = self.position
        """The position when the index was opened: all changes since are in `changes`."""

    @property
    def most_results(self) -> int:
        """The most results of one auditor, at most `MAX_RESULTS`."""
        return max(self._result_counts.values(), default=0)

    def begin_again(self, basis: str, position: Position = START) -> None:
        """Forget what was read from the logs. What only this node knows stays."""
        super().begin_again(basis, position)
        with self._reading() as database:
            self._rolled_back(database)
            self._changed.clear()
            self._changes += 1

    def changes(self, after: int, limit: int) -> CopyChanges:
        """The next `limit` changes after a position that this object gave before; 0 for all since it was opened."""
        with self._lock:
            first = self._changes - len(self._changed)
            if not first <= after <= self._changes:
                return CopyChanges((), self._changes, True)
            found = tuple(islice(self._changed, after - first, after - first + limit))
            return CopyChanges(found, after + len(found), False)

    @property
    def change_position(self) -> int:
        """The position after the last change."""
        with self._lock:
            return self._changes

    def add(self, facts: Iterable[CopyFact], position: Position | None = None) -> None:
        """Add facts, and move the position after the last. A fact that is added twice counts once."""
        self._write(facts, self._add_some, position)

    def copies(self, artifact: Digest) -> list[CopyRow]:
        """All copies of an artifact that logs claim or claimed."""
        with self._reading():
            return self._copies(packed(artifact))

    def wanted_about(self, artifact: Digest) -> list[WantedFact]:
        """Which logs ask for copies of an artifact."""
        with self._reading():
            return list(self._wanted("WHERE artifact = ?", (packed(artifact),)))

    def wanted_in(self, log: str) -> list[WantedFact]:
        """What a log asks for, in the order of artifacts; at most MAX_WANTED."""
        with self._reading():
            return list(self._wanted("WHERE log = ? ORDER BY artifact", (self._logs.get(log, -1),)))

    def page(self, after: Digest | None, limit: int) -> list[list[CopyRow]]:
        """The copies of the next `limit` artifacts after `after`, in the order of artifacts."""
        start = packed(after) if after else b""
        with self._reading():
            wanted = "SELECT DISTINCT artifact FROM copy WHERE artifact > ? ORDER BY artifact LIMIT ?"
            artifacts = [row[0] for row in self._database.execute(wanted, (start, limit))]
            return [self._copies(artifact) for artifact in artifacts]

    def claims(self, after: Digest | None, limit: int) -> ClaimsPage:
        """What logs claim about the next artifacts after `after`, at most `limit`, in three queries and one for each
        different set of claims: in most ledgers, these are few."""
        start, left, more = packed(after) if after else b"", CLAIMS_READ, False
        found = list[tuple[bytes, str]]()
        with self._reading() as database:
            for artifact, count, key in database.execute(_CLAIMS.format("artifact > ?"), (start,)):
                left -= count
                if more := bool(found) and (left < 0 or len(found) == limit):
                    break
                found.append((artifact, key))
            between = "artifact > ? AND artifact <= ?"
            results = self._results_where(between, (start, found[-1][0]), CLAIMS_READ) if found else {}
            if sum(map(len, results.values())) == CLAIMS_READ:  # the last artifact may have more
                last, read = max(results), len(found)
                found = [item for item in found if item[0] < last] or found[:1]
                more |= len(found) < read
                if found[0][0] == last:
                    wanted = f"SELECT {_RESULT} FROM result WHERE artifact = ?"
                    results[last] = database.execute(wanted, (last,)).fetchall()
            return ClaimsPage(tuple(self._shared(found, results)), more)

    def claims_about(self, artifacts: Sequence[Digest]) -> list[tuple[LoggedClaim, ...]]:
        """What logs claim about each of these artifacts, as `claims` reads it."""
        found = dict[Digest, tuple[LoggedClaim, ...]]()
        with self._reading() as database:
            for start in range(0, len(artifacts), ASKED_TOGETHER):
                keys = [packed(artifact) for artifact in artifacts[start : start + ASKED_TOGETHER]]
                among = f"artifact IN ({','.join('?' * len(keys))})"
                rows = [(artifact, key) for artifact, _, key in database.execute(_CLAIMS.format(among), keys)]
                results = self._results_where(among, keys, -1)
                found.update(self._shared(rows, results))
        return [found.get(artifact, ()) for artifact in artifacts]

    def _shared(
        self, found: Sequence[tuple[bytes, str]], results: Mapping[bytes, Sequence[_ResultRow]]
    ) -> list[tuple[Digest, tuple[LoggedClaim, ...]]]:
        """The claims about artifacts with these keys: the same object for equal keys that nobody audited."""
        known: dict[str, tuple[LoggedClaim, ...]] = {}
        page = []
        for artifact, key in found:
            if key not in known:
                known[key] = tuple(map(_claim, self._rows("WHERE artifact = ?", (artifact,), {})))
            page.append((unpacked(artifact), _with_results(known[key], self._by_vkey(results.get(artifact, ())))))
        return page

    def _results_where(self, where: str, values: Sequence[object], limit: int) -> defaultdict[bytes, list[_ResultRow]]:
        results = defaultdict[bytes, list[_ResultRow]](list)
        wanted = f"SELECT artifact, {_RESULT} FROM result WHERE {where} ORDER BY artifact LIMIT ?"
        for artifact, *row in self._database.execute(wanted, (*values, limit)):
            results[artifact].append(tuple(row))
        return results

    def next_copies(self, now: int, pause: int, limit: int) -> list[CopyRow]:
        """Claimed copies of artifacts that this node has too and did not try in the last `pause` seconds; those first
        that it did not try for the longest time, in random order among those. `now` is in POSIX seconds; a copy that
        was tried later than that, by a clock that was ahead, is not left out."""
        tried = "tried NOT BETWEEN ? AND ?" if pause else "1"
        where = f"WHERE here = 1 AND withdrawn < held AND {tried} ORDER BY tried, draw LIMIT ?"
        with self._reading():
            return list(self._rows(where, (*((now - pause + 1, now) if pause else ()), limit), {}))

    def copies_of(self, log: str, artifact: Digest | None, limit: int) -> list[CopyRow]:
        """Claimed copies of one log that this node has too, or its copy of one artifact; those first that this node did
        not try for the longest time."""
        where, values = "log = ? AND here = 1 AND withdrawn < held", [self._logs.get(log, -1)]
        with self._reading():
            if artifact is not None:
                return list(self._rows(f"WHERE artifact = ? AND {where}", (packed(artifact), *values), {}))
            return list(self._rows(f"WHERE {where} ORDER BY tried, draw LIMIT ?", (*values, limit), {}))

    def carry(self, carried: CarriedChallenge) -> None:
        """Keep a challenge until it is answered."""
        challenge = carried.challenge
        parties = challenge.nonce, challenge.auditor, challenge.prover
        named = tuple(map(packed, (*parties, challenge.artifact, challenge.pieces)))
        with self._writing() as database:
            numbers = ",".join(map(str, challenge.numbers))
            database.execute(
                "INSERT OR REPLACE INTO open_challenge VALUES (?,?,?,?,?,?,?,?)",
                (*named, numbers, carried.log, carried.drawn),
            )
            database.execute(
                "DELETE FROM open_challenge"
                " WHERE nonce IN (SELECT nonce FROM open_challenge ORDER BY drawn DESC LIMIT -1 OFFSET ?)",
                (MAX_CARRIED,),
            )

    def carried(self, nonce: Digest) -> CarriedChallenge | None:
        """The open challenge with this nonce."""
        wanted = "SELECT auditor, prover, artifact, pieces, numbers, log, drawn FROM open_challenge WHERE nonce = ?"
        with self._reading():
            row = self._database.execute(wanted, (packed(nonce),)).fetchone()
        if row is None:
            return None
        auditor, prover, artifact, pieces, numbers, log, drawn = row
        named = unpacked(auditor), unpacked(prover), unpacked(artifact), unpacked(pieces), nonce
        return CarriedChallenge(AuditChallenge(*named, tuple(map(int, numbers.split(",")))), log, drawn)

    def answered(self, nonce: Digest) -> None:
        with self._writing() as database:
            database.execute("DELETE FROM open_challenge WHERE nonce = ?", (packed(nonce),))

    def tried(self, artifact: Digest, log: str, at: int) -> None:
        """This node audited the copy at `at`, or could not. Every copy is tried again before this one is."""
        with self._writing() as database:
            values = (at, self._draw(), packed(artifact), self._log_id(database, log))
            database.execute("UPDATE copy SET tried = ?, draw = ? WHERE artifact = ? AND log = ?", values)

    def add_own(self, audit: OwnAudit, nonce: Digest) -> None:
        """Keep an audit of this node, and end the challenge of this nonce if it was carried by file."""
        with self._writing() as database:
            values = (audit.day, packed(audit.artifact), packed(audit.node), audit.passed, audit.pieces, audit.line)
            database.execute(
                "INSERT INTO own_audit (day, artifact, node, passed, pieces, line, logged) VALUES (?,?,?,?,?,?,0)",
                values,
            )
            database.execute("DELETE FROM open_challenge WHERE nonce = ?", (packed(nonce),))

    def unlogged_days(self, today: int) -> list[int]:
        with self._reading():
            wanted = "SELECT DISTINCT day FROM own_audit WHERE logged = 0 AND day < ? ORDER BY day"
            return [row[0] for row in self._database.execute(wanted, (today,))]

    def own_audits(self, day: int) -> list[OwnAudit]:
        """The audits of a day that are not logged, by artifact and node."""
        with self._reading():
            wanted = (
                "SELECT day, artifact, node, passed, pieces, line, id FROM own_audit WHERE logged = 0 AND day = ?"
                " ORDER BY artifact, node, id"
            )
            return [
                OwnAudit(day, unpacked(artifact), unpacked(node), bool(passed), pieces, line, id_)
                for day, artifact, node, passed, pieces, line, id_ in self._database.execute(wanted, (day,))
            ]

    def logged(self, day: int, today: int) -> None:
        """The summaries of a day are in the log. Also removes what is too old."""
        with self._writing() as database:
            database.execute("UPDATE own_audit SET logged = 1 WHERE day = ?", (day,))
            database.execute("DELETE FROM own_audit WHERE logged = 1 AND day < ?", (today - KEPT_DAYS,))
            database.execute("DELETE FROM result WHERE day < ?", (today - KEPT_DAYS,))
            self._result_counts = self._count_results()

    def _add_some(self, database: sqlite3.Connection, facts: Iterable[CopyFact]) -> None:
        for fact in facts:
            self._add(database, fact)

    def _add(self, database: sqlite3.Connection, fact: CopyFact) -> None:
        if isinstance(fact, HoldFact):
            self._add_hold(database, fact)
        elif isinstance(fact, WithdrawalFact):
            self._add_withdrawal(database, fact)
        elif isinstance(fact, WantedFact):
            self._add_wanted(database, fact)
        elif isinstance(fact, WantedEndFact):
            values = (self._log_id(database, fact.log), packed(fact.artifact), fact.index)
            database.execute("DELETE FROM wanted WHERE log = ? AND artifact = ? AND at <= ?", values)
        else:
            self._add_result(database, fact)
        self._changed.append(fact.artifact)
        self._changes += 1

    def _add_hold(self, database: sqlite3.Connection, fact: HoldFact) -> None:
        log, own = self._log_id(database, fact.log), self._log_id(database, self._own_log)
        artifact = packed(fact.artifact)
        documents = (packed(fact.manifest.digest), fact.manifest.size, packed(fact.pieces.digest), fact.pieces.size)
        here = (log != own, artifact, own)
        database.execute(_HOLD, (artifact, log, packed(fact.node), fact.index, *documents, *here, self._draw()))
        if log == own:
            self._update_here(database, artifact)

    def _add_withdrawal(self, database: sqlite3.Connection, fact: WithdrawalFact) -> None:
        artifact, log = packed(fact.artifact), self._log_id(database, fact.log)
        database.execute(
            "UPDATE copy SET withdrawn = ?, reason = ? WHERE artifact = ? AND log = ? AND withdrawn < ?",
            (fact.index, fact.reason, artifact, log, fact.index),
        )
        if fact.log == self._own_log:
            self._update_here(database, artifact)

    def _add_wanted(self, database: sqlite3.Connection, fact: WantedFact) -> None:
        log, artifact, policy = self._log_id(database, fact.log), packed(fact.artifact), fact.policy
        database.execute("DELETE FROM wanted WHERE log = ? AND artifact = ? AND at <= ?", (log, artifact, fact.index))
        if database.execute("SELECT count(*) FROM wanted WHERE log = ?", (log,)).fetchone()[0] < MAX_WANTED:
            values = (log, artifact, fact.index, policy.min_copies, policy.min_jurisdictions, policy.min_reaches)
            database.execute("INSERT OR IGNORE INTO wanted VALUES (?,?,?,?,?,?)", values)

    def _wanted(self, where: str, values: Sequence[object]) -> Iterator[WantedFact]:
        columns = "artifact, log, at, copies, jurisdictions, reaches"
        for artifact, log, at, *policy in self._database.execute(f"SELECT {columns} FROM wanted {where}", values):
            yield WantedFact(unpacked(artifact), self._vkeys[log], at, CopyPolicy(*policy))

    def _add_result(self, database: sqlite3.Connection, fact: ResultFact) -> None:
        artifact, log, result = packed(fact.artifact), self._log_id(database, fact.log), fact.result
        auditor, missed = packed(result.auditor), result.outcome == MISSED
        key = (artifact, log, auditor, missed)
        if database.execute("SELECT 1 FROM copy WHERE artifact = ? AND log = ?", key[:2]).fetchone() is None:
            return
        known = database.execute(
            "SELECT day, outcome, pieces, proven FROM result WHERE artifact = ? AND log = ? AND auditor = ?"
            " AND missed = ?",
            key,
        ).fetchone()
        if known is None:
            if self._result_counts[auditor] >= MAX_RESULTS:
                return  # `most_results` is in the status, and warns before
            self._result_counts[auditor] += 1
        elif result_rank(result) <= result_rank(AuditResult(result.auditor, *known)):
            return
        values = (*key, result.day, result.outcome, result.pieces, result.proven)
        database.execute("INSERT OR REPLACE INTO result VALUES (?,?,?,?,?,?,?,?)", values)

    def _update_here(self, database: sqlite3.Connection, artifact: bytes) -> None:
        own = self._log_id(database, self._own_log)
        update = f"UPDATE copy SET here = {_HELD_HERE} WHERE artifact = ? AND log <> ?"
        database.execute(update, (artifact, own, artifact, own))

    def _log_id(self, database: sqlite3.Connection, vkey: str) -> int:
        if vkey not in self._logs:
            row = database.execute("INSERT INTO log (vkey) VALUES (?) RETURNING id", (vkey,)).fetchone()
            self._logs[vkey], self._vkeys[row[0]] = row[0], vkey
        return self._logs[vkey]

    def _copies(self, artifact: bytes) -> list[CopyRow]:
        rows = self._database.execute(f"SELECT {_RESULT} FROM result WHERE artifact = ?", (artifact,))
        return list(self._rows("WHERE artifact = ?", (artifact,), _by_log(rows)))

    def _rows(
        self, where: str, values: Sequence[object], results: Mapping[int, Sequence[AuditResult]]
    ) -> Iterator[CopyRow]:
        columns = "artifact, log, node, held, manifest, manifest_size, pieces, pieces_size, withdrawn, reason"
        for row in self._database.execute(f"SELECT {columns} FROM copy {where}", values).fetchall():
            artifact, log, node, held, manifest, manifest_size, pieces, pieces_size, withdrawn, reason = row
            yield CopyRow(
                unpacked(artifact),
                self._vkeys[log],
                unpacked(node),
                SideObject(unpacked(manifest), manifest_size),
                SideObject(unpacked(pieces), pieces_size),
                reason if withdrawn > held else "",
                tuple(results.get(log, ())),
            )

    def _by_vkey(self, rows: Iterable[_ResultRow]) -> Mapping[str, Sequence[AuditResult]]:
        return {self._vkeys[log]: results for log, results in _by_log(rows).items()} if rows else {}

    def _rolled_back(self, database: sqlite3.Connection) -> None:
        """What memory has of the rows is read again."""
        self._logs: dict[str, int] = dict(database.execute("SELECT vkey, id FROM log"))
        self._vkeys = {id_: vkey for vkey, id_ in self._logs.items()}
        self._result_counts = self._count_results()

    def _count_results(self) -> Counter[bytes]:
        return Counter(dict(self._database.execute("SELECT auditor, count(*) FROM result GROUP BY auditor")))


def _by_log(rows: Iterable[_ResultRow]) -> dict[int, list[AuditResult]]:
    results = defaultdict[int, list[AuditResult]](list)
    for log, auditor, day, outcome, pieces, proven in rows:
        results[log].append(AuditResult(unpacked(auditor), day, outcome, pieces, bool(proven)))
    return results


def _claim(row: CopyRow) -> LoggedClaim:
    return LoggedClaim(row.log, row.node, row.withdrawn)


def _with_results(
    claims: tuple[LoggedClaim, ...], results: Mapping[str, Sequence[AuditResult]]
) -> tuple[LoggedClaim, ...]:
    if not results:
        return claims
    return tuple(replace(claim, results=tuple(results.get(claim.log, ()))) for claim in claims)
