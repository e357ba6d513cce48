"""What is left of a federation without each single party, artifact by artifact: a drill by reasoning.

The input is what nodes answer: which members claim a copy of each artifact and which copies were tested, as one node
reads the logs, and how much of each log each node has. A party is removed with all that it takes; an artifact then

    pulls       if another member claims a copy, and a node of that member answers now
    verifies    if besides that the other nodes have every log as far as the node that lists the artifacts has it: the
                statements and proofs of the artifact are there. Otherwise it is unknown whether it verifies
    is enough   if the copies that are left meet the charter's policy

Newer entries are not about the listed artifacts, so nobody can make the result unknown by adding some.

Nothing is stopped and no byte is read, so the result is as good as the answers: claims, except for tested copies.
Parties on which nothing depends are listed with the reason, so that a reader does not have to ask.

`drill` is a pure function of the answers. `drill_federation` asks every node which logs it has, and whether it answers.
Entries that were logged just now are on their way to the other nodes, so those are asked again for some seconds while
the loss of one party would take entries from which the copies were computed. `render_drill` makes the page.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from comity.rules.copy_counts import CopyCount, CopyPolicy, Holder, parties_of
from comity.rules.copy_questions import ALL, CopyQuestion
from comity.rules.parties import (
    CA_STORE,
    CLOCK,
    DNS,
    HUB,
    MEMBER,
    PARTY_KINDS,
    PUBLISHER,
    Party,
)
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen
from comity.trust.places import Reach, declared_reach
from comity.trust.tlog.note import SignedNote, open_checkpoint
from comity.wire.client import NodeClient
from comity.wire.limits import FOLD_LISTED
from comity.wire.log import LogHead

from comity_client.copies import AskedArtifact, CountedCopies, fold_copies_of_federation
from comity_client.dependents import FURTHER_PARTIES, Dependents, find_dependents
from comity_client.reports import page_template
from comity_client.session import RemoteNode, Session

if TYPE_CHECKING:
    from comity.wire.audit import CopiesPage

MAX_FALLEN: Final = 1_000
"""Artifacts that are named for one party; all are counted."""
_ORDER: Final = tuple(PARTY_KINDS)
_INDEPENDENT: Final = {
    PUBLISHER: "it holds no copy: its signature is in the logs",
    HUB: "nothing is read from it: what was imported is here, with what was observed",
    CA_STORE: "no certificate authority is asked: certificates are pinned by node records",
    CLOCK: "no verdict reads a clock: times are in the evidence, and `as_of` is in the policy",
}


@frozen
class DrillNode:
    """A node. `entries` is the size of each log that it answers with, by verifier key; `numeric`: an address of it
    needs no DNS."""

    name: str
    member: Digest
    jurisdiction: str
    reach: Reach = ()
    cloud: str = ""
    answers: bool = True
    numeric: bool = True
    entries: Mapping[str, int] = field(default_factory=dict)

    def parties(self) -> set[Party]:
        """The parties whose loss takes this node."""
        found = set(parties_of(Holder(self.member, self.jurisdiction, False, self.reach, self.cloud)))
        return found if self.numeric else found | {Party(DNS, "")}

    def lost_with(self, party: Party) -> bool:
        return party in self.parties()


@frozen
class DrillArtifact:
    """An artifact, and its claimed name or its digest."""

    artifact: Digest
    name: str


@frozen
class DrillGroup:
    """The artifacts of which the same members have a copy that counts: how many, and the first MAX_FALLEN of them."""

    holders: tuple[Holder, ...]
    artifacts: int
    first: tuple[DrillArtifact, ...]


@frozen
class LogRemainder:
    """Entries of the log `origin` from `first` on, `count` of them, that were read and that only lost nodes have."""

    origin: str
    first: int
    count: int


@frozen
class FallenArtifact:
    """An artifact that does not pull, or of which it is unknown whether it verifies."""

    artifact: Digest
    name: str
    before: CopyCount
    after: CopyCount


@frozen
class PartyOutcome:
    """What the loss of `party` leaves, as numbers of artifacts.

    Attributes:
        why: the reason, for a party on which nothing depends; what its dependents lose, or why they are not known.
        nodes: the names of the lost nodes.
        tested: artifacts that pull from a copy that was tested.
        remainders: what only lost nodes have of the logs. If there is any, `verifies` is 0: it is unknown.
        fallen: the first MAX_FALLEN artifacts that do not pull or of which it is unknown whether they verify.
        dependents: offers or artifacts that need it for something else (`comity_client.dependents`), with the names of
            the first of them in `dependent_names`; None where it is not known.
    """

    party: Party
    why: str
    nodes: tuple[str, ...]
    artifacts: int
    pulls: int
    tested: int
    verifies: int
    enough: int
    remainders: tuple[LogRemainder, ...]
    fallen: tuple[FallenArtifact, ...]
    dependents: int | None = 0
    dependent_names: tuple[str, ...] = ()

    @property
    def survived(self) -> bool:
        """Whether every artifact pulls and verifies."""
        return self.pulls == self.verifies == self.artifacts


@frozen
class DrillInput:
    """What nodes answer.

    Attributes:
        groups: all artifacts.
        read: the entries of each log from which the list of artifacts was computed, by verifier key.
        publishers, hubs: those whose loss is to be shown.
        dependents: of parties that hold no copy, what depends on them.
    """

    nodes: tuple[DrillNode, ...]
    groups: tuple[DrillGroup, ...]
    policy: CopyPolicy
    read: Mapping[str, int]
    publishers: tuple[str, ...] = ()
    hubs: tuple[str, ...] = ()
    dependents: Mapping[Party, Dependents] = field(default_factory=dict)

    def parties(self) -> tuple[Party, ...]:
        """Every single party, by kind and name."""
        holders = {holder for group in self.groups for holder in group.holders}
        nodes = {Holder(node.member, node.jurisdiction, False, node.reach, node.cloud) for node in self.nodes}
        found = {party for holder in (*holders, *nodes) for party in parties_of(holder) if party.kind != PUBLISHER}
        found |= {Party(PUBLISHER, name) for name in self.publishers}
        found |= {Party(HUB, name) for name in self.hubs}
        found |= {Party(kind, "") for kind in (DNS, CA_STORE, CLOCK)} | self.dependents.keys()
        return tuple(sorted(found, key=lambda party: (_ORDER.index(party.kind), party.name)))

    def on_their_way(self) -> tuple[str, ...]:
        """The logs of which the loss of one party takes entries that were read, while it leaves a node that may get
        them: to ask the nodes again may give another result."""
        answering = [node for node in self.nodes if node.answers]
        unavoidable = _parties_of_all(answering)
        found = []
        for log, size in sorted(self.read.items()):
            whole = [node for node in answering if node.entries.get(log, 0) >= size]
            if answering and (not whole or _parties_of_all(whole) - unavoidable):
                found.append(log)
        return tuple(found)


def _parties_of_all(nodes: Sequence[DrillNode]) -> set[Party]:
    """The parties whose loss takes every one of the nodes."""
    return set.intersection(*(node.parties() for node in nodes)) if nodes else set()


def drill(given: DrillInput, parties: Iterable[Party] | None = None) -> tuple[PartyOutcome, ...]:
    """Remove each party in turn. The cost is that of the parties times the different sets of holders."""
    return tuple(_remove(party, given) for party in (given.parties() if parties is None else parties))


def _remove(party: Party, given: DrillInput) -> PartyOutcome:
    lost = tuple(node.name for node in given.nodes if node.lost_with(party))
    left = [node for node in given.nodes if node.answers and not node.lost_with(party)]
    serving = frozenset(node.member for node in left)
    remainders = tuple(_remainders(given.read, left))
    pulls = tested = enough = 0
    fallen: list[FallenArtifact] = []
    for group in given.groups:
        kept = [holder for holder in group.holders if holder.member in serving and party not in parties_of(holder)]
        after = CopyCount.of(kept)
        pulls += group.artifacts if kept else 0
        tested += group.artifacts if after.tested else 0
        enough += group.artifacts if after.meets(given.policy) else 0
        if not kept or remainders:
            before, room = CopyCount.of(group.holders), MAX_FALLEN - len(fallen)
            fallen += [FallenArtifact(item.artifact, item.name, before, after) for item in group.first[:room]]
    total = sum(group.artifacts for group in given.groups)
    why = _INDEPENDENT.get(party.kind, "every node has an address that needs no DNS" if party.kind == DNS else "")
    verifies = 0 if remainders else pulls
    needed = given.dependents.get(party, Dependents(party, 0, (), "" if lost else why))
    return PartyOutcome(
        party,
        needed.why,
        lost,
        total,
        pulls,
        tested,
        verifies,
        enough,
        remainders,
        tuple(fallen),
        needed.count,
        needed.first[:MAX_FALLEN],
    )


def _remainders(read: Mapping[str, int], left: Sequence[DrillNode]) -> Iterator[LogRemainder]:
    """What the nodes that are left do not have of what was read."""
    for log, size in sorted(read.items()):
        known = max((node.entries.get(log, 0) for node in left), default=0)
        if known < size:
            yield LogRemainder(log.partition("+")[0], known, size - known)


ARRIVAL_TIME: Final = 10
"""Seconds in which entries that were logged just now reach the other nodes; news takes one or two."""
PAUSE: Final = 0.5
"""Seconds between two questions."""


@frozen
class FederationDrill:
    """The outcome for each party. `source` is the node whose computation of copies was used; `silent` are the nodes
    that did not answer; `names` has names of members by id."""

    source: str
    outcomes: tuple[PartyOutcome, ...]
    silent: tuple[str, ...]
    names: Mapping[Digest, str]
    policy: CopyPolicy
    artifacts: int

    @property
    def survived(self) -> int:
        """The parties whose loss every artifact survives."""
        return sum(outcome.survived for outcome in self.outcomes)

    def name(self, party: Party) -> str:
        """The name of a member, if it is known; otherwise what identifies the party; empty for one of a kind."""
        return self.names.get(Digest(party.name), party.name) if party.kind == MEMBER else party.name


async def drill_federation(session: Session, node: str = "", hubs: Sequence[str] = ()) -> FederationDrill:
    """Raises NotFound, Unavailable if no node lists copies."""
    groups = _GroupedArtifacts()
    counted = await fold_copies_of_federation(session, node, CopyQuestion((ALL,)), groups.add)
    source = session.named(counted.source)
    read = _sizes(await source.ask(_heads), session)  # after the list, so at least what the list was computed from
    publishers = tuple(sorted({publisher for pin in session.pins for publisher in pin.body.namespaces.values()}))
    dependents = await find_dependents(session, counted.source, FURTHER_PARTIES)
    given = DrillInput((), groups.found(), counted.policy, read, publishers, tuple(hubs), dependents)
    given = await _with_nodes(given, session, declared_places(counted))
    silent = tuple(item.name for item in given.nodes if not item.answers)
    outcomes = await _named(drill(given), source)
    return FederationDrill(counted.source, outcomes, silent, counted.names, counted.policy, counted.artifacts)


class _GroupedArtifacts:
    """Groups artifacts by holders, as they arrive."""

    def __init__(self) -> None:
        self._counts = Counter[tuple[Holder, ...]]()
        self._first: dict[tuple[Holder, ...], list[DrillArtifact]] = {}

    def add(self, counted: CountedCopies, artifacts: Sequence[AskedArtifact]) -> None:
        for item in artifacts:
            holders = item.held.holders
            self._counts[holders] += 1
            first = self._first.setdefault(holders, [])
            if len(first) < MAX_FALLEN:
                first.append(DrillArtifact(item.artifact, item.label))

    def found(self) -> tuple[DrillGroup, ...]:
        return tuple(DrillGroup(holders, self._counts[holders], tuple(first)) for holders, first in self._first.items())


async def _named(outcomes: Sequence[PartyOutcome], source: RemoteNode) -> tuple[PartyOutcome, ...]:
    """The same, with the claimed names of what falls, if the node that lists the artifacts has them."""
    fallen = list(dict.fromkeys(item.artifact for outcome in outcomes for item in outcome.fallen))
    names: dict[Digest, str] = {}
    for start in range(0, len(fallen), FOLD_LISTED):
        some = tuple(fallen[start : start + FOLD_LISTED])
        page = await source.ask(partial(_names, some=some))
        names |= {listed.artifact: listed.name for listed in page.artifacts if listed.name}

    def named(item: FallenArtifact) -> FallenArtifact:
        return replace(item, name=names.get(item.artifact, item.name))

    return tuple(replace(outcome, fallen=tuple(map(named, outcome.fallen))) for outcome in outcomes)


async def _names(node: NodeClient, some: tuple[Digest, ...]) -> CopiesPage:
    return await node.audits.copies(None, None, None, some)


async def _with_nodes(given: DrillInput, session: Session, declared: Mapping[Digest, tuple[Reach, str]]) -> DrillInput:
    """The same, with what each node answers now; asked again while entries that were read may be on their way."""
    clock = asyncio.get_running_loop().time
    ends = clock() + ARRIVAL_TIME
    while True:
        answers = await session.ask(_heads)
        nodes = tuple(
            _node(remote, answers.found.get(remote), session, declared) for remote in session.nodes if not remote.former
        )
        given = replace(given, nodes=nodes)
        if not given.on_their_way() or clock() >= ends:
            return given
        await asyncio.sleep(PAUSE)


async def _heads(node: NodeClient) -> tuple[LogHead, ...]:
    return await node.logs()


def declared_places(counted: CountedCopies) -> dict[Digest, tuple[Reach, str]]:
    """Reach and cloud by node, as the node that lists the copies reads them in the newest records."""
    copies = (item.copy for copies in counted.sets for item in copies)
    return {copy.node: (copy.reach, copy.cloud) for copy in copies}


def _node(
    remote: RemoteNode,
    heads: Sequence[LogHead] | None,
    session: Session,
    declared: Mapping[Digest, tuple[Reach, str]],
) -> DrillNode:
    """A node, with the place that its newest known record declares: a pin may have an older one."""
    pinned = pinned_node(remote)
    reach, cloud = declared.get(remote.record.node.id, (pinned.reach, pinned.cloud))
    entries = _sizes(heads or (), session)
    return replace(pinned, reach=reach, cloud=cloud, answers=heads is not None, entries=entries)


def pinned_node(remote: RemoteNode) -> DrillNode:
    """A node with the place that its pinned record declares."""
    place = remote.record.place
    return DrillNode(
        name=remote.name,
        member=remote.member.id,
        jurisdiction=remote.jurisdiction,
        reach=declared_reach(remote.jurisdiction, place),
        cloud=place.cloud if place else "",
        numeric=remote.numeric,
    )


def _sizes(heads: Sequence[LogHead], session: Session) -> dict[str, int]:
    """The sizes of the logs of known nodes by verifier key, by checkpoints that these logs signed."""
    writers = {str(remote.record.log): remote.record.log for remote in session.nodes}
    found = {}
    for head in heads:
        key = writers.get(head.vkey)
        if key is None or not head.note:
            continue
        try:
            found[head.vkey] = open_checkpoint(SignedNote.parse(head.note), key).size
        except ComityError:
            continue  # not a checkpoint of this log: as if the node did not have it
    return found


def render_drill(found: FederationDrill, when: str) -> str:
    """The page: self-contained HTML without a script."""
    return page_template("party-drill.html").render(drill=found, when=when, kinds=PARTY_KINDS)
