"""Which questions an asker who looks for the artifact of a name will probably ask, after the first one.

A guess: the asker decides by its own rules to whom the name belongs and which version it means, and asks what is not
answered. Blocking reads of one ledger.
"""

from __future__ import annotations

from comity.ledger.proven import ProvenTables
from comity.node.services.selections import Standing, first_claimants
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.trust.names import UPSTREAM
from comity.trust.statement import parse_entry
from comity.wire import limits
from comity.wire.found import Lookup


@frozen
class Likely:
    """The questions about the artifact that is probably meant; none if there is no such publication."""

    questions: tuple[Lookup, ...] = ()
    artifact: Digest | None = None


def likely_questions(proven: ProvenTables, standing: Standing, asked: Lookup, version: str | None) -> Likely:
    """Return what is probably asked after the first question.

    Args:
        asked: the first question; its publisher is the one whom the asker expects.
        version: the version that the asker wants; None for the newest.
    """
    name, named = asked.name, asked.named
    if name.startswith(UPSTREAM) or (publisher := _owner(proven, standing, asked)) is None:
        return Likely()
    found = proven.publications(name, publisher, version).found
    if not found:
        return Likely()
    newest = max(found, key=lambda each: each.number)
    repository, _, stated = parse_entry(newest.line).statement.subjects[0].name.partition("@")
    preferred = (publisher, *named)[: limits.NAMED]
    questions = (
        Lookup.of_name(name, version, publisher, named),
        Lookup.about(newest.artifact, preferred),
        Lookup.of_name(repository, None, publisher, named),
        Lookup.about(publisher, preferred),
        Lookup.of_name(repository, stated, None, preferred),
    )
    return Likely(tuple(dict.fromkeys(questions)), newest.artifact)


def _owner(proven: ProvenTables, standing: Standing, asked: Lookup) -> Digest | None:
    """To whom the name probably belongs for the asker; None if nobody published under it."""
    bound = asked.publisher or standing.bound_publisher(asked.name.partition("/")[0])
    if bound is not None:
        return bound
    first = first_claimants(proven, standing.nodes, asked.name, 1, standing.precedence)
    return first[0].identity if first else None
