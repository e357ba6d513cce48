"""The signatures of other nodes over the checkpoints that are kept here, so that any mirror can hand out a proof.

Whoever adds a cosignature has verified it. Kept are, for each log, the cosignatures of at most `MAX_SIZES` sizes, of at
most `MAX_NAMES` cosigners each, so that a note with all of them stays within the 100 lines that others read. A size
gives way when a larger one has every cosigner key that it has; beyond `MAX_SIZES` the one with the fewest cosigners
does, the smallest of them first, and never the largest size. Checkpoints themselves are never dropped.


The newest checkpoint that was submitted of each log, for ever: what a witness must not go back behind.

State belongs to the pair of origin and key. A log whose entries are held here counts with its newest kept checkpoint as
well, whichever is larger, where both are one history. Whoever moves a state has verified the checkpoint and that it
continues the one before.


Proofs that a log has shown two histories, kept for ever and given to everyone who asks.

Whoever keeps a proof has checked it (`comity.trust.tlog.proof.convict`, where the kinds are explained); whoever
gets it checks it again.


The epochs of charters that were found certified here.

Whoever keeps an epoch has proven it (`comity.trust.charter.certificate.certify`). Epochs are kept for ever, those of a branch that
was not followed included: which branch is followed is not decided here.


Which pieces the files of this node consist of, so that a file never fetched before can start from those at hand.

Records come from whoever hashed a file or verified them against a piece index. They are a fact about the file's
SHA-256, whatever becomes of the file, as long as they are what was written: a seal over each row tells. A row that is
not counts as none, and gives way to the next one (docs/decisions/0017-records-outlive-a-restart.md). A piece that is
found is a hint: it is hashed again when it is read.


Up to where it is known, for each log, that every side object that its entries name is in the blob store."""

from __future__ import annotations

import hashlib
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from sqlalchemy import Connection, LargeBinary, cast, delete, distinct, func, insert, select, tuple_, update

from comity.ledger import schema, tree
from comity.ledger.database import Database, LogRow, find_log
from comity.ledger.tree import SignedHead, head_at, newest_head
from comity.trust.artifact import parse_records
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Conflict, Malformed, NotFound, Untrusted
from comity.trust.tlog.merkle import EMPTY_ROOT
from comity.trust.tlog.note import Checkpoint, NoteSignature, SignedNote, VerifierKey
from comity.trust.tlog.proof import KINDS

MAX_NAMES: Final = 48
MAX_KEYS: Final = 2
"""Signatures of one cosigner over one size: Ed25519 and ML-DSA-44."""
MAX_SIZES: Final = 64
MAX_SIGNATURE: Final = 8192

_TIMESTAMP_SIZE: Final = 8
_MADE = schema.cosignatures.c

_Key: TypeAlias = tuple[str, bytes]


class Cosignatures:
    """Cosigned checkpoints of all logs, each named by its verifier key, or its origin alone. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, name: str, size: int, root: bytes, signatures: Iterable[NoteSignature]) -> int:
        """Keep verified cosignatures of the checkpoint (`size`, `root`) of a log; how many were new or newer.

        Of two by one key over one checkpoint the one with the later time stays. Raises NotFound where the checkpoint
        is not kept here, Untrusted(code="ROOT-MISMATCH") where it has another root, and Malformed for a signature
        that is none.
        """
        offered = list(signatures)
        if any(not _TIMESTAMP_SIZE < len(line.signature) <= MAX_SIGNATURE for line in offered):
            raise Malformed("not a cosignature", why="expected a time and a signature of at most 8 KiB")
        with self._database.writing("cosign") as connection:
            log = find_log(connection, name)
            head = _head(connection, log, size)
            if head.root != root:
                raise Untrusted(
                    "a cosignature of another tree", why=f"size {size} has another root", code="ROOT-MISMATCH"
                )
            added = _merge(connection, log, size, offered)
            if added:
                _prune(connection, log)
            return added

    def cosigned(self, name: str, size: int | None = None) -> SignedNote:
        """The checkpoint of `size`, by default the newest, with the log's signature and every cosignature kept.

        Raises NotFound(code="NO-CHECKPOINT").
        """
        with self._database.reading() as connection:
            log = find_log(connection, name)
            return _note(connection, log, _head(connection, log, size))

    def newest_by(self, name: str, cosigners: Iterable[VerifierKey]) -> SignedNote:
        """The largest checkpoint that one of `cosigners` has signed, with every cosignature kept.

        Raises NotFound(code="NO-CHECKPOINT").
        """
        keys = [(key.name, key.key_id) for key in cosigners]
        with self._database.reading() as connection:
            log = find_log(connection, name)
            by_them = (_MADE.log_id == log.id, tuple_(_MADE.name, _MADE.key_id).in_(keys))
            size = connection.scalar(select(func.max(_MADE.size)).where(*by_them))
            if size is None:
                why = f"none of {log.origin} is cosigned by them"
                raise NotFound("no checkpoint", why=why, code="NO-CHECKPOINT")
            return _note(connection, log, _head(connection, log, size))

    def best_note(self, name: str, index: int) -> SignedNote:
        """Of the checkpoints that cover entry `index`, the one with most cosigners; of several, the largest.

        Raises NotFound(code="NO-CHECKPOINT") where no checkpoint covers it yet.
        """
        with self._database.reading() as connection:
            log = find_log(connection, name)
            head = _most_cosigned(connection, log, index) or newest_head(connection, log, covering=index)
            if head is None:
                raise NotFound(
                    "no checkpoint", why=f"none of {log.origin} covers entry {index} yet", code="NO-CHECKPOINT"
                )
            return _note(connection, log, head)


def _head(connection: Connection, log: LogRow, size: int | None) -> SignedHead:
    head = newest_head(connection, log) if size is None else head_at(connection, log, size)
    if head is None:
        which = "none yet" if size is None else f"none of size {size}"
        raise NotFound("no checkpoint", why=f"{which} of {log.origin} is kept here", code="NO-CHECKPOINT")
    return head


def _most_cosigned(connection: Connection, log: LogRow, index: int) -> SignedHead | None:
    ranked = (
        select(_MADE.size)
        .where(_MADE.log_id == log.id, _MADE.size > index)
        .group_by(_MADE.size)
        .order_by(func.count(distinct(_MADE.name)).desc(), _MADE.size.desc())
        .limit(1)
    )
    size = connection.scalar(ranked)
    return None if size is None else head_at(connection, log, size)


def _note(connection: Connection, log: LogRow, head: SignedHead) -> SignedNote:
    made = select(_MADE.name, _MADE.key_id, _MADE.signature).where(_MADE.log_id == log.id, _MADE.size == head.size)
    lines = [NoteSignature(*row) for row in sorted(map(tuple, connection.execute(made)))]  # databases sort differently
    return SignedNote.parse(head.note).adding(*lines)


def _merge(connection: Connection, log: LogRow, size: int, offered: Iterable[NoteSignature]) -> int:
    """Write those of `offered` that are new, or newer than what is kept, within the bounds on names and keys."""
    here = (_MADE.log_id == log.id, _MADE.size == size)
    kept: dict[_Key, bytes] = {
        (name, key_id): signature
        for name, key_id, signature in connection.execute(
            select(_MADE.name, _MADE.key_id, _MADE.signature).where(*here)
        )
    }
    written = 0
    for line in offered:
        key = (line.name, line.key_id)
        if key in kept:
            if line.signature[:_TIMESTAMP_SIZE] <= kept[key][:_TIMESTAMP_SIZE]:
                continue
            its_own = (*here, _MADE.name == line.name, _MADE.key_id == line.key_id)
            connection.execute(update(schema.cosignatures).where(*its_own).values(signature=line.signature))
        elif _has_room(kept, line.name):
            row = {"log_id": log.id, "size": size, "name": line.name, "key_id": line.key_id}
            connection.execute(insert(schema.cosignatures).values(row | {"signature": line.signature}))
        else:
            continue
        kept[key] = line.signature
        written += 1
    return written


def _has_room(kept: Iterable[_Key], name: str) -> bool:
    names = [other for other, _ in kept]
    return names.count(name) < MAX_KEYS and (name in names or len(set(names)) < MAX_NAMES)


def _prune(connection: Connection, log: LogRow) -> None:
    keys: defaultdict[int, set[_Key]] = defaultdict(set)
    for size, name, key_id in connection.execute(
        select(_MADE.size, _MADE.name, _MADE.key_id).where(_MADE.log_id == log.id)
    ):
        keys[size].add((name, key_id))
    gone = {size for size in keys if any(size < other and keys[size] <= keys[other] for other in keys)}
    left = sorted(set(keys) - gone)
    if len(left) > MAX_SIZES:
        weakest = sorted(left[:-1], key=lambda size: (len({name for name, _ in keys[size]}), size))
        gone.update(weakest[: len(left) - MAX_SIZES])
    if gone:
        connection.execute(delete(schema.cosignatures).where(_MADE.log_id == log.id, _MADE.size.in_(gone)))


_WITNESSED = schema.witnessed.c


@dataclass(frozen=True, slots=True)
class WitnessedHead:
    """A log as it was last seen; `note` is empty where no checkpoint was."""

    size: int
    root: bytes
    note: bytes


NOTHING = WitnessedHead(0, EMPTY_ROOT, b"")


class WitnessedTable:
    """Newest checkpoints by log. Thread-safe; durable when a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def latest(self, log: VerifierKey) -> WitnessedHead:
        """Raises Untrusted(code="SPLIT-VIEW") where what is held is not what was submitted."""
        with self._database.reading() as connection:
            return _latest(connection, log)

    def submitted(self, log: VerifierKey) -> SignedNote | None:
        """The newest checkpoint that was moved to, with the cosignatures that were made on it."""
        with self._database.reading() as connection:
            row = _submitted(connection, log)
            return None if row is None else SignedNote.parse(row.note)

    def move(self, log: VerifierKey, old: WitnessedHead, note: SignedNote) -> None:
        """Go from `old` to the checkpoint in `note`, which may be the same one with fresh cosignatures.

        One step with the look at what is there: of two that come from one state, one finds it moved. Raises
        Conflict(code="LOG-MOVED") then, and as `latest` does.
        """
        checkpoint = Checkpoint.parse(note.text)
        with self._database.writing("witness") as connection:
            now = _latest(connection, log)
            if (now.size, now.root) != (old.size, old.root):
                why = f"the newest checkpoint seen is of size {now.size}, not {old.size}"
                raise Conflict(f"the log {log.name} stands elsewhere", why=why, code="LOG-MOVED")
            row = {"vkey": str(log), "size": checkpoint.size, "root": checkpoint.root, "note": note.encode()}
            connection.execute(delete(schema.witnessed).where(_WITNESSED.vkey == str(log)))
            connection.execute(insert(schema.witnessed).values(row))


def _latest(connection: Connection, log: VerifierKey) -> WitnessedHead:
    submitted, row = _submitted(connection, log), _row(connection, log)
    held = None if row is None else newest_head(connection, row)
    if row is None or held is None or (submitted and held.size <= submitted.size):
        return submitted or NOTHING
    if submitted and tree.root_at(connection, row, submitted.size) != submitted.root:
        why = f"the checkpoint of size {submitted.size} that was submitted is not of the log that is held"
        raise Untrusted(f"the log {log.name} has shown two histories", why=why, code="SPLIT-VIEW")
    return WitnessedHead(held.size, held.root, held.note)


def _submitted(connection: Connection, log: VerifierKey) -> WitnessedHead | None:
    row = connection.execute(
        select(_WITNESSED.size, _WITNESSED.root, _WITNESSED.note).where(_WITNESSED.vkey == str(log))
    ).one_or_none()
    return None if row is None else WitnessedHead(*row)


def _row(connection: Connection, log: VerifierKey) -> LogRow | None:
    try:
        return find_log(connection, str(log))
    except NotFound:
        return None


MAX_PART: Final = 1_100_000
"""Bytes; a note as large as we read one, and a proof with it."""
KEPT_PER_LOG: Final = 16
"""One proof convicts a log for ever; a key that makes more of them does not fill this disk."""

_MISBEHAVIOUR = schema.misbehaviour.c


@dataclass(frozen=True, slots=True)
class StoredMisbehaviour:
    """Two things that the log (`origin`, `vkey`) signed and that exclude one another.

    `parts` are the two in the order of their bytes; `seen_at` is when this node got them, in POSIX seconds.
    """

    kind: str
    origin: str
    vkey: str
    parts: tuple[bytes, bytes]
    seen_at: int


class MisbehaviourTable:
    """Proofs of misbehaviour of any log, mirrored here or not. Thread-safe."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def keep(self, kind: str, origin: str, vkey: str, parts: Sequence[bytes]) -> bool:
        """Keep a checked proof; whether it was new.

        The two parts count as the same proof in either order. From the sixteenth proof on that convicts one log no
        more are kept. Raises Malformed.
        """
        if kind not in KINDS or len(parts) != 2 or max(map(len, parts)) > MAX_PART:
            raise Malformed("not a proof of misbehaviour", why="expected a known kind and two bounded parts")
        blob = _join_parts(sorted(parts))
        digest = sha256(f"{kind}\n{vkey}\n".encode() + blob)
        with self._database.writing("misbehaviour") as connection:
            if self._is_known(connection, vkey, digest):
                return False
            connection.execute(
                insert(schema.misbehaviour).values(
                    kind=kind, origin=origin, vkey=vkey, proof=blob, digest=digest, seen_at=int(self._clock())
                )
            )
            return True

    def all(self, origin: str | None = None) -> list[StoredMisbehaviour]:
        """Every proof kept, oldest first."""
        kept = select(
            _MISBEHAVIOUR.kind, _MISBEHAVIOUR.origin, _MISBEHAVIOUR.vkey, _MISBEHAVIOUR.proof, _MISBEHAVIOUR.seen_at
        ).order_by(_MISBEHAVIOUR.id)
        if origin is not None:
            kept = kept.where(_MISBEHAVIOUR.origin == origin)
        with self._database.reading() as connection:
            return [
                StoredMisbehaviour(kind, origin, vkey, _parts(blob), seen_at)
                for kind, origin, vkey, blob, seen_at in connection.execute(kept)
            ]

    def _is_known(self, connection: Connection, vkey: str, digest: Digest) -> bool:
        same = connection.scalar(select(func.count()).where(_MISBEHAVIOUR.digest == digest))
        of_this_log = connection.scalar(select(func.count()).where(_MISBEHAVIOUR.vkey == vkey))
        return bool(same) or (of_this_log or 0) >= KEPT_PER_LOG


def _join_parts(parts: Sequence[bytes]) -> bytes:
    return struct.pack(">I", len(parts[0])) + b"".join(parts)


def _parts(blob: bytes) -> tuple[bytes, bytes]:
    end = 4 + struct.unpack_from(">I", blob)[0]
    return blob[4:end], blob[end:]


_EPOCH = schema.charter_epochs.c


@dataclass(frozen=True, slots=True)
class KeptEpoch:
    """A certified body, as bytes, and the lines that certify it."""

    federation: Digest
    epoch: int
    digest: Digest
    prev: Digest | None
    body: bytes
    certificate: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class EpochName:
    """Which epoch a body is, and which body it follows."""

    digest: Digest
    epoch: int
    prev: Digest | None


class Epochs:
    """Certified epochs of any federation. Thread-safe; durable when a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, kept: KeptEpoch) -> bool:
        """Keep an epoch; whether it was new. One that is here stays as it is."""
        same = (_EPOCH.federation == kept.federation, _EPOCH.digest == kept.digest)
        with self._database.writing("epoch") as connection:
            if connection.scalar(select(func.count()).where(*same)):
                return False
            connection.execute(
                insert(schema.charter_epochs).values(
                    federation=kept.federation,
                    epoch=kept.epoch,
                    digest=kept.digest,
                    prev=kept.prev,
                    body=kept.body,
                    certificate=_join_lines(kept.certificate),
                )
            )
            return True

    def get(self, federation: Digest, digest: Digest) -> KeptEpoch:
        """Raises NotFound (NO-CHARTER)."""
        wanted = select(schema.charter_epochs).where(_EPOCH.federation == federation, _EPOCH.digest == digest)
        with self._database.reading() as connection:
            row = connection.execute(wanted).one_or_none()
        if row is None:
            raise NotFound("no such charter", why=f"no body {digest} is here", code="NO-CHARTER")
        return KeptEpoch(row.federation, row.epoch, row.digest, row.prev, row.body, _split(row.certificate))

    def all(self, federation: Digest) -> list[EpochName]:
        """Every epoch of a federation, all branches, in the order in which they were found."""
        columns = (_EPOCH.digest, _EPOCH.epoch, _EPOCH.prev)
        wanted = select(*columns).where(_EPOCH.federation == federation).order_by(_EPOCH.id)
        with self._database.reading() as connection:
            return [EpochName(*row) for row in connection.execute(wanted)]


def _join_lines(lines: Sequence[bytes]) -> bytes:
    """Lines hold no line feed."""
    return b"\n".join(lines)


def _split(text: bytes) -> tuple[bytes, ...]:
    return tuple(text.split(b"\n")) if text else ()


_RECORDS, _PIECE = schema.piece_records.c, schema.pieces.c


@dataclass(frozen=True, slots=True)
class PiecePlace:
    """`length` bytes at `offset` of the blob `blob`."""

    blob: Digest
    offset: int
    length: int


class PieceRecordTable:
    """Piece records by file, and files by piece. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def remember_records(self, blob: Digest, size: int, layout: str, records: bytes) -> None:
        """Keep the piece records of a file of `size` bytes; the first for a blob and layout stay, unless they are
        damaged. Raises Malformed."""
        pieces = parse_records(records, size=size)
        with self._database.writing("pieces") as connection:
            if _sealed(connection, blob, layout) is not None:
                return
            connection.execute(delete(schema.piece_records).where(_RECORDS.blob == blob, _RECORDS.layout == layout))
            number = 1 + (connection.scalar(select(func.max(_RECORDS.id))) or 0)
            seal = _seal(blob, layout, records)
            row = {"id": number, "blob": blob, "layout": layout, "records": records, "seal": seal}
            connection.execute(insert(schema.piece_records).values(row))
            rows, offset = [], 0
            for piece in pieces:
                rows.append({"sha256": piece.sha256, "record_id": number, "offset": offset, "length": piece.length})
                offset += piece.length
            if rows:
                connection.execute(insert(schema.pieces), rows)

    def records(self, blob: Digest, layout: str) -> bytes | None:
        """The records as they were given; None where there are none, or they are damaged."""
        with self._database.reading() as connection:
            return _sealed(connection, blob, layout)

    def blobs(self) -> set[Digest]:
        """Every blob of which there are records."""
        with self._database.reading() as connection:
            return set(connection.scalars(select(_RECORDS.blob).distinct()))

    def find_piece(self, sha256: bytes, limit: int = 16) -> list[PiecePlace]:
        """Some places at which the piece with this hash stands, at most `limit`."""
        places = (
            select(_RECORDS.blob, _PIECE.offset, _PIECE.length)
            .join(schema.piece_records, _RECORDS.id == _PIECE.record_id)
            .where(_PIECE.sha256 == sha256)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [PiecePlace(*row) for row in connection.execute(places)]

    def forget(self, blob: Digest) -> None:
        """Drop what is known of a blob that is no longer here."""
        with self._database.writing("forget") as connection:
            connection.execute(delete(schema.piece_records).where(_RECORDS.blob == blob))


def _sealed(connection: Connection, blob: Digest, layout: str) -> bytes | None:
    columns = (cast(column, LargeBinary) for column in (_RECORDS.records, _RECORDS.seal))  # of whatever type it is now
    known = select(*columns).where(_RECORDS.blob == blob, _RECORDS.layout == layout)
    row = connection.execute(known).one_or_none()
    if row is None or row.records is None or row.seal != _seal(blob, layout, row.records):
        return None
    records: bytes = row.records
    return records


def _seal(blob: Digest, layout: str, records: bytes) -> bytes:
    hasher = hashlib.sha256(bytes.fromhex(blob) + layout.encode() + b"\0")
    hasher.update(records)
    return hasher.digest()


_LOG, _CUSTODY = schema.logs.c, schema.custody.c


class SideObjectPositions:
    """Thread-safe; durable when a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def positions(self) -> dict[str, int]:
        """By a log's verifier key, the first entry whose objects are not known to be here."""
        wanted = select(_LOG.vkey, _CUSTODY.position).join(schema.logs, _LOG.id == _CUSTODY.log_id)
        with self._database.reading() as connection:
            return {vkey: position for vkey, position in connection.execute(wanted)}  # noqa: C416 (rows are no pairs)

    def keep(self, positions: Mapping[str, int]) -> None:
        """Put these in place of all that was kept."""
        with self._database.writing("custody") as connection:
            connection.execute(delete(schema.custody))
            for vkey, position in positions.items():
                row = {"log_id": find_log(connection, vkey).id, "position": position}
                connection.execute(insert(schema.custody).values(row))
