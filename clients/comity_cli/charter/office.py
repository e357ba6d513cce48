"""A member's office as the command line finds it: the node's home, the keys, and where lines come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from comity.trust.errors import Conflict, NotFound

from comity_cli.command import client
from comity_cli.files import FILE, FOLDER, NEW_FOLDER

if TYPE_CHECKING:
    from comity.trust.rotation import RotationChain
    from comity_client.charter.proposals import GovernanceClient
    from comity_client.charter.state import CharterState, Confirmation
    from comity_client.founding import NodeCard
    from comity_client.signing.votes import GovernanceKey

F = TypeVar("F", bound=Callable[..., Any])


def reading_options(command: F) -> F:
    """Where the lines come from."""
    for option in (
        click.option(
            "--federation", default="", metavar="ID", help="Which pinned federation, where there are several."
        ),
        click.option("--offline", is_flag=True, help="Ask no node; only what --from brings."),
        click.option("--from", "carried", multiple=True, type=FOLDER, help="A folder of carried lines."),
    ):
        command = option(command)
    return command


def acting_options(command: F) -> F:
    """Where lines come from, who signs, and where the signed line goes."""
    for option in (
        click.option("--yes", is_flag=True, help="Sign without asking; the plan is shown all the same."),
        click.option("--out", type=NEW_FOLDER, help="Write the signed line into this folder, to be carried."),
        click.option("--to", metavar="NODE", help="Log it there: a node's name, or its operator's socket."),
        click.option(
            "--key", "keys", multiple=True, type=FILE, help="A governance key. Default: those in HOME/offline."
        ),
        click.option(
            "--dir", "home", type=FOLDER, default=Path(), help="The home of your member's node. Default: here."
        ),
    ):
        command = option(command)
    return reading_options(command)


@dataclass(frozen=True)
class Office:
    """The options of one command, and what they stand for. Raises as the rooms behind it do."""

    federation: str = ""
    offline: bool = False
    carried: Sequence[Path] = ()
    home: Path = field(default_factory=Path)
    keys: Sequence[Path] = ()
    to: str | None = None
    out: Path | None = None
    yes: bool = False

    @cached_property
    def chamber(self) -> GovernanceClient:
        return client().chamber(self.federation)

    @cached_property
    def sitting(self) -> CharterState:
        """What is decided and what is open, by all that can be had: from nodes, and from carried folders."""
        if not self.offline:
            return self.chamber.sitting(*self.carried)
        from comity_client.charter.state import of_federation, read_folder

        return of_federation(self.chamber.federation, *(read_folder(folder) for folder in self.carried))

    @property
    def confirmation(self) -> Confirmation | None:
        """Who stands by the newest charter, and how fresh that is; None where no node is to be asked."""
        return None if self.offline else self.chamber.confirm(self.sitting)

    @cached_property
    def chain(self) -> RotationChain:
        """The keys of the member whose home this is. Raises NotFound (NO-HOME)."""
        from comity_client.charter.keys import own_chain

        if not (self.home / "inception.line").exists():
            hint = "name your member's home: --dir HOME; or make one: comity init --help"
            raise NotFound(f"{self.home.absolute()} is no node's home", why="inception.line is missing", hint=hint,
                           code="NO-HOME")  # fmt: skip
        return own_chain(self.sitting, self.home)

    def card(self, name: str) -> NodeCard:
        """The card in the file `name`, or of somebody who asks to join, by the first 8 digits or more of its id.
        Raises NotFound (NO-CARD), and as `NodeCard.read` does."""
        from comity_client.founding import NodeCard

        if Path(name).is_file():
            return NodeCard.read(Path(name))
        asking = [] if self.offline else [ask.card for ask in self.chamber.asking()]
        matching = [card for card in asking if len(name) >= 8 and card.inception.id.startswith(name)]
        if len(matching) != 1:
            raise NotFound(f"no node card {name[:80]!r}", why="neither a file nor the id of who asks to join",
                           hint="comity member asks", code="NO-CARD")  # fmt: skip
        return matching[0]

    @cached_property
    def desk(self) -> Sequence[GovernanceKey]:
        """The governance keys at hand: those that were named, else those in the home. Raises NotFound (NO-KEY)."""
        from comity_client.founding import OFFLINE
        from comity_client.signing.votes import find_keys, open_key

        found = [open_key(path) for path in self.keys] or find_keys(self.home / OFFLINE, self.chain.current.keys)
        if not found:
            why = f"none of the member's current keys lies below {self.home / OFFLINE}"
            raise NotFound("no governance key", why=why, hint="bring it, and name it: --key FILE", code="NO-KEY")
        return found

    def check_destination(self) -> None:
        """Before anything is signed: the line will have somewhere to go. Raises as `target` does."""
        if self.out is None:
            _ = self.target

    @property
    def target(self) -> str:
        """The node that takes signed lines: the named one, else that of the home. Raises NotFound, Conflict."""
        if self.to:
            return self.to
        from comity_client.session import socket_of

        socket = socket_of(self.home)
        if not socket.is_socket():
            raise Conflict(
                "the signed line has nowhere to go",
                why=f"no node runs on {self.home}",
                hint="start it: comity serve; or name a node: --to NODE; or carry the line: --out FOLDER",
                code="NO-TARGET",
            )
        return str(socket)
