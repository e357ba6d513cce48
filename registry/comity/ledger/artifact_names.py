"""The names of many artifacts, in one query for a hundred of them.

A name is read from the row of its publication (`schema.publications`), not from its line: the intake wrote the row from
the verified line. Most artifacts have one publication. Those of which others have many are read one by one, as
`subject_reads.read_about` bounds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Integer, and_, bindparam, case, func, literal, select, tuple_

from comity.ledger import schema
from comity.ledger.subject_reads import ProvenPosition, read_about
from comity.rules.precedence import Bounds, Precedence, Said, Selection
from comity.rules.precedence import select as choose
from comity.rules.retention import NamedArtifact
from comity.trust.encoding import Digest
from comity.trust.statement_kinds import PUBLICATION_PREDICATES

TOGETHER: Final = 100
"""Artifacts, and positions, in one query."""
LEAST_TOGETHER: Final = 8
"""Publications of an artifact that are read together with those of others, on average, whatever the caller's limit."""
COUNTED: Final = 17
"""Publications from which on those of a repository and publisher are many."""
_SUBJECT, _STATEMENT, _PUBLICATION = schema.subjects.c, schema.statements.c, schema.publications.c
_NAME: Final = (_PUBLICATION.repository, _PUBLICATION.version, _PUBLICATION.publisher)
_SAME: Final = schema.publications.alias("same")
_VERSIONS: Final = (
    select(case((func.count() < COUNTED, func.count()), else_=0))
    .select_from(
        select(literal(1).label("one"))
        .where(_SAME.c.name == _PUBLICATION.name, _SAME.c.publisher == _PUBLICATION.publisher)
        .correlate(schema.publications)
        .limit(COUNTED)
        .subquery()
    )
    .scalar_subquery()
)
"""`NamedArtifact.versions`."""
_SAID: Final = and_(_STATEMENT.log_id == _SUBJECT.log_id, _STATEMENT.index == _SUBJECT.index)
_NAMED: Final = and_(_PUBLICATION.log_id == _SUBJECT.log_id, _PUBLICATION.index == _SUBJECT.index)
_ABOUT_SOME: Final = (
    _SUBJECT.digest.in_(bindparam("some", expanding=True)),
    _SUBJECT.kind.in_(PUBLICATION_PREDICATES),
)
_MOST: Final = bindparam("most", type_=Integer)
"""A query that is made once, and gets the artifacts as a parameter, costs half of one that is made of them."""
_ORDER: Final = (_SUBJECT.round, _SUBJECT.kind, _SUBJECT.log_id, _SUBJECT.turn)
_WANTED: Final = (
    select(_SUBJECT.digest, *_NAME, _VERSIONS, *_ORDER)
    .join_from(schema.subjects, schema.publications, _NAMED)
    .where(*_ABOUT_SOME)
    .limit(_MOST)
)
_STATEMENTS: Final = (
    select(_SUBJECT.digest, _SUBJECT.kind, _SUBJECT.log_id, _SUBJECT.turn, _STATEMENT.statement)
    .join_from(schema.subjects, schema.statements, _SAID)
    .where(*_ABOUT_SOME)
)
"""Which publications of an artifact are the same statement, in several logs: asked only about one with several."""


_FIRST: Final = (
    select(_SUBJECT.digest, _SUBJECT.round, _SUBJECT.kind, _SUBJECT.log_id, _SUBJECT.turn, *_NAME[:2])
    .join_from(schema.subjects, schema.publications, _NAMED)
    .where(*_ABOUT_SOME)
    .limit(_MOST)
)


def first_artifact_names(connection: Connection, artifacts: Sequence[Digest]) -> dict[Digest, tuple[str, str]]:
    """Returns the repository and version of the first name of each of these artifacts that has one: that of
    `artifact_names`, without the rest of what it reads."""
    found: dict[Digest, tuple[str, str]] = {}
    for start in range(0, len(artifacts), TOGETHER):
        some = artifacts[start : start + TOGETHER]
        most = len(some) * LEAST_TOGETHER
        rows = connection.execute(_FIRST, {"some": some, "most": most + 1}).all()
        if len(rows) > most:
            alone = ((artifact, _alone(connection, artifact, Bounds(others=1, total=1)).found) for artifact in some)
            found |= {artifact: (names[0].repository, names[0].version) for artifact, names in alone if names}
            continue
        best: dict[Digest, list[Any]] = {}
        for digest, *rest in rows:
            if digest not in best or rest[:4] < best[digest][:4]:
                best[digest] = rest
        found |= {digest: (rest[4], rest[5]) for digest, rest in best.items()}
    return found


def artifact_names(
    connection: Connection, artifacts: Sequence[Digest], limit: int
) -> dict[Digest, Selection[NamedArtifact]]:
    """Returns the first `limit` names of each of these artifacts, in the order of `read_about` without precedence."""
    found: dict[Digest, Selection[NamedArtifact]] = {}
    for start in range(0, len(artifacts), TOGETHER):
        found |= _together(connection, artifacts[start : start + TOGETHER], limit)
    return found


def _together(connection: Connection, some: Sequence[Digest], limit: int) -> dict[Digest, Selection[NamedArtifact]]:
    bounds, most = Bounds(others=limit, total=limit), len(some) * max(limit, LEAST_TOGETHER)
    rows = connection.execute(_WANTED, {"some": some, "most": most + 1}).all()
    if len(rows) > most:
        return {artifact: _alone(connection, artifact, bounds) for artifact in some}
    by_artifact: dict[Digest, list[tuple[Any, ...]]] = {artifact: [] for artifact in some}
    for row in rows:
        by_artifact[row[0]].append(tuple(row))
    several = [artifact for artifact, rows in by_artifact.items() if len(rows) > 1]
    said = dict[tuple[Any, ...], Digest]()
    if several:
        said = {tuple(row[:4]): row[4] for row in connection.execute(_STATEMENTS, {"some": several})}
    return {artifact: _selected(rows, said, bounds) for artifact, rows in by_artifact.items()}


def _selected(
    rows: Sequence[tuple[Any, ...]], statements: Mapping[tuple[Any, ...], Digest], bounds: Bounds
) -> Selection[NamedArtifact]:
    if len(rows) < 2:
        return Selection((), tuple(NamedArtifact(*row[1:5]) for row in rows))
    ordered = sorted(rows, key=lambda row: row[5:9])
    said = [Said(row[3], statements[(row[0], *row[6:9])], row[6:8], NamedArtifact(*row[1:5])) for row in ordered]
    return choose(said, Precedence(), bounds)


def _alone(connection: Connection, artifact: Digest, bounds: Bounds) -> Selection[NamedArtifact]:
    """Of an artifact, or of others beside it, there are many publications."""
    page = read_about(connection, artifact, PUBLICATION_PREDICATES, Precedence(), bounds)
    names = dict(_at(connection, page.others))
    return Selection((), tuple(names[item] for item in page.others if item in names), page.cut, page.more_others)


def _at(connection: Connection, positions: Sequence[ProvenPosition]) -> Iterator[tuple[ProvenPosition, NamedArtifact]]:
    for start in range(0, len(positions), TOGETHER):
        here = [(item.log_id, item.index) for item in positions[start : start + TOGETHER]]
        wanted = select(_PUBLICATION.log_id, _PUBLICATION.index, *_NAME)
        for log_id, index, *name in connection.execute(
            wanted.where(tuple_(_PUBLICATION.log_id, _PUBLICATION.index).in_(here))
        ):
            yield ProvenPosition(log_id, index), NamedArtifact(*name)
