"""How many members confirm a charter, and when: one member with a wrong clock changes nothing, and is named."""

from __future__ import annotations

from typing import cast

from comity.trust.encoding import Digest, sha256
from comity_cli.charter.rendering import ConfirmationItem, show_confirmation
from comity_cli.output import Output
from comity_client.charter.state import CURRENT, Confirmation, HomeLogHead

NOW = 1_795_162_000
LIAR, FIRST, SECOND = (sha256(name) for name in (b"liar", b"first", b"second"))
NAMES = {LIAR: "Liar", FIRST: "First", SECOND: "Second"}


def confirmation(times: dict[Digest, dict[Digest, int]]) -> Confirmation:
    """`times`: for the home log of each member, the times of its cosigners."""
    heads = [HomeLogHead(member, NAMES[member], "CH", "log", 1, made, CURRENT) for member, made in times.items()]
    return Confirmation(1, sha256(b"body"), tuple(heads), 2)


class Shown:
    """The output of a command."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)


def test_a_member_whose_clock_is_far_ahead_does_not_make_old_cosignatures_look_new() -> None:
    old = NOW - 40 * 86_400
    found = confirmation({
        FIRST: {LIAR: 2**62, SECOND: old},
        SECOND: {LIAR: 2**62, FIRST: old - 5},
        LIAR: {FIRST: old, SECOND: old},
    })  # fmt: skip
    assert found.seen(NOW) == old
    item = ConfirmationItem.of(found, NOW)
    assert (item.seen, item.ahead) == (old, (LIAR,))
    shown = Shown()
    show_confirmation(cast(Output, shown), found, NOW)
    assert "the newest 40 d ago" in shown.said[0]
    assert any(text.startswith("Liar dates its cosignatures ") for text in shown.warned)


def test_silent_members_make_no_charter_look_older_than_the_newest_plausible_time() -> None:
    found = confirmation({FIRST: {SECOND: NOW, LIAR: 5}, SECOND: {FIRST: NOW - 10}})
    assert found.seen(NOW) == NOW
    assert found.ahead(NOW) == {}
    assert confirmation({FIRST: {}}).seen(NOW) is None
