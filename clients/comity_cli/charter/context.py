"""The options of one charter command, and the values they name: home, keys, statements, and the target node."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from comity.trust.errors import Conflict, NotFound

from comity_cli.command import client
from comity_cli.files import FILE, FOLDER, NEW_FOLDER
from comity_cli.node_home import pin_own_federation
from comity_cli.nodes import member_node_options

if TYPE_CHECKING:
    from comity.trust.node_records import NodeRecord
    from comity.trust.rotation import RotationChain
    from comity_client.charter.governance import GovernanceClient
    from comity_client.charter.state import CharterMaterial, CharterState, Confirmation
    from comity_client.node_card import NodeCard
    from comity_client.signing.votes import GovernanceKey

F = TypeVar("F", bound=Callable[..., Any])


def reading_options(command: F) -> F:
    """Options for the sources of statements."""
    for option in (
        click.option("--federation", default="", metavar="ID", help="Which pinned federation, if there are several."),
        click.option("--offline", is_flag=True, help="Ask no node; use only the folders of --from."),
        click.option("--from", "carried", multiple=True, type=FOLDER, help="A folder with exported lines."),
    ):
        command = option(command)
    return command


def signing_options(command: F) -> F:
    """Options for the sources of statements, the signing keys, and the target of the signed line."""
    for option in (
        click.option("--yes", is_flag=True, help="Sign without asking; the plan is still shown."),
        click.option("--out", type=NEW_FOLDER, help="Write the signed line to this folder."),
        click.option(
            "--key", "keys", multiple=True, type=FILE, help="A governance key. Default: the keys in HOME/offline."
        ),
        member_node_options(
            "Your member's node: its home, with your keys. Default: here.",
            "Given a second time, the node that logs the line instead.",
        ),
    ):
        command = option(command)
    return reading_options(command)


@dataclass(frozen=True)
class CharterContext:
    """The options of one command. Properties raise as the client methods that they call."""

    federation: str = ""
    offline: bool = False
    carried: Sequence[Path] = ()
    home: Path = field(default_factory=Path)
    keys: Sequence[Path] = ()
    to: str | None = None
    out: Path | None = None
    yes: bool = False

    @cached_property
    def governance(self) -> GovernanceClient:
        """Of the pinned federation; the first one is pinned where the home has it (`pin_own_federation`). Raises
        NotFound (WHICH-FEDERATION)."""
        if not self.federation:
            pin_own_federation(self.home)
        return client().governance(self.federation)

    @cached_property
    def charter_state(self) -> CharterState:
        """The charter state from all nodes (unless `offline`) and from the folders."""
        if not self.offline:
            return self.governance.charter_state(*self.carried)
        from comity_client.charter.state import federation_charter_state, read_folder

        return federation_charter_state(self.governance.federation, *(read_folder(folder) for folder in self.carried))

    @property
    def confirmation(self) -> Confirmation | None:
        """Whether members confirm the newest charter, and how recent that is; None if `offline`."""
        return None if self.offline else self.governance.confirm(self.charter_state)

    @cached_property
    def chain(self) -> RotationChain:
        """The rotation chain of the member of `home`. Raises NotFound (NO-HOME)."""
        from comity_client.charter.keys import own_chain
        from comity_client.node_home import not_a_home

        if not (self.home / "inception.line").exists():
            raise not_a_home(self.home, "inception.line")
        return own_chain(self.charter_state, self.home)

    def card(self, name: str) -> NodeCard:
        """The card in the file `name`, or of a join request by at least the first 8 digits of its id. Raises NotFound
        (NO-CARD), and as `NodeCard.read` does."""
        from comity_client.node_card import NodeCard

        if Path(name).is_file():
            return NodeCard.read(Path(name))
        requested = [] if self.offline else [request.card for request in self.governance.applicants()]
        matching = [card for card in requested if len(name) >= 8 and card.inception.id.startswith(name)]
        if len(matching) != 1:
            raise NotFound(f"no node card {name[:80]!r}", why="neither a file nor the id of a join request",
                           hint="comity member asks", code="NO-CARD")  # fmt: skip
        return matching[0]

    @property
    def nodes(self) -> list[NodeRecord]:
        """The nodes that the federation file and the charter state prove."""
        from comity_client.charter.joining import carried_nodes

        known = (*self.governance.federation.nodes, *carried_nodes(self.charter_state))
        return [node.record for node in known if self.charter_state.current.member(node.record.member) is not None]

    @cached_property
    def own_material(self) -> CharterMaterial:
        """What the node of `home` has of its member about the next charter; nothing if it does not run."""
        from comity_client.charter.state import CharterMaterial
        from comity_client.node_home import own_inception
        from comity_client.own_node import operator_socket

        if not (self.home / "node.toml").exists():
            return CharterMaterial()
        return self.governance.from_own_node(operator_socket(self.home), own_inception(self.home).id)

    @property
    def deliver_command(self) -> str:
        """The command that delivers what members' nodes lack."""
        named = f" --federation {self.federation}" if self.federation else ""
        own = f" --node {shlex.quote(str(self.home))}" if (self.home / "node.toml").exists() else ""
        return f"comity proposal deliver{own}{named}"

    @property
    def consent_node(self) -> str:
        """The node of a member at which a newcomer, whose own node nobody follows yet, can log its consent."""
        try:
            current, nodes = self.governance.federation.body, self.governance.federation.nodes
        except NotFound:  # no federation is pinned on a machine that only signs
            return "NODE"
        return next((node.record.name for node in nodes if current.member(node.record.member) and node.open), "NODE")

    @cached_property
    def governance_keys(self) -> Sequence[GovernanceKey]:
        """The governance keys from --key, else those in the home. Raises NotFound (NO-KEY)."""
        from comity_client.node_home import OFFLINE
        from comity_client.signing.votes import find_keys, open_key

        found = [open_key(path) for path in self.keys] or find_keys(self.home / OFFLINE, self.chain.current.keys)
        if not found:
            why = f"{self.home / OFFLINE} has none of the member's current keys"
            raise NotFound("no governance key", why=why, hint="name the key file: --key FILE", code="NO-KEY")
        return found

    def check_own_log(self) -> None:
        """Check that the pinned federation knows the log of the node of `home`, unless `offline`. Raises Conflict
        (STALE-PIN, NOT-A-MEMBER) with the cause."""
        from comity_client.node_home import own_inception

        own, pinned = own_inception(self.home), self.governance.federation
        if self.offline or any(node.record.origin == own.home for node in pinned.nodes):
            return
        current = self.charter_state.current
        if current.member(own.id) is None:
            why = f"the charter of epoch {current.epoch} does not list it, so no node follows its log"
            hint = f"comity join --node {self.home}; or rotate without the size of its log: --offline"
            raise Conflict(f"{own.label} is not a member", why=why, hint=hint, code="NOT-A-MEMBER")
        why = f"it is of epoch {pinned.body.epoch}, and the charter is of epoch {current.epoch}"
        raise Conflict("your pin does not know your own node yet", why=why, hint="comity trust pin", code="STALE-PIN")

    def check_destination(self) -> None:
        """Check the target of the signed line before signing. Raises as `target` does."""
        if self.out is None:
            _ = self.target

    @property
    def target(self) -> str:
        """The node that logs signed lines: from --node, else the node of the home. Raises NotFound, Conflict."""
        if self.to:
            return self.to
        from comity_client.own_node import operator_socket

        socket = operator_socket(self.home)
        if not socket.is_socket():
            raise Conflict(
                "the signed line has no target",
                why=f"no node runs on {self.home}",
                hint="start it: comity serve; or name a node: --node NODE; or write the line to a folder: --out FOLDER",
                code="NO-TARGET",
            )
        return str(socket)
