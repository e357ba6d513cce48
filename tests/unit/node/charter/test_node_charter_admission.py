"""Which charter statements are logged without an operator's approval, and whose quota copies and floods use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from attackers.charter import copies
from comity.node.charter import admission as admission_module
from comity.node.charter.admission import CharterAdmission
from comity.trust.charter.votes import draft_statement
from comity.trust.errors import ComityError, OutOfSpace
from comity.trust.statement import Entry, parse_entry, sign_statement
from support.assembly import Assembly, change
from support.bench import Bench
from support.world import Identity


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    opened = Bench(tmp_path, Assembly.of(4))
    await opened.settle()
    yield opened
    opened.close()


def open_admission(bench: Bench) -> CharterAdmission:
    return CharterAdmission(bench.async_ledger, bench.members, bench.follower, lambda: 0.0)


def drafting(bench: Bench, who: Identity, number: int) -> Entry:
    body = change(bench.assembly.body, number)
    return sign_statement(draft_statement(body, who.id, "because"), who.signer)


async def refused(admission: CharterAdmission, *entries: Entry) -> str:
    with pytest.raises(ComityError) as caught:
        await admission.granted(entries)
    return caught.value.code


async def test_copies_that_are_logged_already_use_up_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "MAX_OF_A_KIND", 2)
    who = bench.assembly.seats[1]
    padded = [parse_entry(line) for line in copies(who.entry.line, 8)]
    bench.log(bench.assembly.seats[0], [who.entry, *padded])
    admission = open_admission(bench)
    assert len(await admission.granted(padded)) == 8
    assert len(await admission.granted([who.entry])) == 1


async def test_a_members_flood_ends_at_its_own_share(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "MAX_NEWEST", 3)
    _, liar, honest, _ = bench.assembly.seats
    admission = open_admission(bench)
    assert await refused(admission, *(drafting(bench, liar, number) for number in range(4))) == "CHARTER-QUOTA"
    said = [drafting(bench, liar, number) for number in range(3)]
    assert len(await admission.granted(said)) == 3
    admission.logged(said)
    assert len(await admission.granted(said)) == 3
    assert await refused(admission, drafting(bench, liar, 3)) == "CHARTER-QUOTA"
    assert len(await admission.granted([drafting(bench, honest, 3)])) == 1


async def test_refused_and_unlogged_statements_use_no_quota(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "MAX_NEWEST", 2)
    honest = bench.assembly.seats[1]
    admission = open_admission(bench)
    for number in range(10):
        assert len(await admission.granted([drafting(bench, honest, number)])) == 1


async def test_the_share_is_counted_by_the_log_after_a_start(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "MAX_NEWEST", 2)
    liar = bench.assembly.seats[1]
    bench.log(bench.assembly.seats[0], [drafting(bench, liar, number) for number in range(2)])
    await bench.settle()
    assert await refused(open_admission(bench), drafting(bench, liar, 2)) == "CHARTER-QUOTA"


async def test_a_members_statements_are_always_accepted_at_its_own_node(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission_module, "MAX_NEWEST", 0)
    monkeypatch.setattr(admission_module, "MAX_OF_A_KIND", 0)
    own = bench.assembly.seats[0]
    said = [own.entry, *(drafting(bench, own, number) for number in range(10))]
    assert len(await open_admission(bench).granted(said)) == 11


async def test_a_submission_with_its_objects_is_counted_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "MAX_NEWEST", 2)
    who = bench.assembly.seats[2]
    said = drafting(bench, who, 1)
    padded = [parse_entry(line) for line in copies(said.line, 5)]
    with pytest.raises(OutOfSpace):
        await open_admission(bench).granted([drafting(bench, who, number) for number in range(3)])
    assert len(await open_admission(bench).granted([said, *padded])) == 6
