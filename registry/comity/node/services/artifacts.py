"""Finding statements about artifacts. What is returned is what logs hold: whoever receives it verifies it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import Final

from comity.ledger.index import Located as Found
from comity.ledger.index import Query, fold
from comity.ledger.logs import LogState
from comity.node.core import Core
from comity.node.scan import PAGE, every
from comity.trust.digest import Digest, sha256
from comity.trust.errors import Malformed, NotFound
from comity.trust.names import check_segment
from comity.trust.statement import Statement, parse_entry
from comity.trust.upstream.observed import OBSERVED
from comity.wire import limits
from comity.wire.values import Located, SearchPage

SCANNED: Final = 4_000
"""Entries that one search looks at: a page may come back short, with a cursor to go on from."""
CLAIMING: Final = ("published", OBSERVED)
MIRRORED: Final = "m"

_CURSOR: Final = re.compile(r"([0-9]{1,9})-([0-9]{1,18})\Z")


class Artifacts:
    """Answers `ArtifactReads`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def resolve(self, name: str, version: str | None) -> AsyncGenerator[Located, None]:
        found = await self._core.pools.ledger(self._claims_of_name, _checked(name), version)
        if not found:
            raise NotFound(f"nobody here claims {name}", hint="comity search WORD", code="NO-SUCH-NAME")
        for located in found:
            yield located

    async def claims(self, artifact: Digest) -> AsyncGenerator[Located, None]:
        found = await self._core.pools.ledger(self._about, artifact)
        if not found:
            raise NotFound("no statement about this artifact", why=f"{artifact} is not known here", code="NO-CLAIMS")
        for located in found:
            yield located

    async def search(self, query: str, cursor: str, limit: int) -> SearchPage:
        return await self._core.pools.ledger(self._search, query, cursor, limit)

    def _claims_of_name(self, name: str, version: str | None) -> list[Located]:
        prefix = name if name.endswith("/") else f"{name}@{version or ''}"
        claims = [
            found
            for predicate in CLAIMING
            for found in self._all(Query(prefix=prefix, predicate=predicate), limits.RESOLVED)
            if version is None or _says(found.line, f"{name}@{version}")
        ]
        artifacts = dict.fromkeys(parse_entry(found.line).statement.subject for found in claims)
        advisories = (
            found for artifact in artifacts for found in self._all(Query(subject=artifact, predicate="advisory"), PAGE)
        )
        return _distinct((*claims, *advisories))

    def _about(self, artifact: Digest) -> list[Located]:
        about = list(self._all(Query(subject=artifact), limits.CLAIMS // 2))
        if not about:
            return []
        speakers = dict.fromkeys(s.by.id for found in about if (s := _statement(found)) is not None and s.by)
        for predicate in ("inception", "rotated"):
            for speaker in speakers:
                about.extend(self._all(Query(subject=speaker, predicate=predicate), PAGE))
        records = list(self._all(Query(predicate="node-record"), 4 * PAGE))
        owners = dict.fromkeys(s.by.id for found in records if (s := _statement(found)) is not None and s.by)
        for owner in filter(self._core.membership.member, owners):
            records.extend(self._all(Query(subject=owner, predicate="rotated"), PAGE))
        return _distinct((*about, *records))

    def _search(self, query: str, cursor: str, limit: int) -> SearchPage:
        """What was published, then what was mirrored: a cursor among the latter begins with `MIRRORED`."""
        words, mirrored = fold(query).split(), cursor.startswith(MIRRORED)
        first = SearchPage(()) if mirrored else self._page("published", words, cursor, limit)
        if first.next_cursor or len(first.found) == limit:
            return first
        rest = self._page(OBSERVED, words, cursor.removeprefix(MIRRORED), limit - len(first.found))
        after = MIRRORED + rest.next_cursor if rest.next_cursor else ""
        return SearchPage((*first.found, *rest.found), after)

    def _page(self, predicate: str, words: Sequence[str], cursor: str, limit: int) -> SearchPage:
        longest = max(words, key=len, default=None)
        logs = self._core.ledger.logs.all()
        after = _after(cursor, logs)
        wanted: list[Located] = []
        claims = every(self._core.ledger, Query(predicate=predicate, name=longest), after=after)
        for scanned, found in enumerate(claims, 1):
            if all(word in _title(found.line) for word in words):
                wanted.append(Located(found.origin, found.index, found.line))
            if len(wanted) == limit or scanned == SCANNED:
                return SearchPage(tuple(wanted), _cursor(found, logs))
        return SearchPage(tuple(wanted))

    def _all(self, query: Query, most: int) -> Iterator[Found]:
        return every(self._core.ledger, query, most=most)


def _checked(name: str) -> str:
    """A repository, a prefix that ends in `/`, or either under an upstream origin (`hf:`). Raises Malformed."""
    _, _, local = name.rpartition(":")
    segments = local.removesuffix("/").split("/")
    if len(segments) > 2 or (len(segments) == 1) != local.endswith("/"):
        raise Malformed(
            "not a name", why="expected namespace/name, or a namespace with a '/' after it", code="BAD-NAME"
        )
    for segment in segments:
        check_segment(segment, "name")
    return name


def _says(line: bytes, full: str) -> bool:
    return full in {subject.name for subject in parse_entry(line).statement.subjects}


def _title(line: bytes) -> str:
    return " ".join(fold(subject.name) for subject in parse_entry(line).statement.subjects)


def _statement(found: Found) -> Statement | None:
    return parse_entry(found.line).statement


def _distinct(found: Iterable[Found]) -> list[Located]:
    """Each line once a log: a `hold` counts only where its own node has logged it."""
    places: dict[tuple[str, Digest], Located] = {}
    for item in found:
        places.setdefault((item.vkey, sha256(item.line)), Located(item.origin, item.index, item.line))
    return list(places.values())


def _cursor(last: Found, logs: list[LogState]) -> str:
    return f"{[log.vkey for log in logs].index(last.vkey)}-{last.index}"


def _after(cursor: str, logs: list[LogState]) -> Found | None:
    if not cursor:
        return None
    parts = _CURSOR.match(cursor)
    if parts is None or int(parts[1]) >= len(logs):
        raise Malformed("not a cursor of this node", why="search again from the beginning", code="CURSOR")
    log = logs[int(parts[1])]
    return Found(log.origin, log.vkey, int(parts[2]), b"")
