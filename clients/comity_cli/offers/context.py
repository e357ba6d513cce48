"""Options of commands about offers, and what they select: lines from nodes or bundle files, a signer, a node."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from comity.rules.offers.amounts import Usage
from comity.rules.offers.records import PartyStatement
from comity.trust.encoding import printable
from comity.trust.errors import Conflict

from comity_cli.command import agree, client, output
from comity_cli.files import FILE, NEW_FILE
from comity_cli.node_home import pin_own_federation
from comity_cli.nodes import home_option, member_node_options

if TYPE_CHECKING:
    from comity.trust.encoding import Digest
    from comity.wire.offer import OfferAction
    from comity_client.identity_signer import IdentitySigner
    from comity_client.offers.attestation import OfferHardware
    from comity_client.offers.bundle import OfferBundle
    from comity_client.offers.offer_client import FoundChain, FoundGrant, OfferClient, ProviderRecord, SentStatement
    from comity_client.session import Target

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", bound=PartyStatement | Usage)
LINE: Final = "LINE"
MAX_COMPARED: Final = 100
"""Other offers in which the devices of one are looked for."""
PROVIDER_HOME: Final = home_option("The node that lends, by its home. Default: the current folder.")


def reading_options(command: F) -> F:
    """Options that select the source of lines."""
    for option in (
        click.option("--offline", is_flag=True, help="Ask no node. Use only the files of --from."),
        click.option("--from", "bundles", multiple=True, type=FILE, help="A bundle file with lines and proofs."),
    ):
        command = option(command)
    return command


def signing_options(command: F) -> F:
    """Options that select the source of lines, the signer, and the destination of the signed line."""
    for option in (
        click.option("--yes", is_flag=True, help="Sign without a question. The statement is still shown."),
        click.option("--out", type=NEW_FILE, help="Write a bundle file, and log nothing."),
        click.option("--publisher", metavar="NAME", help="Sign as this publisher, not as a member."),
        click.option("--key", "keys", multiple=True, type=FILE, help="Governance key file. Default: in HOME/offline."),
        member_node_options(
            "Your node: its home, with your keys. Default: here.", "Given a second time, the node that logs it instead."
        ),
    ):
        command = option(command)
    return reading_options(command)


def recording_options(command: F) -> F:
    """Options that select the node that writes a record."""
    for option in (
        click.option("--yes", is_flag=True, help="Record it without a question."),
        click.option("--out", type=NEW_FILE, help="Also write a bundle file with the proof of the record."),
        PROVIDER_HOME,
    ):
        command = option(command)
    return command


def provider_options(command: F) -> F:
    """Options that select the source of lines and the node that writes the record."""
    return reading_options(recording_options(command))


@dataclass(frozen=True)
class OfferContext:
    """The options of one command about offers, and the objects that they select."""

    bundles: Sequence[Path] = ()
    offline: bool = False
    home: Path = field(default_factory=Path)
    keys: Sequence[Path] = ()
    publisher: str | None = None
    to: str | None = None
    out: Path | None = None
    yes: bool = False

    @cached_property
    def offer_client(self) -> OfferClient:
        """Of all pinned federations; the first one is pinned where the home has it (`pin_own_federation`)."""
        pin_own_federation(self.home)
        return client().offers().with_files(*self.bundles, offline=self.offline)

    def offer(self, name: str) -> FoundChain:
        """The offer that `name` selects: the first digits of its id, or a bundle file. Raises NotFound."""
        offer_client, digits = self._resolve(name)
        return offer_client.offer(digits)

    def attestations(self, found: Sequence[FoundChain]) -> list[OfferHardware]:
        """What hardware evidence shows of each of these offers, whose devices are compared with those of all others."""
        from comity.wire.offer import OfferQuery

        chains, compared = [seen.view.state.chain for seen in found], list(found)
        if not self.offline and found:
            others, more = self.offer_client.offers(OfferQuery(ends_after=now()), MAX_COMPARED)
            compared += [other for other in others if other.view.state.chain not in chains]
            if more:
                output().warn(f"devices are not compared with those of {more} further offers")
        appraised = self.offer_client.attestations(compared, now())
        return [appraised[chain] for chain in chains]

    def grant(self, name: str) -> FoundGrant:
        """The grant that `name` selects, as for `offer`. Raises NotFound."""
        offer_client, digits = self._resolve(name)
        return offer_client.grant(digits)

    def statement(self, name: str, kind: type[S]) -> SentStatement[S]:
        """The statement that `name` selects, as for `offer`. Raises NotFound."""
        offer_client, digits = self._resolve(name)
        return offer_client.statement(digits, kind)

    @cached_property
    def signer(self) -> IdentitySigner:
        """The publisher or member that signs. Raises NotFound (NO-KEY, NO-HOME), Refused (NOT-A-SIGNER)."""
        from comity_client.identity_signer import IdentitySigner

        if self.publisher is not None:
            return IdentitySigner.of_publisher(client().publisher(self.publisher))
        return IdentitySigner.of_member(self.home, self.keys)

    @property
    def socket(self) -> str:
        """The operator socket of the node of this home. Raises Conflict (NO-TARGET)."""
        from comity_client.own_node import operator_socket

        socket = operator_socket(self.home)
        if not socket.is_socket():
            raise Conflict(f"no node runs on {self.home}", why="its operators' socket is not there",
                           hint=f"comity serve --node {shlex.quote(str(self.home))}", code="NO-TARGET")  # fmt: skip
        return str(socket)

    @property
    def target(self) -> Target:
        """The node that logs what is signed here."""
        if self.to:
            return self.to
        from comity_client.session import HomeNode

        return HomeNode(self.signer.home) if self.publisher is not None else self.socket

    def sign(
        self,
        content: PartyStatement,
        facts: Sequence[tuple[str, str]],
        *,
        title: str,
        known: OfferBundle,
        next_command: str,
        by_signer: bool = False,
    ) -> None:
        """Show a statement, ask, sign it, and log it at a node or write a bundle file. Without enough keys, write a
        ceremony file for the other signers.

        Args:
            known: lines and proofs to add to the bundle file.
            next_command: the command that follows. `LINE` in it is replaced by the bundle file or the digest of the
                logged line. Without `LINE` and with a bundle file, the other side must first load that file.
            by_signer: the signer runs that command once the line is logged; else the other side does.
        """
        out, signer = output(), self.signer
        if self.out is None and signer.complete:
            _ = self.target
        out.say(f"{printable(signer.label)} {title}")
        for name, value in facts:
            out.fact(name, value)
        agree("Sign this?", yes=self.yes)
        if not signer.complete:
            self._write_ceremony(content)
            return
        entry = signer.sign(content)
        next_command = self._next_command(next_command, entry.digest)
        where = self._send([*signer.lines, entry.line], known, next_command)
        out.done(f"signed: {entry.digest[:12]}, {where}")
        out.document(
            entry.statement.predicate,
            {
                "line": entry.digest,
                "by": signer.identity,
                "subject": entry.statement.subject,
                "where": str(self.out) if self.out else where,
                "next": next_command,
            },
        )
        out.hint(next_command if by_signer and self.out is None else f"the other side: {next_command}")

    def record(self, action: OfferAction, question: str, lines: Sequence[bytes] = ()) -> ProviderRecord:
        """Ask, log `lines` at the node of the home, let it write a record, then write the bundle file of --out."""
        socket = self.socket
        agree(question, yes=self.yes)
        recorded = self.offer_client.perform(action, socket, lines)
        if self.out is not None:
            recorded.bundle.write(self.out)
        return recorded

    def _resolve(self, name: str) -> tuple[OfferClient, str]:
        """The client and the first digits of a digest. If `name` is a bundle file, a client with its lines, and ''."""
        if Path(name).is_file():
            return self.offer_client.with_files(Path(name), offline=self.offline), ""
        return self.offer_client, name.removeprefix("sha256:")

    def _next_command(self, command: str, line: Digest) -> str:
        if self.out is None:
            return command.replace(LINE, line[:12])
        bundle = shlex.quote(self.out.name)
        return command.replace(LINE, bundle) if LINE in command else f"comity grant load {bundle} --node HOME"

    def _write_ceremony(self, content: PartyStatement) -> None:
        """Write the ceremony file for the holders of the other keys."""
        from comity_client.charter.proposals import plan_carried

        from comity_cli.charter.signing import write_ceremony

        body = next((pin.body for pin in self.offer_client.pins if pin.body.member(self.signer.identity)), None)
        if body is None:
            why = "no pinned federation has a seat for this member, so other signers cannot check the statement"
            raise Conflict("the statement needs other signers", why=why, hint="comity trust show", code="NO-TARGET")
        write_ceremony(plan_carried(self.signer.begin_ceremony(content, body.data).encode()), self.out)

    def _send(self, lines: Sequence[bytes], known: OfferBundle, next_command: str) -> str:
        from comity_client.offers.bundle import unlogged

        if self.out is not None:
            (known | unlogged(lines)).write(self.out, next_command)
            return f"in bundle file {self.out}"
        name, indexes = self.offer_client.deliver(lines, self.target)
        return f"entry {indexes[-1]} of the log of {name}"


def now() -> int:
    """Now, POSIX seconds."""
    return int(time.time())
