"""What a list of repositories needs to know of many names, in a few queries.

For each name: who claimed it, what its owner published under it, and whether anything is said here that a reader
must look at one by one: advisories about an artifact, rotations of an author. All of it is proven (`intake`). The cost
of a call is that of its own result: other claimants of a name, and other statements about an artifact, are not read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, and_, exists, select, tuple_

from comity.ledger import schema
from comity.ledger.database import Database
from comity.ledger.intake import fold_name
from comity.ledger.stated_kinds import read_kinds
from comity.ledger.subject_reads import ProvenPosition
from comity.rules.artifact_kind import KindStated
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.trust.names import UPSTREAM
from comity.trust.statement_kinds import ADVISORY, PUBLISHED

MAX_NAMES: Final = 100
"""Names in one call."""

_LOG, _ENTRY, _SUBJECT = schema.logs.c, schema.entries.c, schema.subjects.c
_PUBLICATION, _CLAIMANT, _IDENTITY = schema.publications.c, schema.claimants.c, schema.identities.c
_ROTATION = schema.rotations.c


@frozen
class OwnPublication:
    """A verified `published` statement of an owner: `name` is the folded repository, `repository` the name as it is
    written. `log` is the verifier key of its log. `advised`: there are advisories about the artifact, of anybody."""

    name: str
    repository: str
    version: str
    publisher: Digest
    artifact: Digest
    log: str
    position: ProvenPosition
    advised: bool


@frozen
class NamedOwner:
    """An identity with its verified inception. `rotated`: it has a verified rotation too; `advised`: there are
    advisories about it, of anybody."""

    identity: Digest
    home: str
    inception: bytes
    rotated: bool
    advised: bool


@frozen
class OwnedNames:
    """What is known of some names: publications by folded name, in the order of versions, logs and turns; and their
    publishers. `mirrored` are names of which nodes observed an upstream repository."""

    publications: Mapping[str, Sequence[OwnPublication]]
    owners: Mapping[Digest, NamedOwner]
    mirrored: frozenset[str]


class ListedNames:
    """Searches over verified statements in all logs, for lists. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def owned(self, names: Sequence[str], bound: Mapping[str, Digest], most: int) -> OwnedNames | None:
        """Returns what is known of at most `MAX_NAMES` names, at one time. The owner of a name is that in `bound` (by
        the folded name), else its only claimant; a name with several is left out. Returns None if their publications
        are more than `most`."""
        folded = [fold_name(name) for name in names[:MAX_NAMES]]
        with self._database.reading() as connection:
            owners = {**_only_claimants(connection, folded), **bound}
            pairs = [(name, owners[name]) for name in folded if name in owners]
            found = _publications(connection, pairs, most + 1)
            if len(found) > most:
                return None
            by_name: dict[str, list[OwnPublication]] = {}
            for publication in found:
                by_name.setdefault(publication.name, []).append(publication)
            publishers = {publication.publisher for publication in found}
            return OwnedNames(by_name, _owners(connection, publishers), _mirrored(connection, folded))

    def lines(self, positions: Sequence[ProvenPosition]) -> dict[ProvenPosition, bytes]:
        """Returns the lines at positions that `owned` has returned."""
        places = [(position.log_id, position.index) for position in positions]
        wanted = select(_ENTRY.log_id, _ENTRY.index, _ENTRY.line)
        with self._database.reading() as connection:
            rows = connection.execute(wanted.where(tuple_(_ENTRY.log_id, _ENTRY.index).in_(places)))
            return {ProvenPosition(log_id, index): line for log_id, index, line in rows}

    def stated_kinds(
        self, published: Collection[tuple[Digest, Digest]]
    ) -> dict[tuple[Digest, Digest], tuple[KindStated, ...]]:
        """Returns what publishers state of the kinds of their artifacts, by artifact and publisher: of each at most
        `stated_kinds.MAX_STATED` statements."""
        with self._database.reading() as connection:
            return read_kinds(connection, published)


def _only_claimants(connection: Connection, names: Sequence[str]) -> dict[str, Digest]:
    """By name: the identity that published under it, if no other one did: who of several was first is to be proven."""
    other = schema.claimants.alias().c
    second = exists().where(other.name == _CLAIMANT.name, other.publisher != _CLAIMANT.publisher)
    alone = select(_CLAIMANT.name, _CLAIMANT.publisher).where(_CLAIMANT.name.in_(names), ~second)
    return {name: publisher for name, publisher in connection.execute(alone)}  # noqa: C416  # rows are no pairs


def _mirrored(connection: Connection, names: Sequence[str]) -> frozenset[str]:
    wanted = select(_CLAIMANT.name).where(_CLAIMANT.name.in_([f"{UPSTREAM}{name}" for name in names])).distinct()
    return frozenset(name.removeprefix(UPSTREAM) for name in connection.execute(wanted).scalars())


def _publications(connection: Connection, pairs: Sequence[tuple[str, Digest]], limit: int) -> list[OwnPublication]:
    advised = exists().where(_SUBJECT.digest == _PUBLICATION.artifact, _SUBJECT.kind == ADVISORY)
    columns = (_PUBLICATION.name, _PUBLICATION.repository, _PUBLICATION.version, _PUBLICATION.publisher)
    wanted = (
        select(*columns, _PUBLICATION.artifact, _LOG.vkey, _PUBLICATION.log_id, _PUBLICATION.index, advised)
        .join(schema.logs, _LOG.id == _PUBLICATION.log_id)
        .where(tuple_(_PUBLICATION.name, _PUBLICATION.publisher).in_(pairs), _PUBLICATION.predicate == PUBLISHED)
        .order_by(_PUBLICATION.name, _PUBLICATION.version, _PUBLICATION.log_id, _PUBLICATION.turn)
        .limit(limit)
    )
    return [
        OwnPublication(name, written, version, publisher, artifact, log, ProvenPosition(log_id, index), bool(warned))
        for name, written, version, publisher, artifact, log, log_id, index, warned in connection.execute(wanted)
    ]


def _owners(connection: Connection, identities: Collection[Digest]) -> dict[Digest, NamedOwner]:
    rotated = exists().where(_ROTATION.identity == _IDENTITY.id)
    advised = exists().where(_SUBJECT.digest == _IDENTITY.id, _SUBJECT.kind == ADVISORY)
    wanted = (
        select(_IDENTITY.id, _IDENTITY.home, _ENTRY.line, rotated, advised)
        .join(schema.entries, and_(_ENTRY.log_id == _IDENTITY.log_id, _ENTRY.index == _IDENTITY.index))
        .where(_IDENTITY.id.in_(identities))
    )
    return {
        row[0]: NamedOwner(row[0], row[1], row[2], bool(row[3]), bool(row[4])) for row in connection.execute(wanted)
    }
