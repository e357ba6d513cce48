"""Gather what a verdict about an artifact needs besides the lines about it: statements about the keys of its publisher,
rival claims to its name, other observations of its commits, documents of vouches, and statements about ancestors, which
`comity.trust.lineage` interprets.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from comity.trust.bound_nodes import bind_nodes
from comity.trust.claims import KnownAuthors, ParsedClaims, Publication, verify_vouches
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, Unavailable
from comity.trust.evidence import MAX_CLAIMS, MAX_READ
from comity.trust.names import UPSTREAM, Reference
from comity.trust.policy import Policy
from comity.trust.statement import Entry
from comity.trust.statements import DERIVED, Published, parse_derived
from comity.trust.upstream import OBSERVED
from comity.wire.client import NodeClient
from comity.wire.messages import LocatedEntry
from comity_client.events import Note, OnEvent
from comity_client.evidence.gather import author_of, claims_of, lines_by_log, prove_said, select_lines
from comity_client.evidence.proofs import MAX_DOCUMENTS, fetch_object
from comity_client.session import RemoteNode, Session

MAX_NAMES: Final = 8
"""Maximum number of observed commits of an artifact that are queried for rival observations."""
MAX_RIVALS: Final = 32
"""Maximum number of rival claimants whose claims are included for display."""
MAX_DOCUMENT: Final = 4 * 1024 * 1024
"""Maximum bytes of a document that comes with a vouch."""


async def related_lines(
    session: Session, publication: Publication | None, policy: Policy
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """Return lines about the keys of the publisher, and rival publications of the same name with the records of their
    signers; and notes on dropped lines. Missing answers are not raised."""
    if publication is None:
        return (), ()
    keys, (rivals, notes) = await asyncio.gather(
        _key_lines(session, publication.publisher.id, policy), _rival_lines(session, publication, policy)
    )
    return (*keys, *rivals), notes


async def rival_observations(
    session: Session, lines: Iterable[bytes], policy: Policy
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """Return proven statements about the commits that these lines claim to have observed, and notes on dropped
    lines."""
    entries = map(session.reader.readable, lines)
    observed = {e.statement.subjects[0].name for e in entries if e and e.statement.predicate == OBSERVED}
    commits = [Reference.parse(name) for name in sorted(observed)[:MAX_NAMES] if name.startswith(UPSTREAM)]
    asked = await asyncio.gather(*(session.ask(functools.partial(_query_commit, commit)) for commit in commits))
    found: dict[RemoteNode, list[LocatedEntry]] = {}
    for node, items in (item for answers in asked for item in answers.found.items()):
        found.setdefault(node, []).extend(items)
    return select_lines(session, lines_by_log(found), policy) if found else ((), ())


async def _query_commit(commit: Reference, node: NodeClient) -> tuple[LocatedEntry, ...]:
    return await node.resolve(commit.repository or "", commit.version)


async def vouched_documents(
    session: Session, readings: ParsedClaims, artifact: Digest, policy: Policy, on_event: OnEvent
) -> Mapping[Digest, bytes]:
    """Fetch small documents of proven vouches for the artifact, if any node has them."""
    bound, _, _ = bind_nodes(policy.pins, readings.entries, readings.chains)
    seats = [seat for body in policy.pins for seat in body.members]
    vouches, _ = verify_vouches(readings, artifact, KnownAuthors(readings, bound, seats))
    named = dict.fromkeys(item for vouch in vouches if (item := vouch.vouched.document) and item.size <= MAX_DOCUMENT)
    found: dict[Digest, bytes] = {}
    for item in list(named)[:MAX_DOCUMENTS]:
        try:
            found[item.digest] = await fetch_object(session, item.digest)
        except Unavailable as error:
            on_event(Note(str(error)))
    return found


async def _key_lines(session: Session, identity: Digest, policy: Policy) -> tuple[bytes, ...]:
    answers = await session.ask(lambda node: node.claims(identity))
    proven = prove_said(session, lines_by_log(answers.found), policy)
    return tuple(entry.line for entry in proven.entries if author_of(entry) == identity)


async def _rival_lines(
    session: Session, publication: Publication, policy: Policy
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """Return the oldest claim of each other claimant, up to a limit; resolution does not depend on them."""
    name = publication.published.name
    try:
        claims = await claims_of(session, name.repository, name.version, policy)
    except ComityError:
        return (), ()
    others = {p.publisher.id: p for p in reversed(claims.publications) if p.entry.digest != publication.entry.digest}
    shown = list(reversed(others.items()))
    lines = [e.line for who, p in shown[:MAX_RIVALS] for e in (*claims.proven.keys_of(who), p.entry)]
    more = len(shown) - MAX_RIVALS
    return tuple(lines), (f"{more} more claimants of {name} are left out",) if more > 0 else ()


MAX_ARTIFACTS: Final = 64
"""Maximum number of ancestors to ask about, nearest first."""
MAX_LINES: Final = 32
"""Maximum number of lines about one ancestor."""
AT_ONCE: Final = 8
MAX_BYTES: Final = 16 * 1024 * 1024
"""Maximum bytes of lines about all ancestors."""
_WANTED: Final = ("published", DERIVED, "inception", "rotated")


async def gather_ancestors(
    session: Session, artifact: Digest, publication: Publication | None, lines: Iterable[bytes], policy: Policy
) -> tuple[bytes, ...]:
    """Return lines about the ancestors of `artifact`, if any node has them.

    Args:
        publication: the publication of `artifact` to use, in addition to the derivations in `lines`.
    """
    read = map(session.reader.readable, lines)
    own = [entry for entry in read if entry is not None and entry.statement.subject == artifact]
    derived = [entry for entry in own if entry.statement.predicate == DERIVED]
    waiting = list(_parents_of([*([publication.entry] if publication else []), *derived]))
    seen = {artifact}
    found: list[bytes] = []
    while len(seen) <= MAX_ARTIFACTS and sum(map(len, found)) <= MAX_BYTES:
        unseen = [parent for parent in dict.fromkeys(waiting) if parent not in seen]
        batch, waiting = unseen[:AT_ONCE], unseen[AT_ONCE:]
        if not batch:
            break
        seen.update(batch)
        asked = await asyncio.gather(*(_ancestor_entries(session, parent, policy) for parent in batch))
        found += [entry.line for entries in asked for entry in entries]
        waiting += _parents_of(entry for entries in asked for entry in entries)
    return tuple(found)


def with_ancestor_lines(own: Sequence[bytes], above: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return `own` lines about an artifact, then lines about its ancestors up to the limits of a verifier, so that the
    publisher of an ancestor cannot displace lines about the artifact itself."""
    there = set(own)
    more = [line for line in dict.fromkeys(above) if line not in there][: MAX_CLAIMS - len(own)]
    sizes = itertools.accumulate((len(line) + 1 for line in more), initial=sum(len(line) + 1 for line in own))
    return (
        *own,
        *(line for line, size in zip(more, itertools.islice(sizes, 1, None), strict=True) if size <= MAX_READ),
    )


async def _ancestor_entries(session: Session, artifact: Digest, policy: Policy) -> list[Entry]:
    """Return the proven, wanted entries of all nodes, up to the limit, the most decisive first."""
    answers = await session.ask(lambda node: node.claims(artifact))
    lines, _ = select_lines(session, lines_by_log(answers.found), policy, about={artifact})
    entries = [entry for entry in map(session.reader.entry, lines) if entry.statement.predicate in _WANTED]
    return entries[:MAX_LINES]


def _parents_of(entries: Iterable[Entry]) -> Iterator[Digest]:
    """Yield the parents that statements name by digest."""
    for entry in entries:
        try:
            if entry.statement.predicate == "published":
                yield from (parent.digest for parent in Published.parse(entry.statement).lineage if parent.digest)
            elif entry.statement.predicate == DERIVED:
                yield parse_derived(entry.statement).parent
        except Malformed:
            continue
