"""Questions to the nodes of a session under one policy, whose answers are proven here.

The answer of a node is its own selection, so only lines that `prove` verifies are used. What one answer proves is known
for the next one, and is not sent again (`held_lines`).
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Final, TypeVar

from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, Unavailable
from comity.trust.frozen import frozen
from comity.trust.policy import Policy
from comity.trust.statement import Entry
from comity.trust.statement_kinds import PROVING_PREDICATES
from comity.wire.client import NodeClient
from comity.wire.found import Found, Lookup
from comity.wire.held import SALT, Held, Selected
from comity.wire.limits import HELD
from comity.wire.messages import LocatedEntry

from comity_client.evidence.held_lines import HeldLines, Question, ask_beside, pinned_entries
from comity_client.evidence.known_since import ClaimedTimes
from comity_client.evidence.prove import ProvenStatements, Prover, choose
from comity_client.session import Answers, RemoteNode, Session

T = TypeVar("T")
HERE: Final = "here"
"""The sender of what is here already."""


class Inquiry:
    """A session in which one command asks about statements. Not thread-safe.

    Args:
        policy: it says whose statements come first. Its charters and those of the session prove nodes and members,
            because another policy may apply to the result later.

    Attributes:
        claimed_times: since when nodes say that they know the lines of their answers.
    """

    def __init__(self, session: Session, policy: Policy) -> None:
        self.session = session
        self.policy = policy
        self._salt = secrets.token_bytes(SALT)
        self._found: dict[Lookup, dict[RemoteNode, tuple[Selected, ...]]] = {}
        self.claimed_times = ClaimedTimes()

    @cached_property
    def _prover(self) -> Prover:
        bodies = (*self.policy.pins, *(federation.body for federation in self.session.pins))
        distinct = {body.digest: body for body in bodies}.values()
        return Prover(tuple(distinct), pinned_entries(self.session), self.session.reader)

    async def ask(self, question: Question, wanted: Callable[[Entry], bool] = lambda entry: True) -> ProvenAnswers:
        """Ask all nodes, as `Session.ask` does, and prove the statements of the answers that are `wanted`.

        What is here already of keys and nodes counts for every answer, whether a node repeats it or not.
        """
        return await self._ask(lambda node: question, wanted, {})

    async def ask_for(self, asked: Lookup, wanted: Callable[[Entry], bool] = lambda entry: True) -> ProvenAnswers:
        """As `ask`, but of nodes that answered this question with another one (`find`) only what is not here."""
        ahead = self._found.pop(asked, {})
        return await self._ask(lambda node: lambda client, held: client.asked_beside(held, asked), wanted, ahead)

    async def find(self, asked: Lookup, version: str | None) -> ProvenAnswers:
        """As `ask_for`, and have nodes answer also what will probably be asked about the artifact of a name.

        Args:
            asked: the question for the name; its publisher, to whom the name is known to belong, is not part of it.
            version: the version that is wanted; None for the newest.
        """
        first, begun = replace(asked, publisher=None), set[RemoteNode]()

        def question(node: RemoteNode) -> Question:
            async def ask(client: NodeClient, held: Held) -> tuple[Selected, ...]:
                if node in begun:
                    return await client.asked_beside(held, first)
                begun.add(node)
                found = await _found_by(client, held, replace(asked, version=version))
                for each in found.answers.keys() - {first}:
                    self._found.setdefault(each, {})[node] = found.answers[each]
                if found.manifest:
                    self.session.ahead.give(sha256(found.manifest), found.manifest)
                return found.answers[first] if first in found.answers else await client.asked_beside(held, first)

            return ask

        return await self._ask(question, lambda entry: True, {})

    async def _ask(
        self,
        question: Callable[[RemoteNode], Question],
        wanted: Callable[[Entry], bool],
        ahead: Mapping[RemoteNode, tuple[Selected, ...]],
    ) -> ProvenAnswers:
        proven = self._prover.proven
        keys = {entry.line: entry for entry in proven if entry.statement.predicate in PROVING_PREDICATES}
        others = (entry for entry in reversed(proven) if entry.line not in keys)
        told = tuple(islice((*keys.values(), *others), HELD))
        answers = await ask_beside(self.session, question, HeldLines(self._salt, told, proven if ahead else ()), ahead)
        keys = {entry.line: entry for entry in told if entry.line in keys}
        lines: dict[str, list[bytes]] = {HERE: list(keys)}
        for node, items in answers.found.items():
            self.claimed_times.add(node.member.id, items)
            said = (item.line for item in items if item.more or item.line not in keys)
            lines.setdefault(str(node.record.log), []).extend(said)
        return ProvenAnswers(answers, self._prover.prove(lines, wanted))

    def chosen(self, proven: ProvenStatements, prefer: Sequence[Digest]) -> tuple[list[Entry], tuple[str, ...]]:
        """Return proven statements, as many as a verifier reads, those of `prefer` first, and notes on the others."""
        lines, left = choose(proven, self.session.records(), prefer)
        beyond = (f"{left} proven statements exceed the limit of a verifier and are left out",) if left else ()
        return [self.session.reader.entry(line) for line in lines], (*proven.notes(), *beyond)

    def prove(self, source: str, lines: Sequence[bytes]) -> ProvenStatements:
        """Prove lines that came another way."""
        return self._prover.prove({source: lines})


async def _found_by(client: NodeClient, held: Held, asked: Lookup) -> Found:
    """What a node answers at once; nothing if it is of a version that has only single answers."""
    try:
        return await client.find_beside(held, asked)
    except Unavailable as error:
        if error.code != "UNIMPLEMENTED":
            raise
        return Found({})


@frozen
class ProvenAnswers:
    """Answers of nodes, and what they prove."""

    answers: Answers[tuple[LocatedEntry, ...]]
    proven: ProvenStatements

    @property
    def located(self) -> list[LocatedEntry]:
        return [item for found in self.answers.found.values() for item in found]

    @property
    def silent(self) -> tuple[str, ...]:
        """The nodes without an answer."""
        failed = self.answers.failed.items()
        return tuple(sorted(node.name for node, error in failed if not isinstance(error, NotFound)))

    @property
    def limited(self) -> bool:
        """Whether a node knows of others than it listed."""
        return any(item.others for item in self.located)

    def cut_authors(self) -> frozenset[Digest]:
        """Return the authors of whom a node says that it has more statements than it gave. A node that says so of
        everybody makes nothing unknown: another node that gave as many proven statements, at least one, and says that
        these are all, counts. Keys and node records are not counted, because those that are here are not sent."""
        marked: Counter[Digest] = Counter()
        whole: Counter[Digest] = Counter()
        for node, items in self.answers.found.items():
            said = self.proven.sources.get(str(node.record.log), ())
            more = {item.line for item in items if item.more}
            stated = (entry for entry in said if entry.statement.predicate not in PROVING_PREDICATES)
            numbers = Counter(who for entry in stated if (who := author_of(entry)) is not None)
            cut = {who for entry in said if entry.line in more and (who := author_of(entry)) is not None}
            for who in numbers.keys() | cut:
                counted = marked if who in cut else whole
                counted[who] = max(counted[who], numbers[who])
        return frozenset(who for who, number in marked.items() if whole[who] < max(1, number))

    def sightings(self, policy: Policy, seen: Callable[[Entry], T | None]) -> dict[Digest, T | None]:
        """Return what the nodes of each active member of a pinned body saw first; None for a member that answers but
        knows nothing or contradicts itself.

        Args:
            seen: returns what an entry shows, None if it is not relevant.
        """
        seats = {member.id: member.lineage for body in policy.pins for member in body.active}
        values: dict[Digest, set[T | None]] = {}
        for node in self.answers.found:
            entries = self.proven.sources.get(str(node.record.log), ())
            first = next((found for entry in entries if (found := seen(entry)) is not None), None)
            if node.member.id in seats:
                values.setdefault(seats[node.member.id], set()).add(first)
        for node, error in self.answers.failed.items():
            if isinstance(error, NotFound) and node.member.id in seats:
                values.setdefault(seats[node.member.id], set())
        return {member: _single(found) for member, found in values.items()}


def _single(found: set[T | None]) -> T | None:
    known = [item for item in found if item is not None]
    return known[0] if len(known) == 1 else None


def is_about(entry: Entry, subject: Digest) -> bool:
    """Whether a statement is about this subject."""
    return any(each.digest == subject for each in entry.statement.subjects)


def author_of(entry: Entry) -> Digest | None:
    return entry.statement.by.id if entry.statement.by else None


def places_of(located: Iterable[LocatedEntry]) -> Mapping[bytes, frozenset[tuple[str, int]]]:
    """The positions (origin of a log, index) that nodes claim, by line."""
    places: dict[bytes, set[tuple[str, int]]] = {}
    for item in located:
        places.setdefault(item.line, set()).add((item.origin, item.index))
    return {line: frozenset(found) for line, found in places.items()}
