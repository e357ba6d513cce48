"""What a session knows of where nodes are beyond the pinned file: which statement is the newest, what is kept, and
which addresses are called on the word of a node."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from comity.rules.signing import sign_content
from comity.trust.errors import Refused, Unavailable
from comity.trust.evidence import EvidenceReader
from comity.trust.node_records import MAX_ADDRESSES, Addresses
from comity.wire.addresses import Address
from comity.wire.messages import LocatedEntry
from comity_client import known_addresses
from comity_client.known_addresses import KeptAddresses, KnownAddresses, permitted
from support.case import nodes

NODE, OTHER = nodes(2)
PINNED = "127.0.0.1:7444"


def statement(*places: str, replaced: bytes = b"") -> bytes:
    return sign_content(Addresses.of(NODE.record, (), places, replaced), NODE.online).line


def at(index: int, line: bytes, origin: str = "") -> LocatedEntry:
    return LocatedEntry(origin or NODE.record.origin, index, line)


class Known:
    """The announced addresses of a node, and the answers of others about it."""

    def __init__(self, folder: Path | None = None, answers: Iterable[LocatedEntry] = ()) -> None:
        self.asked = 0
        self._answers = list(answers)
        kept, listed = KeptAddresses(folder), (PINNED, "10.1.2.3:7444")
        self.of = KnownAddresses(NODE.record, (PINNED,), listed, kept, EvidenceReader(), self._ask)

    async def _ask(self) -> list[LocatedEntry]:
        self.asked += 1
        return self._answers


OLD = statement("127.0.0.1:1")
NEW = statement("127.0.0.1:2", PINNED, replaced=OLD)
NEWEST = statement("127.0.0.1:3", "127.0.0.1:2", replaced=NEW)


@pytest.mark.parametrize("lines", list(itertools.permutations([at(3, OLD), at(7, NEW), at(9, NEWEST)])))
async def test_the_newest_statement_comes_first_in_any_order_of_answers(lines: tuple[LocatedEntry, ...]) -> None:
    known = Known(answers=lines)
    await known.of.look()
    assert known.of.addresses == ("127.0.0.1:3", "127.0.0.1:2", "127.0.0.1:1")


async def test_a_false_place_in_the_log_makes_no_replaced_statement_the_newest() -> None:
    known = Known(answers=[at(1_000, OLD), at(7, NEW)])
    await known.of.look()
    assert known.of.addresses == ("127.0.0.1:2", "127.0.0.1:1")


async def test_only_what_the_node_itself_signed_for_its_own_log_counts() -> None:
    foreign = sign_content(Addresses.of(NODE.record, (), ["127.0.0.1:5"]), OTHER.online).line
    others = sign_content(Addresses.of(OTHER.record, (), ["127.0.0.1:6"]), OTHER.online).line
    no_address = statement("unix:/run/socket:1")
    answers = [at(1, foreign), at(2, others), at(3, b"junk"), at(4, OLD, "elsewhere/log"), at(5, no_address)]
    known = Known(answers=answers)
    await known.of.look()
    assert known.of.addresses == ()


async def test_the_number_of_addresses_of_a_node_is_bounded() -> None:
    answers = [at(index, statement(*(f"127.0.0.1:{index * 10 + port}" for port in range(8)))) for index in range(1, 9)]
    random.Random(1).shuffle(answers)
    known = Known(answers=answers)
    await known.of.look()
    assert known.of.addresses == tuple(f"127.0.0.1:{80 + port}" for port in range(8))
    assert len(known.of.addresses) == MAX_ADDRESSES


async def test_others_are_not_asked_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Known()
    await known.of.look()
    await known.of.look()
    assert known.asked == 1
    monkeypatch.setattr(known_addresses, "ASK_AGAIN", 0.0)
    await known.of.look()
    assert known.asked == 2


async def test_what_led_to_the_node_is_kept_for_the_next_session_and_nothing_else(tmp_path: Path) -> None:
    known = Known(tmp_path, [at(7, NEW)])
    await known.of.look()
    assert Known(tmp_path).of.addresses == ()
    known.of.reached(PINNED)
    assert not (tmp_path / "addresses").exists()
    known.of.reached("127.0.0.1:2")
    assert Known(tmp_path).of.addresses == ("127.0.0.1:2",)
    (kept,) = (tmp_path / "addresses").iterdir()
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_what_the_node_tells_itself_is_kept_and_a_return_to_the_pinned_address_forgets_it(tmp_path: Path) -> None:
    Known(tmp_path).of.told(NEW)
    assert Known(tmp_path).of.addresses == ("127.0.0.1:2",)
    Known(tmp_path).of.told(statement(PINNED, replaced=NEW))
    assert Known(tmp_path).of.addresses == ()


@pytest.mark.parametrize(
    "damage", [b"", b"junk", NEW[:-40], sign_content(Addresses.of(NODE.record, (), ()), OTHER.online).line]
)
def test_a_damaged_file_adds_no_address(tmp_path: Path, damage: bytes) -> None:
    KeptAddresses(tmp_path).keep(NODE.record.node.id, NEW)
    (kept,) = (tmp_path / "addresses").iterdir()
    kept.write_bytes(damage)
    assert Known(tmp_path).of.addresses == ()


@pytest.mark.parametrize(
    ("address", "listed"),
    [
        ("127.0.0.1:9", [PINNED]),
        ("127.5.0.1:9", [PINNED]),
        ("[::1]:9", ["[::1]:7444"]),
        ("10.200.0.1:9", ["10.1.2.3:7444", "example.org:7444"]),
        ("[fd00:1:2:3::1]:9", ["[fd00:1:2::9]:7444"]),
        ("1.1.1.1:9", [PINNED]),
    ],
)
async def test_an_address_is_called_that_is_public_or_in_a_network_of_pinned_ones(
    address: str, listed: list[str]
) -> None:
    parsed = Address.parse(address)
    assert await permitted(parsed, (), listed) == parsed


@pytest.mark.parametrize(
    ("address", "listed"),
    [
        ("127.0.0.1:9", ["1.1.1.1:7444"]),
        ("localhost:9", ["1.1.1.1:7444", "10.1.2.3:7444"]),
        ("10.200.0.1:9", [PINNED, "192.168.1.1:7444"]),
        ("169.254.169.254:80", [PINNED, "10.1.2.3:7444"]),
        ("[fd00:1:3::1]:9", ["[fd00:1:2::9]:7444"]),
        ("[::ffff:10.0.0.1]:9", [PINNED]),
        ("[::1]:9", ["[fd00:1:2::9]:7444"]),
    ],
)
async def test_no_node_can_name_a_machine_of_a_network_in_which_nothing_is_pinned(
    address: str, listed: list[str]
) -> None:
    with pytest.raises(Refused) as caught:
        await permitted(Address.parse(address), (), listed)
    assert caught.value.code == "PRIVATE-ADDRESS"


async def test_a_name_that_nobody_knows_is_not_called() -> None:
    with pytest.raises(Unavailable, match="not called"):
        await permitted(Address.parse("no-such-host.invalid:9"), (), [PINNED])


async def test_an_address_is_looked_up_once_and_called_where_it_led(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    known = Known(answers=[at(7, statement("localhost:2"))])
    await known.of.look()
    await known.of.permit("localhost:2")
    assert known.of.target("localhost:2") in (Address("127.0.0.1", 2), Address("::1", 2))
