"""Governance of one federation, as this user pins it: synchronous, over the nodes of the session or over files.

    chamber = client.chamber()
    sitting = chamber.sitting()
    plan = acts.read(sitting, key, draft.body)         # to be shown
    chamber.deliver(acts.sign(plan, key).material, to=["unix:operator.sock"])

What is signed, and why, is in the other rooms; this one only fetches and hands over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

from comity.trust.digest import Digest
from comity.trust.federation import Federation

from comity_client.governance import confirming, gathering, inviting, joining
from comity_client.governance.confirming import Confirmation
from comity_client.governance.folder import read_folder
from comity_client.governance.gathering import Delivered, Gathered
from comity_client.governance.joining import Asked, Asking
from comity_client.governance.sitting import Material, Sitting, material_of, of_federation
from comity_client.nodes.session import Session
from comity_client.nodes.uplink import open_uplink

T = TypeVar("T")
PAST: Final = 8
"""Decided epochs of which nodes are asked for what lost."""


class Run(Protocol):
    """Runs work in a session of the user's pins."""

    def __call__(self, work: Callable[[Session], Awaitable[T]], /) -> T: ...


@dataclass(frozen=True, slots=True)
class Chamber:
    """Made by `Client.chamber`. Methods raise Unavailable where no node answers."""

    federation: Federation
    run: Run

    def carried(self, folder: Path) -> Sitting:
        """What follows from a carried folder alone. Raises NotFound, Malformed."""
        return of_federation(self.federation, read_folder(folder))

    def gather(self, known: Material | None = None) -> Gathered:
        """Lines and bodies from all nodes, and who was silent."""
        here = (known or Material()) | material_of(self.federation)
        return self.run(lambda session: gathering.gather(session, self.federation, here))

    def sitting(self, *folders: Path) -> Sitting:
        """What follows from all that nodes hand out, and from carried folders beside. Raises NotFound, Malformed;
        where no node is needed, use `carried`."""
        carried = Material()
        for folder in folders:
            carried |= read_folder(folder)
        return of_federation(self.federation, carried, self.gather(carried).material)

    def past(self, sitting: Sitting) -> Material:
        """What nodes keep about the epochs before the current one, back to the pinned: drafts that lost, say."""
        epochs = (*self.federation.chain, *(each.body for each in sitting.council.epochs))
        prevs = [body.digest for body in epochs if body.digest != sitting.current.digest][-PAST:]
        return self.run(lambda session: gathering.gather_past(session, prevs, sitting.material))

    def copies(self) -> dict[Digest, Material]:
        """By member, what its own nodes hold: for `recovery.weigh`."""
        return self.run(lambda session: gathering.gather_each(session, self.federation))

    def deliver(self, material: Material, to: str) -> list[Delivered]:
        """Hand lines to a node, by its name or address, or by the path of its operator's socket. Raises NotFound,
        Unavailable, Untrusted; a line that is refused is among the delivered, with the reason."""

        async def work(session: Session) -> list[Delivered]:
            async with open_uplink(session, to) as uplink:
                return await gathering.deliver(uplink, material)

        return self.run(work)

    def ask(self, home: Path) -> Asked:
        """Ask to be admitted, with the card in a node's home. Raises Refused, NotFound, Malformed."""
        lines = joining.card_lines(home)
        return self.run(lambda session: joining.ask(session, lines))

    def asking(self) -> list[Asking]:
        """Who asks to be admitted."""
        return self.run(joining.asking)

    def confirm(self, sitting: Sitting) -> Confirmation:
        """Whether enough members' home logs stand by the charter that is current here, and how fresh that is."""
        return self.run(lambda session: confirming.confirm(session, self.federation, sitting))

    def newest(self, sitting: Sitting | None = None) -> Federation:
        """The federation file with all epochs that can be proven now and the nodes of those who joined: for an
        invitation, or to be compared and pinned. Pins nothing. Raises Malformed, Untrusted."""
        seen = sitting or self.sitting()
        known = inviting.carried_nodes(seen)
        if seen.council.epochs:
            known += self.run(lambda session: inviting.announced_nodes(session, seen))
        return inviting.extended(self.federation, seen, known)
