"""Records beside the logs of a ledger: cosignatures, witnessed checkpoints, misbehaviour proofs and epochs.

Callers verify each record before they store it.

- Cosignatures: at most MAX_SIZES sizes per log, and MAX_NAMES cosigners per size: as many as a charter has members. A
  note shows at most SHOWN_NAMES of them, and so has at most the 100 lines that other clients read. A size is deleted
  when a larger size has all its cosigner keys. Above MAX_SIZES, the size with the fewest cosigners is deleted, the
  smallest first, never the largest size. Checkpoints are never deleted. Names and keys of cosigners cost nothing, so
  members are counted where they are known (`Cosignatures.place_by`): one cosigner of each member comes before the
  second one of any, in an order that nobody chooses.
- Witnessed checkpoints: the newest submitted checkpoint of each log (origin and key), kept for ever. A witness must not
  go back behind it. For a log in this ledger the newest stored checkpoint counts too, if it is larger and consistent.
- Misbehaviour proofs: kept for ever, and served to every caller, who verifies them again (`comity.trust.tlog.proof`).
- Epochs: certified charters (`comity.trust.charter.certificate.certify`), kept for ever on all branches. The node
  decides which branch it follows.
- Side object positions: for each log, the position below which all side objects are in the blob store.
"""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, tuple_, update

from comity.ledger import schema, tree
from comity.ledger.database import Database, LogRow, all_logs, find_log
from comity.ledger.tree import SignedHead, head_at, newest_head
from comity.rules.misbehaviour import KINDS
from comity.trust.charter.document import MAX_MEMBERS
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Conflict, Malformed, NotFound, Untrusted
from comity.trust.frozen import frozen
from comity.trust.statement import SideObject
from comity.trust.tlog.merkle import EMPTY_ROOT
from comity.trust.tlog.note import Checkpoint, NoteSignature, SignedNote, VerifierKey

MAX_NAMES: Final = MAX_MEMBERS
SHOWN_NAMES: Final = 48
MAX_KEYS: Final = 2
"""Signatures of one cosigner over one size: Ed25519 and ML-DSA-44."""
MAX_SIZES: Final = 64
MAX_SIGNATURE: Final = 8192

_TIMESTAMP_SIZE: Final = 8
_COSIGNATURE = schema.cosignatures.c

_Key: TypeAlias = tuple[str, bytes]
_Cosigner: TypeAlias = tuple[int | None, str]
"""The place of a member, None if it is not known, and the name of a cosigner."""

CosignerPlaces: TypeAlias = Mapping[_Key, int]
"""By name and id of a cosigner key, the place of its member among the members that cosign a log."""


def _no_places(log: str) -> CosignerPlaces:
    return {}


@frozen
class NewestHead:
    """The newest checkpoint of a log (`vkey`), signed by the log alone, and some of its cosignatures."""

    vkey: str
    size: int
    note: bytes
    cosignatures: tuple[NoteSignature, ...]


class Cosignatures:
    """Cosigned checkpoints of all logs. A log is named by its verifier key or its origin. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._places: Callable[[str], CosignerPlaces] = _no_places

    def place_by(self, places: Callable[[str], CosignerPlaces]) -> None:
        """Use `places`, which is called in any thread with the verifier key of a log. It must not use the ledger."""
        self._places = places

    def add(self, name: str, size: int, root: bytes, signatures: Iterable[NoteSignature]) -> int:
        """Store verified cosignatures of the checkpoint (`size`, `root`) of a log. Returns how many were new or newer.

        Of two cosignatures by one key over one checkpoint, the later one is kept. Raises NotFound if the checkpoint is
        not stored here, Untrusted(code="ROOT-MISMATCH") if it has another root, and Malformed for an invalid signature.
        """
        offered = list(signatures)
        if any(not _TIMESTAMP_SIZE < len(line.signature) <= MAX_SIGNATURE for line in offered):
            raise Malformed("not a cosignature", why="expected a timestamp and a signature of at most 8 KiB")
        with self._database.writing("cosign") as connection:
            log = find_log(connection, name)
            head = _head(connection, log, size)
            if head.root != root:
                raise Untrusted(
                    "a cosignature of another tree", why=f"size {size} has another root", code="ROOT-MISMATCH"
                )
            places = self._places(log.vkey)
            added = _merge(connection, log, size, offered, places)
            if added:
                _prune(connection, log, places)
            return added

    def cosigned(self, name: str, size: int | None = None) -> SignedNote:
        """Returns the checkpoint of `size`, by default the newest, with the log's signature and its cosignatures, by at
        most SHOWN_NAMES cosigners.

        Raises NotFound(code="NO-CHECKPOINT").
        """
        with self._database.reading() as connection:
            log = find_log(connection, name)
            return _note(connection, log, _head(connection, log, size), self._places(log.vkey))

    def all(self, name: str, size: int | None = None) -> SignedNote:
        """As `cosigned`, with every stored cosignature: more than other clients read. Raises
        NotFound(code="NO-CHECKPOINT")."""
        with self._database.reading() as connection:
            log = find_log(connection, name)
            return _note(connection, log, _head(connection, log, size), {}, shown=MAX_NAMES)

    def newest_heads(self, key_ids: Collection[bytes]) -> list[NewestHead]:
        """Returns the newest checkpoint of every log that has one, with the cosignatures by keys with these ids, all
        from one snapshot."""
        with self._database.reading() as connection:
            return [
                NewestHead(log.vkey, head.size, head.note, _signatures_by(connection, log, head.size, key_ids))
                for log in all_logs(connection)
                if (head := newest_head(connection, log)) is not None
            ]

    def newest_by(self, name: str, cosigners: Iterable[VerifierKey]) -> SignedNote:
        """Returns the largest checkpoint that one of `cosigners` signed, with theirs and other cosignatures, by at most
        SHOWN_NAMES cosigners.

        Raises NotFound(code="NO-CHECKPOINT").
        """
        keys = [(key.name, key.key_id) for key in cosigners]
        with self._database.reading() as connection:
            log = find_log(connection, name)
            by_them = (_COSIGNATURE.log_id == log.id, tuple_(_COSIGNATURE.name, _COSIGNATURE.key_id).in_(keys))
            size = connection.scalar(select(func.max(_COSIGNATURE.size)).where(*by_them))
            if size is None:
                why = f"these cosigners signed no checkpoint of {log.origin}"
                raise NotFound("no checkpoint", why=why, code="NO-CHECKPOINT")
            places, first = self._places(log.vkey), {name for name, _ in keys}
            return _note(connection, log, _head(connection, log, size), places, first=first)

    def largest_up_to(self, name: str, size: int) -> SignedNote:
        """Returns the checkpoint of the largest tree with at most `size` entries, signed by the log alone.

        Raises NotFound(code="NO-CHECKPOINT").
        """
        with self._database.reading() as connection:
            log = find_log(connection, name)
            head = newest_head(connection, log, up_to=size)
            if head is None:
                why = f"{log.origin} signed no checkpoint of at most {size} entries that is stored here"
                raise NotFound("no checkpoint", why=why, code="NO-CHECKPOINT")
            return SignedNote.parse(head.note)

    def best_note(self, name: str, index: int) -> SignedNote:
        """Returns the checkpoint with most cosigners that covers entry `index`; among equals, the largest.

        Raises NotFound(code="NO-CHECKPOINT") if no checkpoint covers the entry yet.
        """
        with self._database.reading() as connection:
            log = find_log(connection, name)
            places = self._places(log.vkey)
            head = _most_cosigned(connection, log, index, places) or newest_head(connection, log, covering=index)
            if head is None:
                raise NotFound(
                    "no checkpoint", why=f"no checkpoint of {log.origin} covers entry {index} yet", code="NO-CHECKPOINT"
                )
            return _note(connection, log, head, places)


def _head(connection: Connection, log: LogRow, size: int | None) -> SignedHead:
    head = newest_head(connection, log) if size is None else head_at(connection, log, size)
    if head is None:
        which = "no checkpoint" if size is None else f"no checkpoint of size {size}"
        raise NotFound("no checkpoint", why=f"{which} of {log.origin} is stored here", code="NO-CHECKPOINT")
    return head


def _most_cosigned(connection: Connection, log: LogRow, index: int, places: CosignerPlaces) -> SignedHead | None:
    keys = _keys_by_size(connection, log, _COSIGNATURE.size > index)
    size = max(keys, key=lambda size: (*_count(keys[size], places), size), default=None)
    return None if size is None else head_at(connection, log, size)


def _keys_by_size(connection: Connection, log: LogRow, *where: ColumnElement[bool]) -> dict[int, set[_Key]]:
    keys: defaultdict[int, set[_Key]] = defaultdict(set)
    wanted = select(_COSIGNATURE.size, _COSIGNATURE.name, _COSIGNATURE.key_id)
    for size, name, key_id in connection.execute(wanted.where(_COSIGNATURE.log_id == log.id, *where)):
        keys[size].add((name, key_id))
    return keys


def _count(keys: Iterable[_Key], places: CosignerPlaces) -> tuple[int, int]:
    """How many members, and how many others, have these cosigner keys."""
    found = {(places.get(key), key[0]) for key in keys}
    members = {place for place, _ in found if place is not None}
    return len(members), sum(place is None for place, _ in found)


def _in_order(
    log: LogRow, keys: Iterable[_Key], places: CosignerPlaces, first: Collection[str] = ()
) -> list[_Cosigner]:
    """The cosigners that have these keys: those named in `first`, then one of each member in the order of their places,
    then those of nobody known, then the others of members. Among the rest each log has another order."""
    cosigners = {(places.get(key), key[0]) for key in keys}
    by_digest = sorted(cosigners, key=lambda item: sha256(f"{log.vkey}\n{item[1]}".encode()))
    turns, before = dict[_Cosigner, int](), Counter[int | None]()
    for place, name in by_digest:
        turns[place, name] = 1 if place is None else 2 * before[place]
        before[place] += 1
    return sorted(by_digest, key=lambda item: (item[1] not in first, turns[item], item[0] or 0))


def _note(
    connection: Connection,
    log: LogRow,
    head: SignedHead,
    places: CosignerPlaces,
    *,
    shown: int = SHOWN_NAMES,
    first: Collection[str] = (),
) -> SignedNote:
    """If there are more cosigners than `shown`, the first of them, by their order."""
    made = select(_COSIGNATURE.name, _COSIGNATURE.key_id, _COSIGNATURE.signature).where(
        _COSIGNATURE.log_id == log.id, _COSIGNATURE.size == head.size
    )
    lines = [
        NoteSignature(*row) for row in sorted(map(tuple, connection.execute(made)))
    ]  # the order must not depend on the database
    keys = [(line.name, line.key_id) for line in lines]
    cosigners = set(_in_order(log, keys, places, first)[:shown])
    chosen = [line for line, key in zip(lines, keys, strict=True) if (places.get(key), line.name) in cosigners]
    return SignedNote.parse(head.note).with_signatures(*chosen)


def _signatures_by(
    connection: Connection, log: LogRow, size: int, key_ids: Collection[bytes]
) -> tuple[NoteSignature, ...]:
    made = select(_COSIGNATURE.name, _COSIGNATURE.key_id, _COSIGNATURE.signature).where(
        _COSIGNATURE.log_id == log.id, _COSIGNATURE.size == size, _COSIGNATURE.key_id.in_(key_ids)
    )
    return tuple(NoteSignature(*row) for row in sorted(map(tuple, connection.execute(made))))


def _merge(
    connection: Connection, log: LogRow, size: int, offered: Iterable[NoteSignature], places: CosignerPlaces
) -> int:
    """Write those of `offered` that are new, or newer than the stored ones, within MAX_NAMES and MAX_KEYS. The last
    cosigner by the order gives way to one of a member that comes before it."""
    here = (_COSIGNATURE.log_id == log.id, _COSIGNATURE.size == size)
    stored: dict[_Key, bytes] = {
        (name, key_id): signature
        for name, key_id, signature in connection.execute(
            select(_COSIGNATURE.name, _COSIGNATURE.key_id, _COSIGNATURE.signature).where(*here)
        )
    }
    written = 0
    for line in offered:
        key = (line.name, line.key_id)
        this_key = (*here, _COSIGNATURE.name == line.name, _COSIGNATURE.key_id == line.key_id)
        if key in stored:
            if line.signature[:_TIMESTAMP_SIZE] <= stored[key][:_TIMESTAMP_SIZE]:
                continue
            connection.execute(update(schema.cosignatures).where(*this_key).values(signature=line.signature))
        else:
            surplus = _surplus(log, stored, key, places)
            if key in surplus:
                continue
            for name, key_id in surplus:
                del stored[name, key_id]
                other = (*here, _COSIGNATURE.name == name, _COSIGNATURE.key_id == key_id)
                connection.execute(delete(schema.cosignatures).where(*other))
            row = {"log_id": log.id, "size": size, "name": line.name, "key_id": line.key_id}
            connection.execute(insert(schema.cosignatures).values(row | {"signature": line.signature}))
        stored[key] = line.signature
        written += 1
    return written


def _surplus(log: LogRow, stored: Collection[_Key], new: _Key, places: CosignerPlaces) -> list[_Key]:
    """The keys that are too many, the new one among them if it is; none if all fit."""
    cosigner = (places.get(new), new[0])
    stored_cosigners = [(places.get(key), key[0]) for key in stored]
    if stored_cosigners.count(cosigner) >= MAX_KEYS:
        return [new]
    if cosigner in stored_cosigners or len(set(stored_cosigners)) < MAX_NAMES:
        return []
    if cosigner[0] is None:
        return [new]
    last = _in_order(log, [*stored, new], places)[-1]
    return [key for key in (*stored, new) if (places.get(key), key[0]) == last]


def _prune(connection: Connection, log: LogRow, places: CosignerPlaces) -> None:
    keys = _keys_by_size(connection, log)
    deleted = {size for size in keys if any(size < other and keys[size] <= keys[other] for other in keys)}
    left = sorted(set(keys) - deleted)
    if len(left) > MAX_SIZES:
        least_cosigned = sorted(left[:-1], key=lambda size: (_count(keys[size], places), size))
        deleted.update(least_cosigned[: len(left) - MAX_SIZES])
    if deleted:
        connection.execute(
            delete(schema.cosignatures).where(_COSIGNATURE.log_id == log.id, _COSIGNATURE.size.in_(deleted))
        )


_WITNESSED = schema.witnessed.c


@frozen
class WitnessedHead:
    """The last known state of a log; `note` is empty if there was no checkpoint."""

    size: int
    root: bytes
    note: bytes


NO_CHECKPOINT = WitnessedHead(0, EMPTY_ROOT, b"")


class WitnessedTable:
    """The newest checkpoint of each log. Thread-safe; durable when a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def latest(self, log: VerifierKey) -> WitnessedHead:
        """Returns the newest state of a log. Raises Untrusted(code="SPLIT-VIEW") if the stored log and the submitted
        checkpoint are inconsistent."""
        with self._database.reading() as connection:
            return _latest(connection, log)

    def submitted(self, log: VerifierKey) -> SignedNote | None:
        """Returns the newest submitted checkpoint with its cosignatures, or None."""
        with self._database.reading() as connection:
            row = _submitted(connection, log)
            return None if row is None else SignedNote.parse(row.note)

    def move(self, log: VerifierKey, old: WitnessedHead, note: SignedNote) -> None:
        """Replace the state `old` by the checkpoint in `note`, which may be the same with new cosignatures.

        A compare-and-swap: raises Conflict(code="LOG-MOVED") if the state is not `old`, and the errors of `latest`.
        """
        checkpoint = Checkpoint.parse(note.text)
        with self._database.writing("witness") as connection:
            now = _latest(connection, log)
            if (now.size, now.root) != (old.size, old.root):
                why = f"the newest checkpoint has size {now.size}, not {old.size}"
                raise Conflict(f"the log {log.name} has another size", why=why, code="LOG-MOVED")
            row = {"vkey": str(log), "size": checkpoint.size, "root": checkpoint.root, "note": note.encode()}
            connection.execute(delete(schema.witnessed).where(_WITNESSED.vkey == str(log)))
            connection.execute(insert(schema.witnessed).values(row))


def _latest(connection: Connection, log: VerifierKey) -> WitnessedHead:
    submitted, row = _submitted(connection, log), _row(connection, log)
    stored = None if row is None else newest_head(connection, row)
    if row is None or stored is None or (submitted and stored.size <= submitted.size):
        return submitted or NO_CHECKPOINT
    if submitted and tree.root_at(connection, row, submitted.size) != submitted.root:
        why = f"the submitted checkpoint of size {submitted.size} does not match the mirrored log"
        raise Untrusted(f"the log {log.name} has shown two histories", why=why, code="SPLIT-VIEW")
    return WitnessedHead(stored.size, stored.root, stored.note)


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
"""Bytes: the largest note, and a proof."""
KEPT_PER_LOG: Final = 16
"""Proofs per log. One is enough; the limit stops a key that signs many from filling the disk."""

_MISBEHAVIOUR = schema.misbehaviour.c


@frozen
class StoredMisbehaviour:
    """Two contradictory things that the log (`origin`, `vkey`) signed.

    `parts` are the two, sorted by their bytes; `seen_at` is when this node received them, in POSIX seconds.
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

    def add(self, kind: str, origin: str, vkey: str, parts: Sequence[bytes]) -> bool:
        """Store a verified proof. Returns whether it was new.

        The order of the two parts does not matter. At most 16 proofs are stored per log. Raises Malformed.
        """
        if kind not in KINDS or len(parts) != 2 or max(map(len, parts)) > MAX_PART:
            raise Malformed(
                "not a proof of misbehaviour", why=f"expected a known kind and two parts of at most {MAX_PART} bytes"
            )
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

    def count(self) -> int:
        """Returns the number of stored proofs."""
        with self._database.reading() as connection:
            return connection.scalar(select(func.count()).select_from(schema.misbehaviour)) or 0

    def all(self, origin: str | None = None) -> list[StoredMisbehaviour]:
        """Returns all proofs, oldest first."""
        wanted = select(
            _MISBEHAVIOUR.kind, _MISBEHAVIOUR.origin, _MISBEHAVIOUR.vkey, _MISBEHAVIOUR.proof, _MISBEHAVIOUR.seen_at
        ).order_by(_MISBEHAVIOUR.id)
        if origin is not None:
            wanted = wanted.where(_MISBEHAVIOUR.origin == origin)
        with self._database.reading() as connection:
            return [
                StoredMisbehaviour(kind, origin, vkey, _parts(blob), seen_at)
                for kind, origin, vkey, blob, seen_at in connection.execute(wanted)
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


@frozen
class StoredEpoch:
    """A certified charter body, as bytes, and the lines that certify it."""

    federation: Digest
    epoch: int
    digest: Digest
    prev: Digest | None
    body: bytes
    certificate: tuple[bytes, ...]


@frozen
class EpochName:
    """The epoch number and digest of a body, and the digest of the body before it."""

    digest: Digest
    epoch: int
    prev: Digest | None


class Epochs:
    """Certified epochs of any federation. Thread-safe; durable when a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, epoch: StoredEpoch) -> bool:
        """Store an epoch. Returns whether it was new. A stored epoch is not changed."""
        same = (_EPOCH.federation == epoch.federation, _EPOCH.digest == epoch.digest)
        with self._database.writing("epoch") as connection:
            if connection.scalar(select(func.count()).where(*same)):
                return False
            connection.execute(
                insert(schema.charter_epochs).values(
                    federation=epoch.federation,
                    epoch=epoch.epoch,
                    digest=epoch.digest,
                    prev=epoch.prev,
                    body=epoch.body,
                    certificate=_join_lines(epoch.certificate),
                )
            )
            return True

    def get(self, federation: Digest, digest: Digest) -> StoredEpoch:
        """Returns an epoch. Raises NotFound (NO-CHARTER)."""
        wanted = select(schema.charter_epochs).where(_EPOCH.federation == federation, _EPOCH.digest == digest)
        with self._database.reading() as connection:
            row = connection.execute(wanted).one_or_none()
        if row is None:
            raise NotFound("no such charter", why=f"this node has no charter body {digest}", code="NO-CHARTER")
        return StoredEpoch(row.federation, row.epoch, row.digest, row.prev, row.body, _split(row.certificate))

    def all(self, federation: Digest) -> list[EpochName]:
        """Returns all epochs of a federation, on all branches, in the order in which they were stored."""
        columns = (_EPOCH.digest, _EPOCH.epoch, _EPOCH.prev)
        wanted = select(*columns).where(_EPOCH.federation == federation).order_by(_EPOCH.id)
        with self._database.reading() as connection:
            return [EpochName(*row) for row in connection.execute(wanted)]


def _join_lines(lines: Sequence[bytes]) -> bytes:
    """Join lines, which have no line feed."""
    return b"\n".join(lines)


def _split(text: bytes) -> tuple[bytes, ...]:
    return tuple(text.split(b"\n")) if text else ()


_LOG, _POSITION = schema.logs.c, schema.side_object_positions.c


class SideObjectPositions:
    """For each log, the position below which all side objects are stored. Thread-safe; durable when a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def positions(self) -> dict[str, int]:
        """Returns, by verifier key of the log, the first entry whose side objects may be missing."""
        wanted = select(_LOG.vkey, _POSITION.position).join(schema.logs, _LOG.id == _POSITION.log_id)
        with self._database.reading() as connection:
            return {vkey: position for vkey, position in connection.execute(wanted)}  # noqa: C416 (rows are no pairs)

    def named(self, digests: Sequence[Digest]) -> set[Digest]:
        """Returns those of `digests` that an entry of any log names as its side object."""
        found: set[Digest] = set()
        objects = schema.log_objects.c
        with self._database.reading() as connection:
            for log_id in connection.scalars(select(_LOG.id)).all():
                for start in range(0, len(digests), 200):
                    some = objects.digest.in_(digests[start : start + 200])
                    found |= set(connection.scalars(select(objects.digest).where(objects.log_id == log_id, some)))
        return found

    def first_named(self, log: str, start: int, end: int) -> list[SideObject]:
        """Returns the side objects that the entries of a log from `start` to before `end` name, and none before them.
        Raises NotFound(code="NO-SUCH-LOG")."""
        objects = schema.log_objects.c
        with self._database.reading() as connection:
            here = (objects.log_id == find_log(connection, log).id, objects.index >= start, objects.index < end)
            found = connection.execute(select(objects.digest, objects.size).where(*here).order_by(objects.index))
            return [SideObject(digest, size) for digest, size in found]

    def replace(self, positions: Mapping[str, int]) -> None:
        """Replace all stored positions."""
        with self._database.writing("custody") as connection:
            connection.execute(delete(schema.side_object_positions))
            for vkey, position in positions.items():
                row = {"log_id": find_log(connection, vkey).id, "position": position}
                connection.execute(insert(schema.side_object_positions).values(row))
