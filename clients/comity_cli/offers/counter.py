"""The options of one command about offers, and what they stand for."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from comity.trust.encoding import plain
from comity.trust.errors import Conflict
from comity.trust.offers.amounts import Usage
from comity.trust.offers.records import Said

from comity_cli.command import agree, client, output
from comity_cli.files import FILE, FOLDER, NEW_FILE

if TYPE_CHECKING:
    from comity.trust.encoding import Digest
    from comity.wire.offer import Act
    from comity_client.offers.market import (
        FoundChain,
        HeldGrant,
        OfferBundle,
        OfferClient,
        ProviderRecord,
        SentStatement,
    )
    from comity_client.offers.speaker import OfferSigner

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", bound=Said | Usage)
LINE: Final = "LINE"
LENDER: Final = click.option(
    "--dir", "home", type=FOLDER, default=Path(), help="The home of the node that lends. Default: here."
)


def reading_options(command: F) -> F:
    """Where lines come from."""
    for option in (
        click.option("--offline", is_flag=True, help="Ask no node; only what --from brings."),
        click.option("--from", "carried", multiple=True, type=FILE, help="A parcel that somebody carried here."),
    ):
        command = option(command)
    return command


def speaking_options(command: F) -> F:
    """Where lines come from, who asks or accepts, and where the signed line goes."""
    for option in (
        click.option("--yes", is_flag=True, help="Sign without asking; what is signed is shown all the same."),
        click.option("--out", type=NEW_FILE, help="Write a parcel to be carried, and log nothing."),
        click.option("--to", metavar="NODE", help="Log it there: a node's name, or its operator's socket."),
        click.option("--publisher", metavar="NAME", help="Speak as this publisher, not as a member."),
        click.option("--key", "keys", multiple=True, type=FILE, help="A governance key. Default: in HOME/offline."),
        click.option(
            "--dir", "home", type=FOLDER, default=Path(), help="The home of your member's node. Default: here."
        ),
    ):
        command = option(command)
    return reading_options(command)


def recording_options(command: F) -> F:
    """Whose node writes a record."""
    for option in (
        click.option("--yes", is_flag=True, help="Record it without asking."),
        click.option("--out", type=NEW_FILE, help="Also write a parcel to be carried, with the proof of the record."),
        LENDER,
    ):
        command = option(command)
    return command


def lending_options(command: F) -> F:
    """Where lines come from, and whose node writes the record."""
    return reading_options(recording_options(command))


@dataclass(frozen=True)
class Counter:
    """Raises as the rooms behind it do."""

    carried: Sequence[Path] = ()
    offline: bool = False
    home: Path = field(default_factory=Path)
    keys: Sequence[Path] = ()
    publisher: str | None = None
    to: str | None = None
    out: Path | None = None
    yes: bool = False

    @cached_property
    def market(self) -> OfferClient:
        return client().market().carrying(*self.carried, offline=self.offline)

    def offer(self, name: str) -> FoundChain:
        """The offer that is meant by `name`: a digest's beginning, or a parcel that brings it. Raises NotFound."""
        market, digits = self._named(name)
        return market.offer(digits)

    def grant(self, name: str) -> HeldGrant:
        """The grant that is meant, as for `offer`. Raises NotFound."""
        market, digits = self._named(name)
        return market.grant(digits)

    def said(self, name: str, kind: type[S]) -> SentStatement[S]:
        """The statement that is meant, as for `offer`. Raises NotFound."""
        market, digits = self._named(name)
        return market.said(digits, kind)

    @cached_property
    def voice(self) -> OfferSigner:
        """Whoever speaks. Raises NotFound (NO-KEY, NO-HOME), Refused (NOT-A-SIGNER)."""
        from comity_client.offers.speaker import OfferSigner

        if self.publisher is not None:
            return OfferSigner.of_publisher(client().publisher(self.publisher))
        return OfferSigner.of_member(self.home, self.keys)

    @property
    def socket(self) -> str:
        """The operators' socket of the home's node. Raises Conflict (NO-TARGET)."""
        from comity_client.session import socket_of

        socket = socket_of(self.home)
        if not socket.is_socket():
            raise Conflict(f"no node runs on {self.home}", why="its operators' socket is not there",
                           hint=f"comity serve --dir {shlex.quote(str(self.home))}", code="NO-TARGET")  # fmt: skip
        return str(socket)

    @property
    def target(self) -> str:
        """The node that takes what is signed here."""
        if self.to:
            return self.to
        return self.voice.home if self.publisher is not None else self.socket

    def sign(
        self, said: Said, facts: Sequence[tuple[str, str]], *, title: str, known: OfferBundle, following: str
    ) -> None:
        """Show what would be signed, ask, sign, and hand it over: to a node, or into a parcel. Where m of k keys sign,
        and not all are here, the ceremony goes on in a file.

        Args:
            known: what whoever gets a parcel needs to know beside it.
            following: the command for the other side. `LINE` in it becomes what is handed over: a parcel, or the
                digest of the line that was logged. Without it the command is for later, and a parcel is loaded first.
        """
        out, voice = output(), self.voice
        if self.out is None and voice.whole:
            _ = self.target
        out.say(f"{plain(voice.label)} {title}")
        for name, value in facts:
            out.fact(name, value)
        agree("Sign this?", yes=self.yes)
        if not voice.whole:
            self._pass_on(said)
            return
        entry = voice.say(said)
        following = self._for_other_side(following, entry.digest)
        where = self._hand_over([*voice.lines, entry.line], known, following)
        out.done(f"signed: {entry.digest[:12]}, {where}")
        out.document(
            entry.statement.predicate,
            {
                "line": entry.digest,
                "by": voice.identity,
                "subject": entry.statement.subject,
                "where": str(self.out) if self.out else where,
                "next": following,
            },
        )
        out.hint(f"the other side: {following}")

    def record(self, act: Act, question: str, lines: Sequence[bytes] = ()) -> ProviderRecord:
        """Ask, and have the node of the home write a record, after it has logged `lines`; then write the parcel."""
        socket = self.socket
        agree(question, yes=self.yes)
        recorded = self.market.act(act, socket, lines)
        if self.out is not None:
            recorded.parcel.write(self.out)
        return recorded

    def _named(self, name: str) -> tuple[OfferClient, str]:
        """The market, and a digest's beginning; where `name` is a parcel on this disk, what it brings and no name."""
        if Path(name).is_file():
            return self.market.carrying(Path(name), offline=self.offline), ""
        return self.market, name.removeprefix("sha256:")

    def _for_other_side(self, following: str, line: Digest) -> str:
        if self.out is None:
            return following.replace(LINE, line[:12])
        parcel = shlex.quote(self.out.name)
        return following.replace(LINE, parcel) if LINE in following else f"comity grant load {parcel} --dir HOME"

    def _pass_on(self, said: Said) -> None:
        """Write the ceremony file for whoever holds the other keys."""
        from comity_client.charter.proposals import plan_carried

        from comity_cli.charter.signing import pass_on

        body = next((pin.body for pin in self.market.pins if pin.body.member(self.voice.identity)), None)
        if body is None:
            why = "no pinned federation has a seat for this member, so nobody else could judge what they sign"
            raise Conflict("the statement cannot be passed on", why=why, hint="comity trust show", code="NO-TARGET")
        pass_on(plan_carried(self.voice.begin(said, body.data).encode()), self.out)

    def _hand_over(self, lines: Sequence[bytes], known: OfferBundle, following: str) -> str:
        from comity_client.offers.market import unlogged

        if self.out is not None:
            (known | unlogged(lines)).write(self.out, following)
            return f"in {self.out}, to be carried"
        name, indexes = self.market.deliver(lines, self.target)
        return f"entry {indexes[-1]} of the log of {name}"


def now() -> int:
    return int(time.time())
