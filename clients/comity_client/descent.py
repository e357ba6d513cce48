"""Under whose law the publishers are from whom artifacts descend: one node counts, and its reader folds.

One node counts, from the publications and derivations in its logs, how many artifacts have each set of roots; this is
that node's claim to its reader, who knows laws by the charters that he pinned and by his own file
(`comity.rules.descent_shares`). Artifacts that only others than members publish are counted apart, unless they
are asked for, or a member or node holds them and that is what is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final

from comity.rules.descent import DescentQuestion
from comity.rules.descent_shares import DescentFolder, DescentShares, KnownLaws
from comity.trust.encoding import Digest, parse_digest
from comity.trust.errors import ComityError, NotFound, Unavailable
from comity.wire.client import NodeClient

from comity_client.session import Session
from comity_client.uplink import find_node

DIGITS: Final = 64
"""Of an id."""


async def descent_of_federation(
    session: Session, node: str, question: DescentQuestion, stated: Mapping[str, str], *, everybody: bool = False
) -> DescentShares:
    """Ask the node that `node` names, or the first that answers. What only others than members publish is counted
    apart, unless `everybody`, or where what somebody holds is asked. Raises as `find_node` does, and Unavailable."""
    session.require_nodes()
    laws = KnownLaws.of([pin.body for pin in session.pins], stated)
    chosen = [await find_node(session, node)] if node else session.nodes
    failure: ComityError = Unavailable("no node counts roots", why="none answers", code="UNREACHABLE")
    for known in chosen:
        try:
            return await known.ask(partial(_fold, source=known.name, question=question, laws=laws, everybody=everybody))
        except ComityError as error:
            failure = error
    raise failure


async def _fold(
    node: NodeClient, source: str, question: DescentQuestion, laws: KnownLaws, everybody: bool
) -> DescentShares:
    folder = DescentFolder(laws, everybody=everybody or question.holder is not None)
    async with aclosing(node.all_descent(question)) as pages:
        unread = weeks = 0
        async for page in pages:
            folder.add(page.counts, page.requiring)
            unread, weeks = page.unread, page.weeks
    return folder.shares(source, unread, weeks)


def member_or_node(session: Session, text: str) -> Digest:
    """The id of the member or node that a user names: by its name, or the first 8 digits or more of its id; the id of
    anybody is taken as it is. Raises NotFound (NO-PARTY)."""
    if len(text) == DIGITS:
        return parse_digest(text.lower())
    named: dict[Digest, set[str]] = {}
    for pin in session.pins:
        for member in pin.body.members:
            named.setdefault(member.id, set()).add(member.name)
    for node in session.nodes:
        named.setdefault(node.record.node.id, set()).add(node.name)
    exact = [found for found, names in named.items() if text in names]
    fitting: Sequence[Digest] = exact or [each for each in named if len(text) >= 8 and each.startswith(text.lower())]
    if len(fitting) == 1:
        return fitting[0]
    why = f"{len(fitting)} members and nodes fit {text[:64]!r}"
    raise NotFound("no such member or node", why=why, hint="comity peer ls", code="NO-PARTY")
