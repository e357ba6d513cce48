"""Whose word is whose, by the federations that a user pins: what decides whether a line of a chain is its author's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from comity.trust.charter import Body, Member
from comity.trust.digest import Digest, short
from comity.trust.errors import ComityError
from comity.trust.federation import Federation
from comity.trust.identity import Inception, check_inception
from comity.trust.judging.witnessing import Bound, bind
from comity.trust.rotation import Chains, KeyState
from comity.trust.statement import Entry
from comity.trust.statements.claims import signed_by_node

from comity_client.compute.parcels import readable


class Circle:
    """The members of the pinned federations with their nodes, and those whose inception is among `entries`."""

    def __init__(self, pins: Iterable[Federation], entries: Iterable[Entry] = ()) -> None:
        self._pins = tuple(pins)
        carried = (entry for pin in self._pins for lines in pin.certificates for line in lines
                   if (entry := readable(line)))  # fmt: skip
        self._entries = (*carried, *entries)
        self._chains = Chains(self._entries)

    @cached_property
    def bodies(self) -> tuple[Body, ...]:
        """Every body of every pinned federation, oldest first."""
        return tuple(body for pin in self._pins for body in pin.chain)

    @cached_property
    def members(self) -> Mapping[Digest, Member]:
        """By id, each as its newest charter lists it."""
        return {member.id: member for body in self.bodies for member in body.members}

    @cached_property
    def nodes(self) -> tuple[Bound, ...]:
        """The nodes that the pinned federations' files list."""
        lines = dict.fromkeys(node.line for pin in self._pins for node in pin.nodes)
        return bind(self.bodies, [entry for line in lines if (entry := readable(line))], self._chains)[0]

    def writer(self, log: str) -> Bound | None:
        """The node whose log has this verifier key."""
        return next((node for node in self.nodes if str(node.record.log) == log), None)

    def by_node(self, entry: Entry, writer: Bound) -> bool:
        """Whether it is a statement of exactly this node."""
        return signed_by_node(entry, writer.record)

    def by_identity(self, entry: Entry) -> bool | None:
        """Whether it is a statement of the identity that it names; None where nothing proves by which keys that
        speaks."""
        by = entry.statement.by
        if by is None or by.kind != "identity":
            return False
        states = [seat.key_state for body in self.bodies if (seat := body.member(by.id))]
        if by.id in self._inceptions:
            states.append(KeyState.of_inception(self._inceptions[by.id]))
        if not states:
            return None
        return any(self._chains.follow(state).signed(entry.envelope) for state in states)

    def name(self, identity: Digest) -> str:
        """What to call an identity: a member by its name and jurisdiction, another by what it calls itself."""
        if identity in self.members:
            return f"{self.members[identity].name} ({self.members[identity].jurisdiction})"
        if identity in self._inceptions:
            return f"{self._inceptions[identity].label} [{short(identity)}]"
        return short(identity)

    @cached_property
    def _inceptions(self) -> Mapping[Digest, Inception]:
        found = (_inception(entry) for entry in self._entries if entry.statement.predicate == "inception")
        return {inception.id: inception for inception in found if inception is not None}


def _inception(entry: Entry) -> Inception | None:
    try:
        return check_inception(entry)
    except ComityError:
        return None
