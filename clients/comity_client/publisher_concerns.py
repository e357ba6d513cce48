"""What concerns a publisher, as the nodes of the pinned federations list it.

Each statement is verified here: the keys of its author come along with it, and what they do not prove is left out and
counted. So a node cannot invent a statement under a publisher's identity. Which names and files a publisher has is the
node's own finding, and a node can leave something out: all nodes are asked, and who said less than all is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import aclosing
from typing import Final, Literal, get_args

from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.policy import Policy
from comity.trust.statement import Entry
from comity.wire import limits
from comity.wire.client import NodeClient
from comity.wire.concerns import KEYS, ConcernPart

from comity_client.evidence.inquiry import Inquiry
from comity_client.evidence.known_since import KnownSince
from comity_client.session import RemoteNode, Session

Why = Literal["own", "name", "files"]
WHYS: Final[Mapping[str, Why]] = {why: why for why in get_args(Why)}


@frozen
class FoundConcern:
    """A verified statement that concerns the publisher, as a node says: `why` is "own", which is proven, "name" or
    "files". `origin` and `index`: where it was logged."""

    why: Why
    entry: Entry
    origin: str
    index: int
    known_since: KnownSince | None


@frozen
class PublisherConcerns:
    """What nodes listed, by when it was known. `incomplete`: in which way the list may be incomplete, in sentences."""

    found: tuple[FoundConcern, ...]
    incomplete: tuple[str, ...]


async def ask_concerns(session: Session, policy: Policy, publisher: Digest) -> PublisherConcerns:
    """Ask all nodes. Raises Unavailable, NotFound (NO-NODES) where no node answers."""
    session.require_nodes()
    answers = await session.ask(lambda node: _read(node, publisher))
    if not answers.found:
        raise answers.failure("no node says what concerns this publisher")
    inquiry, found, notes = Inquiry(session, policy), dict[tuple[str, Digest], FoundConcern](), list[str]()
    for node, parts in answers.found.items():
        proven = inquiry.prove(str(node.record.log), [each.line for part in parts for each in part.entries])
        entries = {entry.digest: entry for entry in proven.entries}
        inquiry.claimed_times.add(node.member.id, [each for part in parts for each in part.entries])
        for part, entry in _proven(parts, entries, publisher):
            located, key = part.entries[0], (part.why, entry.statement_digest)
            known = inquiry.claimed_times.of(located.line)
            found[key] = FoundConcern(WHYS[part.why], entry, located.origin, located.index, known)
        notes += _incomplete(node, parts)
        notes += proven.notes()
    notes += (f"{node.name} did not answer: {error}" for node, error in answers.failed.items())
    ordered = sorted(found.values(), key=lambda each: each.known_since.at if each.known_since else 0)
    return PublisherConcerns(tuple(ordered), tuple(dict.fromkeys(notes)))


async def _read(node: NodeClient, publisher: Digest) -> list[ConcernPart]:
    """Raises Malformed for more than an answer may have."""
    parts = list[ConcernPart]()
    async with aclosing(node.concerns(publisher)) as answer:
        async for part in answer:
            parts.append(part)
            if sum(each.why != KEYS for each in parts) > limits.CONCERNS_LISTED + 1:
                raise Malformed("the answer is too long", why="the node listed more than asked", code="UNBOUNDED")
    return parts


def _proven(
    parts: list[ConcernPart], entries: Mapping[Digest, Entry], publisher: Digest
) -> Iterator[tuple[ConcernPart, Entry]]:
    """The parts whose statements are among the proven `entries`, by the SHA-256 of their lines, and whose author may be
    who the reason says."""
    for part in parts:
        if part.why not in WHYS or not part.entries:
            continue
        entry = entries.get(sha256(part.entries[0].line))
        if entry is not None and entry.statement.by is not None:
            own = entry.statement.by.id == publisher
            if own == (part.why == "own"):
                yield part, entry


def _incomplete(node: RemoteNode, parts: list[ConcernPart]) -> Iterator[str]:
    if any(part.more for part in parts):
        yield f"{node.name} knows of more than it lists"
    if unread := max((part.unread for part in parts), default=0):
        yield f"{node.name} has not read {unread} statement{'s' * (unread != 1)} yet"
