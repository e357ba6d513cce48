"""The governance of one federation, over the nodes of a session or over folders: gather, deliver, confirm, join.

`GovernanceClient` is synchronous. The charter statements that this user delivered are kept until the pin moves
(`OwnLines`), so that commands read their own writes: a node shows a line to others some seconds after it logged it, and
the node that logged it may not be among those that are asked. The lines are statements like those of any other source:
the tally verifies them.

    FOLDER/<federation>-<pinned body>/lines, objects      as in an exported folder
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from comity.content import durable
from comity.federation_file import Federation
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen
from comity.wire.client import NodeClient

from comity_client.charter import joining
from comity_client.charter.following import (
    MEMBERS_TOLD,
    Following,
    LackedLine,
    deliver_lacked,
    followed_charter,
    known_seats,
    lacked_lines,
    lines_of_nodes,
    wanted_entries,
)
from comity_client.charter.history import PastEpoch, gather_past, past_epochs
from comity_client.charter.joining import (
    Applicant,
    JoinAnswer,
    addressed_nodes,
    announced_nodes,
    carried_nodes,
    extended_federation,
)
from comity_client.charter.state import (
    CharterMaterial,
    CharterState,
    Confirmation,
    DeliveredLine,
    GatheredVotes,
    confirm_logged,
    deliver_lines,
    federation_charter_state,
    federation_material,
    gather_from,
    gather_from_each,
    gather_past_votes,
    gather_votes,
    read_entries,
    read_folder,
    write_folder,
)
from comity_client.session import Session
from comity_client.uplink import open_uplink

T = TypeVar("T")
MAX_PAST_EPOCHS: Final = 8
"""Limit of decided epochs for which losing drafts are fetched."""


class RunWithSession(Protocol):
    """Runs work in a session of the pinned federation."""

    def __call__(self, work: Callable[[Session], Coroutine[Any, Any, T]], /) -> T: ...


@frozen
class GovernanceClient:
    """Made by `Client.governance`. Methods raise Unavailable if no node answers."""

    federation: Federation
    run: RunWithSession
    own_lines: OwnLines | None = None

    def carried(self, folder: Path) -> CharterState:
        """The charter state from one folder only. Raises NotFound, Malformed."""
        return federation_charter_state(self.federation, read_folder(folder))

    def gather(self, known: CharterMaterial | None = None) -> GatheredVotes:
        """Lines and bodies from all nodes, and the nodes that did not answer."""
        here = (known or CharterMaterial()) | federation_material(self.federation)
        return self.run(lambda session: gather_votes(session, self.federation, here))

    def charter_state(self, *folders: Path) -> CharterState:
        """The charter state from all nodes, and from folders. Raises NotFound, Malformed. Without a network use
        `carried`."""
        carried = self.own_lines.material if self.own_lines else CharterMaterial()
        for folder in folders:
            carried |= read_folder(folder)
        return federation_charter_state(self.federation, carried, self.gather(carried).material)

    def past_material(self, charter_state: CharterState) -> CharterMaterial:
        """Statements of the nodes about decided epochs since the pinned one, for example losing drafts."""
        epochs = (*self.federation.chain, *(each.body for each in charter_state.tally.epochs))
        prevs = [body.digest for body in epochs if body.digest != charter_state.current.digest][-MAX_PAST_EPOCHS:]
        return self.run(lambda session: gather_past_votes(session, prevs, charter_state.material))

    def past_epochs(self, charter_state: CharterState, *, offline: bool = False) -> list[PastEpoch]:
        """The decided epochs, the newest first, with what a few nodes show about them unless `offline`."""
        if offline:
            return past_epochs(self.federation, charter_state)
        shown = self.run(lambda session: gather_past(session, self.federation, charter_state))
        return past_epochs(self.federation, charter_state, shown)

    def material_by_member(self) -> dict[Digest, CharterMaterial]:
        """By member, the material of its own nodes: for `prepare_resumption`."""
        return self.run(lambda session: gather_from_each(session, self.federation))

    def deliver(self, material: CharterMaterial, to: str) -> list[DeliveredLine]:
        """Submit lines to a node, by its name or address, or by the path of its operator's socket. Raises NotFound,
        Unavailable, Untrusted; a refused line is in the result, with its refusal."""

        async def work(session: Session) -> list[DeliveredLine]:
            async with open_uplink(session, to) as uplink:
                return await deliver_lines(uplink, material)

        delivered = self.run(work)
        self._remember(material, delivered)
        return delivered

    def deliver_to_members(self, material: CharterMaterial) -> dict[str, list[DeliveredLine]]:
        """Submit what a newcomer signed to the nodes of `MEMBERS_TOLD` members, because no node reads a newcomer's own
        log. Returns the results by name of the node; of a node that refused a line or did not answer there is none.
        """
        delivered = self.run(lambda session: _deliver_to_members(session, material))
        for lines in delivered.values():
            self._remember(material, lines)
        return delivered

    def following(self, charter_state: CharterState) -> Following:
        """The newest charter that the nodes of a quorum follow, by what `charter_state` has of them."""
        return followed_charter(self.federation, charter_state)

    def lacked(self, charter_state: CharterState, own: CharterMaterial | None = None) -> list[LackedLine]:
        """The lines that members' nodes lack to follow what this client computed, and those that this user delivered
        or signed.

        Args:
            own: more of these, for example from the log of a newcomer's node.
        """
        return self.run(lambda session: self._lacked(session, charter_state, own or CharterMaterial()))

    def deliver_lacked(
        self, charter_state: CharterState, lacked: Sequence[LackedLine]
    ) -> dict[str, list[DeliveredLine]]:
        """Submit what members' nodes lack (`lacked`) to those that take it. Returns the results by node."""
        return self.run(lambda session: deliver_lacked(session, lacked, charter_state.material.objects))

    async def _lacked(self, session: Session, charter_state: CharterState, own: CharterMaterial) -> list[LackedLine]:
        following, here = self.following(charter_state), self.own_lines.material if self.own_lines else own
        wanted = wanted_entries(self.federation, charter_state, following, here | own)
        if not wanted:
            return []
        shown = await lines_of_nodes(session, following.followed)
        return lacked_lines(wanted, following.followed, shown, known_seats(charter_state))

    def from_own_node(self, socket: Path, member: Digest) -> CharterMaterial:
        """What the node behind an operator socket has of `member` about the next charter; nothing if it does not run,
        or follows no federation yet."""

        async def work(session: Session) -> CharterMaterial:
            async with NodeClient.operator(socket) as client:
                found = await gather_from(client, self.federation, CharterMaterial())
            entries = read_entries(found.lines)
            signed = frozenset(entry.line for entry in entries if (by := entry.statement.by) and by.id == member)
            return CharterMaterial(signed, found.objects)

        if not socket.is_socket():
            return CharterMaterial()
        try:
            return self.run(work)
        except ComityError:
            return CharterMaterial()

    def _remember(self, material: CharterMaterial, delivered: Iterable[DeliveredLine]) -> None:
        accepted = frozenset(item.line for item in delivered if item.index is not None)
        if self.own_lines is not None and accepted:
            self.own_lines.add(CharterMaterial(accepted, material.objects))

    def ask(self, home: Path) -> JoinAnswer:
        """Send a join request with the card in a node's home. Raises Refused, NotFound, Malformed."""
        lines = joining.card_lines(home)
        return self.run(lambda session: joining.ask_to_join(session, lines))

    def applicants(self) -> list[Applicant]:
        """The waiting join requests."""
        return self.run(joining.applicants)

    def confirm(self, charter_state: CharterState) -> Confirmation:
        """Whether enough members' home logs confirm the current charter, and how recent that is."""
        return self.run(lambda session: confirm_logged(session, self.federation, charter_state))

    def newest_federation(self, charter_state: CharterState | None = None) -> Federation:
        """The federation with all epochs that can be verified now, and the nodes of new members: for an invitation, or
        to be compared and pinned. Pins nothing. Raises Malformed, Untrusted."""
        seen = charter_state or self.charter_state()
        known = carried_nodes(seen)
        if lacking := [node for node in self.federation.nodes if not (node.mutual or node.open)]:
            known += self.run(lambda session: addressed_nodes(session, lacking))
        if seen.tally.epochs:
            known += self.run(lambda session: announced_nodes(session, seen))
        return extended_federation(self.federation, seen, known)


async def _deliver_to_members(session: Session, material: CharterMaterial) -> dict[str, list[DeliveredLine]]:
    delivered: dict[str, list[DeliveredLine]] = {}
    told = set[Digest]()
    for node in session.nodes:
        if node.former or node.member.id in told:
            continue
        try:
            async with open_uplink(session, str(node.record.log)) as uplink:
                lines = await deliver_lines(uplink, material)
        except ComityError:
            continue  # another member's node is asked
        if all(line.index is not None for line in lines):
            delivered[node.name] = lines
            told.add(node.member.id)
        if len(told) == MEMBERS_TOLD:
            break
    return delivered


DIGITS: Final = 16
"""Digits of a digest in a folder's name."""


@frozen
class OwnLines:
    """The delivered lines of one federation, below `folder`."""

    folder: Path
    federation: Federation

    @property
    def material(self) -> CharterMaterial:
        """The lines that were delivered since the pin; none if they cannot be read, because nodes have them too."""
        try:
            return read_folder(self.current) if self.current.is_dir() else CharterMaterial()
        except ComityError:
            return CharterMaterial()

    def add(self, material: CharterMaterial) -> None:
        """Keep accepted lines, and drop those of earlier pins. Raises OutOfSpace, Unavailable."""
        with durable.disk_errors(f"{self.folder} was not written"):
            durable.make_folders(self.current, mode=0o700)
            for other in self.folder.glob(f"{self.federation.id[:DIGITS]}-*"):
                if other != self.current:
                    shutil.rmtree(other, ignore_errors=True)
        write_folder(self.current, material)

    @property
    def current(self) -> Path:
        """The folder with the lines since the pin; it need not exist."""
        return self.folder / f"{self.federation.id[:DIGITS]}-{self.federation.body.digest[:DIGITS]}"
