"""What nodes say about all that an artifact comes from: publications and derivations of its parents, and of theirs.

Only lines are gathered here, and with them whose keys they are; what they prove is decided by
`comity.trust.judging.ancestry`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from comity.trust.digest import Digest
from comity.trust.errors import Malformed
from comity.trust.evidence import MAX_CLAIMS, MAX_READ
from comity.trust.judging.reading import Publication
from comity.trust.policy import Policy
from comity.trust.statement import Entry
from comity.trust.statements.derived import PREDICATE as DERIVED
from comity.trust.statements.derived import parse_derived
from comity.trust.statements.published import Published

from comity_client.evidence.gather import kept, lines_of
from comity_client.evidence.proving import readable
from comity_client.nodes.session import Session

MAX_ARTIFACTS: Final = 64
"""Ancestors that are asked for, nearest first."""
MAX_LINES: Final = 32
"""Lines that are taken along about one of them."""
AT_ONCE: Final = 8
MAX_BYTES: Final = 16 * 1024 * 1024
"""Of lines about all of them."""
_WANTED: Final = ("published", DERIVED, "inception", "rotated")


async def gather_ancestors(
    session: Session, artifact: Digest, publication: Publication | None, lines: Iterable[bytes], policy: Policy
) -> tuple[bytes, ...]:
    """Lines about the ancestors of `artifact`, as far as anybody gives them.

    Args:
        publication: the one of `artifact` to go by; `lines` are what is said about it otherwise.
    """
    own = [entry for line in lines if (entry := readable(line)) and entry.statement.subject == artifact]
    derived = [entry for entry in own if entry.statement.predicate == DERIVED]
    waiting = list(_parents([*([publication.entry] if publication else []), *derived]))
    seen = {artifact}
    found: list[bytes] = []
    while len(seen) <= MAX_ARTIFACTS and sum(map(len, found)) <= MAX_BYTES:
        unseen = [parent for parent in dict.fromkeys(waiting) if parent not in seen]
        batch, waiting = unseen[:AT_ONCE], unseen[AT_ONCE:]
        if not batch:
            break
        seen.update(batch)
        asked = await asyncio.gather(*(_about(session, parent, policy) for parent in batch))
        found += [entry.line for entries in asked for entry in entries]
        waiting += _parents(entry for entries in asked for entry in entries)
    return tuple(found)


def beside(own: Sequence[bytes], above: Iterable[bytes]) -> tuple[bytes, ...]:
    """`own` lines about an artifact, and as many about its ancestors as a verifier reads beside them: nobody who
    publishes an ancestor crowds out what is said about the artifact itself."""
    there = set(own)
    more = [line for line in dict.fromkeys(above) if line not in there][: MAX_CLAIMS - len(own)]
    sizes = itertools.accumulate((len(line) + 1 for line in more), initial=sum(len(line) + 1 for line in own))
    return (
        *own,
        *(line for line, size in zip(more, itertools.islice(sizes, 1, None), strict=True) if size <= MAX_READ),
    )


async def _about(session: Session, artifact: Digest, policy: Policy) -> list[Entry]:
    """The wanted lines of all nodes that prove themselves, as many as are taken along; what decides comes first."""
    answers = await session.ask(lambda node: node.claims(artifact))
    lines, _ = kept(session, lines_of(answers.found), policy, about={artifact})
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
