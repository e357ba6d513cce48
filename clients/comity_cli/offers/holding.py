"""The grantee's side: a grant in the hand of whoever speaks, and what its holder signs about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comity.trust.encoding import Digest
from comity.trust.errors import Refused
from comity.trust.offers.chain import GrantState
from comity.trust.offers.records import Said

from comity_cli.offers.counter import Counter
from comity_cli.offers.rendering import grant_facts

if TYPE_CHECKING:
    from comity_client.offers.market import ChainView


@dataclass(frozen=True, slots=True)
class Holding:
    """A grant, by its chain as it can be known here, of whoever speaks at the counter. Made by `held_by`."""

    counter: Counter
    view: ChainView
    grant: GrantState

    @property
    def about(self) -> tuple[Digest, Digest, Digest]:
        """Who speaks, of which chain, of which grant: how everything begins that a grantee says."""
        return self.grant.grant.grantee, self.view.book.chain, self.grant.digest

    @property
    def name(self) -> str:
        """By which people name it in a command."""
        return self.grant.digest[:12]

    def sign(self, said: Said, title: str, *, following: str, facts: Sequence[tuple[str, str]] = ()) -> None:
        """Show the grant with `facts`, ask, sign and hand over, as `Counter.sign` does."""
        shown = [*grant_facts(self.view, self.grant), *facts]
        self.counter.sign(said, shown, title=title, known=self.view.parcel, following=following)


def own_grant(name: str, **options: Any) -> Holding:
    """The grant that `name`, a digest's beginning or a parcel, stands for. Raises NotFound, and as `held_by` does."""
    counter = Counter(**options)
    held = counter.grant(name)
    return held_by(counter, held.view, held.commitment)


def held_by(counter: Counter, view: ChainView, grant: GrantState) -> Holding:
    """Raises Refused (NOT-YOURS), and as `Counter.voice` does."""
    grantee, voice = grant.grant.grantee, counter.voice.identity
    if grantee != voice:
        raise Refused("this grant is another's", why=f"its grantee is {grantee[:12]}, and you speak for {voice[:12]}",
                      hint="name your member's home: --dir HOME; or your publisher", code="NOT-YOURS")  # fmt: skip
    return Holding(counter, view, grant)
