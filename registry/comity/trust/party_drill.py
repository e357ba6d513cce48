"""What is left of a federation without each single party, artifact by artifact: a drill by reasoning. Pure.

The input is what nodes answer: which members claim a copy of each artifact and which copies were tested, as one node
reads the logs, and how much of each log each node has. A party is removed with all that it takes; an artifact then

    pulls       if another member claims a copy, and a node of that member answers now
    verifies    if besides that the other nodes have every log as far as the node that lists the artifacts has it: the
                statements and proofs of the artifact are there. Otherwise it is unknown whether it verifies
    is enough   if the copies that are left meet the charter's policy

Newer entries are not about the listed artifacts, so nobody can make the result unknown by adding some.

Nothing is stopped and no byte is read, so the result is as good as the answers: claims, except for tested copies.
Parties on which nothing depends are listed with the reason, so that a reader does not have to ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from comity.trust.copies import CopyCount, CopyPolicy, Holder, Party, parties_of
from comity.trust.encoding import Digest
from comity.trust.places import Reach

MAX_FALLEN: Final = 1_000
"""Artifacts that are named for one party; all are counted."""
DNS: Final = "dns"
CA_STORE: Final = "ca-store"
CLOCK: Final = "clock"
HUB: Final = "hub"
KINDS: Final = ("member", "jurisdiction", "reach", "cloud", "publisher", HUB, DNS, CA_STORE, CLOCK)
_INDEPENDENT: Final = {
    "publisher": "it holds no copy: its signature is in the logs",
    HUB: "nothing is read from it: what was imported is here, with what was observed",
    CA_STORE: "no certificate authority is asked: certificates are pinned by node records",
    CLOCK: "no verdict reads a clock: times are in the evidence, and `as_of` is in the policy",
}


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class DrillArtifact:
    """An artifact, its claimed name, and the members with a copy that counts."""

    artifact: Digest
    name: str
    holders: tuple[Holder, ...]


@dataclass(frozen=True, slots=True)
class LogRemainder:
    """Entries of the log `origin` from `first` on, `count` of them, that were read and that only lost nodes have."""

    origin: str
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class FallenArtifact:
    """An artifact that does not pull, or of which it is unknown whether it verifies."""

    artifact: Digest
    name: str
    before: CopyCount
    after: CopyCount


@dataclass(frozen=True, slots=True)
class PartyOutcome:
    """What the loss of `party` leaves, as numbers of artifacts.

    Attributes:
        why: the reason, for a party on which nothing depends.
        nodes: the names of the lost nodes.
        tested: artifacts that pull from a copy that was tested.
        remainders: what only lost nodes have of the logs. If there is any, `verifies` is 0: it is unknown.
        fallen: the first MAX_FALLEN artifacts that do not pull or of which it is unknown whether they verify.
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

    @property
    def survived(self) -> bool:
        """Whether every artifact pulls and verifies."""
        return self.pulls == self.verifies == self.artifacts


@dataclass(frozen=True, slots=True)
class DrillInput:
    """What nodes answer.

    Attributes:
        read: the entries of each log from which the list of artifacts was computed, by verifier key.
        publishers, hubs: those whose loss is to be shown.
    """

    nodes: tuple[DrillNode, ...]
    artifacts: tuple[DrillArtifact, ...]
    policy: CopyPolicy
    read: Mapping[str, int]
    publishers: tuple[str, ...] = ()
    hubs: tuple[str, ...] = ()

    def parties(self) -> tuple[Party, ...]:
        """Every single party, by kind and name."""
        holders = {holder for item in self.artifacts for holder in item.holders}
        nodes = {Holder(node.member, node.jurisdiction, False, node.reach, node.cloud) for node in self.nodes}
        found = {party for holder in (*holders, *nodes) for party in parties_of(holder) if party.kind != "publisher"}
        found |= {Party("publisher", name) for name in self.publishers}
        found |= {Party(HUB, name) for name in self.hubs}
        found |= {Party(DNS, ""), Party(CA_STORE, ""), Party(CLOCK, "")}
        return tuple(sorted(found, key=lambda party: (KINDS.index(party.kind), party.name)))

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
    groups: dict[tuple[Holder, ...], list[DrillArtifact]] = {}
    for item in given.artifacts:
        groups.setdefault(item.holders, []).append(item)
    chosen = given.parties() if parties is None else tuple(parties)
    return tuple(_remove(party, given, groups) for party in chosen)


def _remove(
    party: Party, given: DrillInput, groups: Mapping[tuple[Holder, ...], Sequence[DrillArtifact]]
) -> PartyOutcome:
    lost = tuple(node.name for node in given.nodes if node.lost_with(party))
    left = [node for node in given.nodes if node.answers and not node.lost_with(party)]
    serving = frozenset(node.member for node in left)
    remainders = tuple(_remainders(given.read, left))
    pulls = tested = enough = 0
    fallen: list[FallenArtifact] = []
    for holders, artifacts in groups.items():
        kept = [holder for holder in holders if holder.member in serving and party not in parties_of(holder)]
        after = CopyCount.of(kept)
        pulls += len(artifacts) if kept else 0
        tested += len(artifacts) if after.tested else 0
        enough += len(artifacts) if after.meets(given.policy) else 0
        if not kept or remainders:
            before, room = CopyCount.of(holders), MAX_FALLEN - len(fallen)
            fallen += [FallenArtifact(item.artifact, item.name, before, after) for item in artifacts[:room]]
    total = len(given.artifacts)
    why = _INDEPENDENT.get(party.kind, "every node has an address that needs no DNS" if party.kind == DNS else "")
    verifies = 0 if remainders else pulls
    return PartyOutcome(
        party, "" if lost else why, lost, total, pulls, tested, verifies, enough, remainders, tuple(fallen)
    )


def _remainders(read: Mapping[str, int], left: Sequence[DrillNode]) -> Iterator[LogRemainder]:
    """What the nodes that are left do not have of what was read."""
    for log, size in sorted(read.items()):
        known = max((node.entries.get(log, 0) for node in left), default=0)
        if known < size:
            yield LogRemainder(log.partition("+")[0], known, size - known)
