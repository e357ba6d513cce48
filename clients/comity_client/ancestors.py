"""What nodes say about all that an artifact comes from: publications and derivations of its parents, and of theirs.

Only lines are gathered here, and with them whose keys they are; what they prove is decided by `comity.trust.ancestry`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Final

from comity.trust.derived import PREDICATE as DERIVED
from comity.trust.derived import parse_derived
from comity.trust.digest import Digest
from comity.trust.errors import Malformed
from comity.trust.published import Published
from comity.trust.reading import Publication
from comity.trust.statement import Entry

from comity_client.gather import readable, select
from comity_client.session import Session

MAX_ARTIFACTS: Final = 64
"""Ancestors that are asked for, nearest first."""
MAX_LINES: Final = 64
"""Lines that are taken along about one of them."""
_WANTED: Final = ("published", DERIVED, "inception", "rotated")


async def gather_ancestors(
    session: Session, artifact: Digest, publication: Publication | None, lines: Iterable[bytes]
) -> tuple[bytes, ...]:
    """Lines about the ancestors of `artifact`, as far as anybody gives them.

    Args:
        publication: the one of `artifact` to go by; `lines` are what is said about it otherwise.
    """
    own = [entry for line in lines if (entry := readable(line)) and entry.statement.subject == artifact]
    derived = [entry for entry in own if entry.statement.predicate == DERIVED]
    waiting = list(dict.fromkeys(_parents([*([publication.entry] if publication else []), *derived])))
    seen = {artifact}
    found: list[bytes] = []
    while waiting := [parent for parent in waiting if parent not in seen][: MAX_ARTIFACTS + 1 - len(seen)]:
        seen.update(waiting)
        asked = await asyncio.gather(*(_about(session, parent) for parent in waiting))
        found += [entry.line for entries in asked for entry in entries]
        waiting = list(dict.fromkeys(_parents(entry for entries in asked for entry in entries)))
    return tuple(found)


async def _about(session: Session, artifact: Digest) -> list[Entry]:
    """The wanted lines of all nodes, as many as are taken along; what decides comes first."""
    answers = await session.ask(lambda node: node.claims(artifact))
    lines = select(item.line for located in answers.found.values() for item in located)
    entries = [entry for line in lines if (entry := readable(line)) and entry.statement.predicate in _WANTED]
    return entries[:MAX_LINES]


def _parents(entries: Iterable[Entry]) -> Iterator[Digest]:
    """Whom statements name as parents, by digest."""
    for entry in entries:
        try:
            if entry.statement.predicate == "published":
                yield from (parent.digest for parent in Published.parse(entry.statement).lineage if parent.digest)
            elif entry.statement.predicate == DERIVED:
                yield parse_derived(entry.statement).parent
        except Malformed:
            continue
