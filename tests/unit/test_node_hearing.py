"""How much is kept of what is said about the next epoch, and from whom: a share of each log, never of an author."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.content.folder import FolderStore
from comity.ledger.ledger import Ledger
from comity.node.core import Core
from comity.node.governance import hearing
from comity.node.governance.hearing import Hearing, about
from comity.node.governance.memo import Memo
from comity.node.governance.proceedings import WINDOW, Proceedings
from comity.node.membership import Membership, Seat
from comity.node.pools import Pools
from comity.trust.charter import Intent, accusation, find_lies
from comity.trust.identity import KeySet
from comity.trust.rotation import Rotation, rotate
from comity.trust.statement import Entry, sign_statement
from support.assembly import CLASSICAL, Assembly, change
from support.world import Identity, node, signer


def assembly() -> Assembly:
    return Assembly.of(4)


def log_of(who: Identity) -> str:
    return str(node(who, "", CLASSICAL).record.log)


def test_a_flooded_log_costs_no_other_log_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "MAX_LINES", 10)
    council, kept = assembly(), Hearing()
    liar, honest, *_ = council.seats
    body = change(council.body)
    flood = [council.intent(liar, body, at) for at in range(1, 30)]
    assert sum(kept.put("the liar's log", entry) for entry in flood) == 10
    assert kept.full("the liar's log") and not kept.full("another log")
    assert kept.put("another log", council.intent(honest, body))


def test_what_a_liar_said_counts_where_an_honest_member_logs_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "MAX_LINES", 3)
    council, kept = assembly(), Hearing()
    liar = council.seats[0]
    said = [council.intent(liar, change(council.body), at) for at in range(1, 10)]
    for entry in said:
        kept.put("the liar's log", entry)
    assert said[7].digest not in kept.entries
    assert kept.put("an honest log", said[7])


def test_large_drafts_are_bounded_and_keep_no_reading_out(monkeypatch: pytest.MonkeyPatch) -> None:
    council, kept = assembly(), Hearing()
    body = council.put(change(council.body))
    monkeypatch.setattr(hearing, "MAX_DRAFTED", len(body.data) + 1)
    assert kept.put("a log", council.lines[-1])
    council.put(change(council.body, 2))
    assert not kept.put("a log", council.lines[-1])
    assert kept.put("a log", council.intent(council.seats[0], body))


def test_a_line_that_stands_twice_is_charged_to_both_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "MAX_LINES", 1)
    council, kept = assembly(), Hearing()
    said = [council.intent(council.seats[0], change(council.body), at) for at in (1, 2)]
    assert kept.put("a log", said[0]) and not kept.put("another", said[0])
    assert not kept.put("another", said[1])
    kept.read_again()
    assert kept.put("another", said[1])


def test_what_a_statement_is_about_is_read_or_not_there() -> None:
    council = assembly()
    council.put(change(council.body))
    assert about(council.lines[-1].statement) == council.body.digest
    assert about(council.seats[0].entry.statement) is None


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path, lambda: 1000.0)
    yield opened
    opened.close()


def reading(ledger: Ledger, council: Assembly, tmp_path: Path) -> tuple[Proceedings, Membership]:
    """Proceedings about the assembly's body, over the logs of a ledger."""
    own = council.seats[0]
    record = node(own, "", CLASSICAL)
    members = Membership(Seat.parse(own.entry.line, record.entry.line), None, [council.body])
    parts: Any = SimpleNamespace(
        ledger=ledger, pools=Pools(), store=FolderStore(tmp_path / "blobs"), membership=members
    )
    read = Proceedings(cast(Core, parts), Memo().signed)
    read.open(council.body.digest)
    return read, members


def log(ledger: Ledger, who: Identity, entries: list[Entry]) -> None:
    vkey = log_of(who)
    ledger.logs.create(vkey.partition("+")[0], vkey, own=True)
    for start in range(0, len(entries), 1000):
        ledger.logs.append(vkey, [entry.line for entry in entries[start : start + 1000]])


async def test_a_long_log_keeps_no_other_waiting(ledger: Ledger, tmp_path: Path) -> None:
    council = assembly()
    liar, honest, *_ = council.seats
    body = change(council.body)
    log(ledger, liar, [council.intent(liar, body, at) for at in range(1, 3 * WINDOW)])
    said = council.intent(honest, body)
    log(ledger, honest, [said])
    read, _ = reading(ledger, council, tmp_path)
    turn = await read.read()
    assert turn.behind and turn.heard == {council.body.digest}
    assert said.digest in read.about(council.body.digest).entries
    while (await read.read()).behind:
        pass
    assert read.full(council.body.digest) == (log_of(liar),)
    assert len(read.about(council.body.digest).entries) == hearing.MAX_LINES + 1


async def test_lines_of_strangers_and_thieves_are_not_kept(ledger: Ledger, tmp_path: Path) -> None:
    council = assembly()
    first, second, *_ = council.seats
    body = change(council.body)
    forged = sign_statement(Intent(second.id, council.body.digest, 1, 1, body.digest).statement(), first.signer)
    elsewhere = sign_statement(Intent(first.id, body.digest, 2, 1, body.digest).statement(), first.signer)
    log(ledger, first, [forged, elsewhere])
    read, _ = reading(ledger, council, tmp_path)
    assert (await read.read()).heard == frozenset()
    assert read.about(council.body.digest).entries == {}


async def test_readings_under_rotated_keys_count_once_the_rotation_is_known(ledger: Ledger, tmp_path: Path) -> None:
    council = assembly()
    who = council.seats[1]
    state, new = who.member.key_state, signer("after", CLASSICAL)
    rotation = Rotation(who.id, 1, state.digest, KeySet((new.public,), 1), ())
    recovery = signer(f"{who.inception.label} recovery", CLASSICAL)
    rotated = rotate(state, rotation, [recovery], [new])
    intent = Intent(who.id, council.body.digest, 1, 1, change(council.body).digest)
    said = sign_statement(intent.statement(), new)
    log(ledger, who, [said, rotated])
    read, members = reading(ledger, council, tmp_path)
    turn = await read.read()
    assert turn.heard == frozenset() and turn.rotated == (rotated,)
    assert members.rotate(who.id, turn.rotated)
    read.open(council.body.digest)
    assert (await read.read()).heard == {council.body.digest}


async def test_an_accusation_brings_both_lines(ledger: Ledger, tmp_path: Path) -> None:
    council = assembly()
    accuser, liar, *_ = council.seats
    pair = [council.intent(liar, change(council.body, number)) for number in (1, 2)]
    heard = {Intent(liar.id, council.body.digest, 1, 1, change(council.body, n + 1).digest): pair[n] for n in (0, 1)}
    (lie,) = find_lies(heard)
    read, _ = reading(ledger, council, tmp_path)
    statement = accusation(lie, node(accuser, "", CLASSICAL).record.node)
    for item, line in zip(statement.objects, (lie.first, lie.second), strict=True):
        FolderStore(tmp_path / "blobs").put(item.digest, line)
    log(ledger, accuser, [sign_statement(statement, node(accuser, "", CLASSICAL).online)])
    await read.read()
    assert {entry.digest for entry in pair} == set(read.about(council.body.digest).entries)


async def test_of_a_decided_epoch_only_readings_for_a_rival_are_kept(ledger: Ledger, tmp_path: Path) -> None:
    council = assembly()
    who, other, *_ = council.seats
    taken, rival = change(council.body, 1), change(council.body, 2)
    log(ledger, who, [council.intent(who, taken), council.ratify(who, taken)])
    read, members = reading(ledger, council, tmp_path)
    await read.read()
    members.adopt(taken)
    read.open(council.body.digest, taken.digest)
    read.open(taken.digest)
    assert read.about(council.body.digest).entries == {}
    against = council.intent(other, rival)
    log(ledger, other, [against, council.ratify(other, taken)])
    assert (await read.read()).heard == {council.body.digest}
    assert set(read.about(council.body.digest).entries) == {against.digest}
