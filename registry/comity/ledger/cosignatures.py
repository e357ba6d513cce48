"""The signatures of other nodes over the checkpoints that are kept here, so that any mirror can hand out a proof.

Whoever adds a cosignature has verified it. Kept are, for each log, the cosignatures of at most `MAX_SIZES` sizes, of at
most `MAX_NAMES` cosigners each, so that a note with all of them stays within the 100 lines that others read. A size
gives way when a larger one has every cosigner key that it has; beyond `MAX_SIZES` the one with the fewest cosigners
does, the smallest of them first, and never the largest size. Checkpoints themselves are never dropped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final, TypeAlias

from sqlalchemy import Connection, delete, distinct, func, insert, select, tuple_, update

from comity.ledger import checkpoints, schema
from comity.ledger.checkpoints import SignedHead
from comity.ledger.database import Database
from comity.ledger.rows import LogRow, find_log
from comity.trust.errors import Malformed, NotFound, Untrusted
from comity.trust.tlog.note import NoteSignature, SignedNote, VerifierKey

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
            head = _most_cosigned(connection, log, index) or checkpoints.newest(connection, log, covering=index)
            if head is None:
                raise NotFound(
                    "no checkpoint", why=f"none of {log.origin} covers entry {index} yet", code="NO-CHECKPOINT"
                )
            return _note(connection, log, head)


def _head(connection: Connection, log: LogRow, size: int | None) -> SignedHead:
    head = checkpoints.newest(connection, log) if size is None else checkpoints.at(connection, log, size)
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
    return None if size is None else checkpoints.at(connection, log, size)


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
