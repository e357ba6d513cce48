"""Nodes that mirror one another's logs: what they copy, what they sign, what they refuse."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from comity.ledger.stored_lines import pack_line
from comity.node import scrub
from comity.node.ledger_mark import LEDGER_MARK
from comity.node.maintenance.backup import create_backup, restore_backup
from comity.node.replication.cosigner import HEARTBEAT
from comity.node.replication.link import PeerLink
from comity.node.replication.mirror import LogMirror, PeerHead
from comity.node.replication.news import PeerNews
from comity.node.supervisor import LoopTiming
from comity.rules.cosigned_times import verified_cosigners
from comity.rules.misbehaviour import verify_misbehaviour
from comity.trust.encoding import sha256
from comity.trust.errors import Refused
from comity.trust.statement import Statement, Subject, sign_statement
from comity.trust.tlog.note import Checkpoint, SignedNote, open_checkpoint
from comity.trust.tlog.proof import TlogProof
from comity.wire.client import NodeClient
from comity.wire.news import News
from support.federation import (
    Founded,
    NodeHome,
    converged,
    cosigners,
    found,
    introduced,
    note_of,
    processes,
    serving,
    until,
)
from support.publisher import Publisher, model, release, send
from support.short_form import cases

pytestmark = pytest.mark.slow


def say(publisher: Publisher, number: int) -> bytes:
    """A small statement; another one for each number."""
    said = Statement("noted", (Subject("", sha256(b"%d" % number)),), publisher.inception.author, {"number": number})
    return sign_statement(said, publisher.signer).line


async def test_every_log_is_mirrored_and_cosigned_by_all(tmp_path: Path) -> None:
    founded = found(tmp_path, 3)
    async with serving(*founded.homes):
        for home in founded.homes:
            await converged(founded.homes, home, least=3)


async def test_an_unchanged_checkpoint_is_cosigned_again_now_and_then(tmp_path: Path) -> None:
    founded = found(tmp_path, 2)
    first, second = founded.homes
    now = [1_800_000_000.0]
    keys = second.record.cosigners
    async with serving(*founded.homes, clock=lambda: now[0]), first.client() as client:
        note = await converged(founded.homes, first, least=3)
        checkpoint = open_checkpoint(note, first.record.log)
        assert set(verified_cosigners(note, keys, checkpoint).values()) == {int(now[0])}
        now[0] += HEARTBEAT + 1

        async def renewed() -> bool:
            newest = SignedNote.parse(await client.checkpoint(first.origin))
            return set(verified_cosigners(newest, keys, checkpoint).values()) == {int(now[0])}

        await until(renewed, what="a new cosignature")


async def test_an_acknowledged_entry_outlives_its_node(tmp_path: Path) -> None:
    founded = found(tmp_path, 3)
    first, *others = founded.homes
    publisher = Publisher.generate()
    with processes(*founded.homes) as nodes:
        for node in nodes:
            await node.ready()
        async with first.client() as client:
            receipts = (await client.submit([publisher.announcement, say(publisher, 1)])).receipts
        await converged(founded.homes, first, least=receipts[-1].index + 1)
        nodes[0].kill()
        shutil.rmtree(first.directory)
        for home in others:
            async with home.client() as client:
                (proof,) = await client.proofs(receipts[-1].line_digest)
                parsed = TlogProof.parse(proof.proof)
                batches = client.entries(first.origin, parsed.index, parsed.index + 1)
                (line,) = [line async for batch in batches for line in batch.lines]
                parsed.verify(line, first.record.log)
                assert cosigners(first, parsed.checkpoint, others) == {other.name for other in others}
                assert (await client.node()).origin == home.origin


async def test_a_late_node_gets_a_dead_ones_log_from_the_others_and_repairs_its_copy_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrub, "TIMING", LoopTiming(interval=0.3, deadline=60.0))
    monkeypatch.setattr(scrub, "REPAIR_SECONDS", 0.0)
    monkeypatch.setattr(scrub, "FIRST_PASS_SECONDS", 0.0)
    founded = found(tmp_path, 3)
    first, second, third = founded.homes
    publisher = Publisher.generate()
    async with serving(second):
        async with serving(first), first.client() as client:
            await client.submit([publisher.announcement, *(say(publisher, number) for number in range(20))])
            await converged((first, second), first, least=24)
        async with serving(third):
            await converged((second, third), first, least=24)
        async with second.client() as client:
            lines = [line async for batch in client.entries(first.origin, 0, 24) for line in batch.lines]
        flip_bit_of(third, lines[7], beside=lines[8])
        async with serving(third), third.client() as client, third.operator() as operator:

            async def repaired() -> bool:
                found = [line async for batch in client.entries(first.origin, 0, 24) for line in batch.lines]
                return found == lines and not any("LEDGER" in each for each in (await operator.status()).warnings)

            await until(repaired, what="the damaged entry to be written again")


def flip_bit_of(home: NodeHome, line: bytes, *, beside: bytes) -> None:
    """Damage a stored line on the disk of a stopped node, at a position where it differs from another line."""
    stored, other_stored = pack_line(line), pack_line(beside)
    start = next(at for at, (one, other) in enumerate(zip(stored, other_stored, strict=False)) if one != other)
    file = home.config().storage.ledger
    data = bytearray(file.read_bytes())
    data[data.index(stored[start : start + 24])] ^= 1
    with file.open("r+b") as opened:
        opened.write(data)


async def test_a_long_log_is_caught_up_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fetched is visible before the end, if checkpoints are there on the way."""
    visible = list[int]()
    advanced = LogMirror._advanced

    async def noted(self: LogMirror, head: PeerHead) -> None:
        if head.origin == first.origin:
            visible.append(head.checkpoint.size)
        await advanced(self, head)

    monkeypatch.setattr("comity.node.replication.mirror.STEP_LINES", 7)
    monkeypatch.setattr("comity.node.replication.log_turns.STEP_LINES", 7)
    monkeypatch.setattr(LogMirror, "_advanced", noted)
    founded = found(tmp_path, 2)
    first, second = founded.homes
    publisher = Publisher.generate()

    async def signed_at(size: int) -> bool:
        return SignedNote.parse(await client.checkpoint(first.origin)).text.split("\n")[1] == str(size)

    async with serving(first), first.client() as client:
        await client.submit([publisher.announcement])
        for least, most in ((0, 4), (4, 30), (30, 60)):
            receipts = await client.submit([say(publisher, number) for number in range(least, most)])
            size = receipts.receipts[-1].index + 1
            await until(lambda size=size: signed_at(size), what=f"a checkpoint of {size}")  # type: ignore[misc]
        async with serving(second):
            await converged(founded.homes, first, least=size)
    assert visible == sorted(set(visible)) and visible[-1] == size
    assert len(visible) >= 2 and visible[0] <= 14


async def test_side_objects_are_here_before_a_log_is_cosigned(tmp_path: Path) -> None:
    founded = found(tmp_path, 2)
    first, second = founded.homes
    what = release(Publisher.generate(), model(tmp_path / "model", weights=1000), "tests/model@v1")
    async with serving(*founded.homes), first.client() as client, second.client() as other:
        receipts = (await send(client, what)).receipts
        await converged(founded.homes, first, least=receipts[-1].index + 1)
        assert all(stat.have for stat in await other.stat(list(what.objects)))


async def test_at_the_quota_a_node_stops_and_says_so(tmp_path: Path) -> None:
    founded = found(tmp_path, 2)
    first, second = founded.homes
    second.set("limits", entries_per_origin=10)
    publisher = Publisher.generate()
    async with serving(*founded.homes), first.client() as client, second.operator() as operator:
        await converged(founded.homes, first, least=3)
        await client.submit([publisher.announcement, *(say(publisher, number) for number in range(20))])

        async def told() -> bool:
            return any("above its quota" in warning for warning in (await operator.status()).warnings)

        await until(told, what="the quota to be told")
        note = await note_of(operator, first.origin)
        assert note is not None and Checkpoint.parse(note.text).size <= 10
        status = await operator.status()
        assert status.peers[0].lag > 0
        assert {log.origin: log.full for log in status.logs} == {second.origin: False, first.origin: True}


async def fork(founded: Founded, tmp_path: Path, *, before: int, after: int) -> NodeHome:
    """The first node shows the others one history; then a copy of it, made before, runs at its address with another
    history. Returns the home of the copy, which knows no peers, so that none can tell it the first history.
    """
    first, *_ = founded.homes
    publisher = Publisher.generate()
    copy = NodeHome(tmp_path / "copy", first.card)
    async with serving(first):
        await introduced(first)
    shutil.copytree(first.directory, copy.directory)
    (copy.directory / "federation.json").unlink()
    async with serving(*founded.homes), first.client() as client:
        await client.submit([publisher.announcement, *(say(publisher, number) for number in range(before - 1))])
        await converged(founded.homes, first, least=3 + before)
    async with serving(copy), copy.client() as client:
        await client.submit([publisher.announcement, *(say(publisher, 1000 + number) for number in range(after - 1))])
        await until(lambda: _covers(copy, 3 + after))
    return copy


async def _covers(home: NodeHome, size: int) -> bool:
    async with home.client() as client:
        note = await note_of(client, home.origin)
        return note is not None and Checkpoint.parse(note.text).size >= size


@pytest.mark.parametrize(
    ("before", "after"),
    [pytest.param(5, 5, marks=pytest.mark.long), pytest.param(5, 3, marks=pytest.mark.long), (5, 9)],
)
async def test_a_forked_log_is_proven_and_frozen(tmp_path: Path, before: int, after: int) -> None:
    founded = found(tmp_path, 2)
    first, second = founded.homes
    copy = await fork(founded, tmp_path, before=before, after=after)
    async with serving(second, copy), second.client() as client, second.operator() as operator:

        async def convicted() -> bool:
            return bool(await client.misbehaviour())

        await until(convicted, what="the fork to be seen")
        (proof,) = await client.misbehaviour()
        assert proof.origin == first.origin
        verify_misbehaviour(proof.kind, proof.parts, first.record.log)
        status = await operator.status()
        assert status.misbehaviour == 1
        assert any("two histories" in warning for warning in status.warnings)
        assert {log.origin: log.frozen for log in status.logs} == {second.origin: False, first.origin: True}
        note = await note_of(client, first.origin)
        assert note is not None and Checkpoint.parse(note.text).size == 3 + before
    async with serving(second), second.operator() as operator:
        assert any("two histories" in warning for warning in (await operator.status()).warnings)


async def test_a_misbehaviour_proof_spreads(tmp_path: Path) -> None:
    founded = found(tmp_path, 3)
    first, second, third = founded.homes
    copy = await fork(founded, tmp_path, before=5, after=5)
    async with serving(second):
        async with serving(copy), second.client() as client:

            async def convicted() -> bool:
                return bool(await client.misbehaviour())

            await until(convicted, what="the fork to be seen")
        async with serving(third), third.client() as client:

            async def received() -> bool:
                return bool(await client.misbehaviour())

            await until(received, what="the conviction to spread")
            (proof,) = await client.misbehaviour()
            verify_misbehaviour(proof.kind, proof.parts, first.record.log)


@pytest.mark.parametrize(
    "what", cases(("everything", "the database alone", "by its commands"), ("the database alone", "by its commands"))
)
async def test_a_node_restored_from_a_backup_fetches_its_log_before_it_signs(tmp_path: Path, what: str) -> None:
    founded = found(tmp_path, 2)
    first, second = founded.homes
    publisher = Publisher.generate()
    async with serving(first):
        await introduced(first)
    shutil.copytree(first.directory, tmp_path / "backup")
    async with serving(*founded.homes), first.client() as client:
        receipts = (await client.submit([publisher.announcement, say(publisher, 1)])).receipts
        newest = await converged(founded.homes, first, least=5)
    shutil.rmtree(first.directory)
    if what == "by its commands":
        file = tmp_path / "backup" / "node.toml"
        create_backup(file, tmp_path / "made", with_keys=True, with_blobs=False, clock=lambda: 1, environ={})
        restore_backup(tmp_path / "made", first.directory, expected=None, environ={})
    else:
        shutil.copytree(tmp_path / "backup", first.directory)
    if what == "the database alone":
        (first.directory / "data" / LEDGER_MARK).unlink()
    first.set("replication", first_answer_seconds=0.0)  # a copied ledger nevertheless waits for a peer
    async with serving(*founded.homes), first.client() as client, second.client() as other:
        again = await client.submit([publisher.announcement, say(publisher, 2)])
        assert again.receipts[0] == receipts[0]
        assert again.receipts[1].index == Checkpoint.parse(newest.text).size
        await converged(founded.homes, first, least=6)
        assert not await other.misbehaviour()


async def test_a_log_that_is_not_the_one_signed_is_never_signed_again(tmp_path: Path) -> None:
    founded = found(tmp_path, 2)
    first, second = founded.homes
    copy = await fork(founded, tmp_path, before=5, after=9)
    (copy.directory / "federation.json").write_bytes(founded.federation.encode())
    async with serving(second, copy), copy.client() as client, copy.operator() as operator:

        async def refuses() -> bool:
            try:
                await client.submit([Publisher.generate().announcement])
            except Refused as refused:
                return refused.code == "LOG-DIVERGED"
            return False

        await until(refuses, what="the node to refuse")
        assert any("signs nothing" in warning for warning in (await operator.status()).warnings)
        assert (await client.node()).origin == first.origin


async def test_a_node_with_nothing_new_is_not_asked_for_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed, asked, told = list[str](), list[str](), list[News]()
    follow, take = LogMirror.follow, PeerNews.take

    async def following(self: LogMirror, link: PeerLink, head: PeerHead, **how: bool) -> bool:
        followed.append(head.origin)
        return await follow(self, link, head, **how)

    def taking(self: PeerNews, news: News, is_mirrored: Callable[[str], bool]) -> None:
        told.append(news)
        take(self, news, is_mirrored)

    def counted(call: str) -> None:
        made = getattr(NodeClient, call)

        def calling(self: NodeClient, *arguments: object) -> object:
            asked.append(call)
            return made(self, *arguments)

        monkeypatch.setattr(NodeClient, call, calling)

    monkeypatch.setattr(LogMirror, "follow", following)
    monkeypatch.setattr(PeerNews, "take", taking)
    for call in ("logs", "misbehaviour", "epochs"):
        counted(call)
    founded = found(tmp_path, 2)
    first, _ = founded.homes

    async def heartbeats(count: int) -> None:
        wanted = len(told) + count
        await until(lambda: len(told) >= wanted, what="heartbeats")

    async with serving(*founded.homes), first.client() as client:
        for home in founded.homes:
            await converged(founded.homes, home, least=3)

        async def quiet() -> bool:
            before, calls = len(followed), len(asked)
            await heartbeats(4)
            return (len(followed), len(asked)) == (before, calls) and not any(news.logs for news in told[-2:])

        await until(quiet, what="four heartbeats without a question")
        publisher = Publisher.generate()
        receipts = (await client.submit([publisher.announcement, say(publisher, 1)])).receipts
        await converged(founded.homes, first, least=receipts[-1].index + 1)
