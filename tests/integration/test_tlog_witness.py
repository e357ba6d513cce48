"""A node as a plain witness for outside logs (C2SP tlog-witness): every status, one state a log, one winner a race."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from comity.content.secrets import write_keys
from comity.gateway.app import serve_gateway
from comity.ledger.ledger import Ledger
from comity.node.ledger_mark import OUTSIDE_MARK, FileMark
from comity.rules.tree_proofs import consistency_proof
from comity.rules.witness import AddCheckpoint, parse_signatures
from comity.trust.encoding import b64encode
from comity.trust.errors import Malformed
from comity.trust.keys import PrivateKey
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import Checkpoint, SignedNote, VerifierKey, cosigner_key, verify_cosignature
from support.federation import NodeHome, make_home, serving
from support.outside import OutsideLog, TlogRoutes, vkeys
from support.shared import shared
from support.waiting import PATIENCE

NAME = "witness.example/w1"
KEYS = (PrivateKey.generate("ed25519"), PrivateKey.generate("ml-dsa-44"))
LOG = OutsideLog("outside.example/log").grow(40)
FORK = OutsideLog(LOG.origin, LOG.key).grow(40, b"another")
SIGSUM_ORIGIN = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562"


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    home = make_home(tmp_path / "home", 0)
    write_keys(home.directory / "keys" / "witness.pem", KEYS)
    home.set("tlog", witness=vkeys([LOG]), witness_name=NAME)
    return home


@pytest.fixture
async def routes(home: NodeHome) -> AsyncIterator[TlogRoutes]:
    async with (
        serving(home, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        yield TlogRoutes(client)


def signed_by_both(answer: httpx2.Response, checkpoint: Checkpoint) -> None:
    assert answer.status_code == 200, answer.text
    lines = parse_signatures(answer.content)
    assert len(lines) == 2
    for line, key in zip(lines, KEYS, strict=True):
        assert verify_cosignature(line, cosigner_key(NAME, key.public), checkpoint) > 0


async def test_a_witness_signs_a_growing_log_and_an_unchanged_checkpoint_again(routes: TlogRoutes) -> None:
    for old, size in ((0, 1), (1, 2), (2, 2), (2, 5), (5, 33)):
        signed_by_both(await routes.add_checkpoint(LOG.submission(old, size)), LOG.checkpoint(size))


async def test_a_stale_old_size_is_answered_with_the_right_one(routes: TlogRoutes) -> None:
    signed_by_both(await routes.add_checkpoint(LOG.submission(0, 33)), LOG.checkpoint(33))
    for old, size in ((0, 40), (8, 40), (0, 33), (34, 40), (0, 1)):
        answer = await routes.add_checkpoint(LOG.submission(old, size))
        assert (answer.status_code, answer.text) == (409, "33\n")
        assert answer.headers["Content-Type"] == "text/x.tlog.size"


async def test_a_checkpoint_that_does_not_continue_the_last_one_is_unprocessable(routes: TlogRoutes) -> None:
    signed_by_both(await routes.add_checkpoint(LOG.submission(0, 8)), LOG.checkpoint(8))
    wrong = [
        AddCheckpoint(8, (), LOG.note(12)),
        AddCheckpoint(8, (leaf_hash(b""),) * 3, LOG.note(12)),
        AddCheckpoint(8, consistency_proof(8, 12, FORK.tree.node), FORK.note(12)),
        AddCheckpoint(8, (leaf_hash(b""),), LOG.note(8)),
    ]
    for body in wrong:
        assert (await routes.add_checkpoint(body.encode())).status_code == 422
    signed_by_both(await routes.add_checkpoint(LOG.submission(8, 12)), LOG.checkpoint(12))


async def test_a_first_checkpoint_needs_no_proof(routes: TlogRoutes) -> None:
    assert (await routes.add_checkpoint(AddCheckpoint(0, (leaf_hash(b""),), LOG.note(3)).encode())).status_code == 422


async def test_an_empty_log_has_the_root_of_the_empty_tree(routes: TlogRoutes) -> None:
    wrong = OutsideLog(LOG.origin, LOG.key)
    text = f"{LOG.origin}\n0\n{b64encode(leaf_hash(b''))}\n"
    signature = LOG.key.sign(text.encode())
    line = f"— {LOG.origin} {b64encode(LOG.verifier.key_id + signature)}"
    answer = await routes.add_checkpoint(f"old 0\n\n{text}\n{line}\n".encode())
    assert answer.status_code == 422
    signed_by_both(await routes.add_checkpoint(wrong.submission(0, 0)), wrong.checkpoint(0))


async def test_two_histories_prove_misbehaviour_and_the_log_is_signed_no_more(
    routes: TlogRoutes, home: NodeHome
) -> None:
    signed_by_both(await routes.add_checkpoint(LOG.submission(0, 33)), LOG.checkpoint(33))
    assert (await routes.add_checkpoint(AddCheckpoint(33, (), FORK.note(33)).encode())).status_code == 422
    frozen = await routes.add_checkpoint(LOG.submission(33, 40))
    assert (frozen.status_code, frozen.headers["X-Error-Code"]) == (403, "SPLIT-VIEW")
    async with home.client() as client:
        (proof,) = await client.misbehaviour()
    assert (proof.kind, proof.origin) == ("roots", LOG.origin)


async def test_an_old_size_beyond_the_checkpoint_is_a_bad_request(routes: TlogRoutes) -> None:
    signed_by_both(await routes.add_checkpoint(LOG.submission(0, 33)), LOG.checkpoint(33))
    assert (await routes.add_checkpoint(LOG.submission(33, 8))).status_code == 400


async def test_other_logs_and_other_keys_are_refused(routes: TlogRoutes) -> None:
    stranger = OutsideLog("stranger.example/log").grow(3)
    assert (await routes.add_checkpoint(stranger.submission(0, 3))).status_code == 404
    impostor = OutsideLog(LOG.origin).grow(3)
    assert (await routes.add_checkpoint(impostor.submission(0, 3))).status_code == 403
    forged = SignedNote(LOG.note(4).text, LOG.note(3).signatures)
    assert (await routes.add_checkpoint(AddCheckpoint(0, (), forged).encode())).status_code == 403


@pytest.mark.parametrize(
    "body",
    [b"", b"old 0\n", b"\xff" * 40, b"old 00\n\n" + LOG.note(1).encode(), LOG.note(1).encode(), b"x" * 140_000],
)
async def test_an_invalid_request_is_refused(routes: TlogRoutes, body: bytes) -> None:
    assert (await routes.add_checkpoint(body)).status_code in (400, 413)


async def test_an_extension_line_is_refused(routes: TlogRoutes) -> None:
    text = LOG.note(3).text + "extension\n"
    line = f"— {LOG.origin} {b64encode(LOG.verifier.key_id + LOG.key.sign(text.encode()))}"
    answer = await routes.add_checkpoint(f"old 0\n\n{text}\n{line}\n".encode())
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (400, "CHECKPOINT-EXTENSION")


async def test_monitors_read_the_newest_checkpoint_that_the_witness_signed(routes: TlogRoutes) -> None:
    path = f"witness/{LOG.prefix}/checkpoint"
    assert (await routes.get(path)).status_code == 404
    signed_by_both(await routes.add_checkpoint(LOG.submission(0, 8)), LOG.checkpoint(8))
    signed_by_both(await routes.add_checkpoint(LOG.submission(8, 9)), LOG.checkpoint(9))
    answer = await routes.get(path)
    note = SignedNote.parse(answer.content)
    assert note.text == LOG.checkpoint(9).text
    assert {line.name for line in note.signatures} == {LOG.origin, NAME}
    assert (await routes.get(f"witness/{'0' * 64}/checkpoint")).status_code == 404


async def test_the_state_of_a_witness_survives_a_restart(home: NodeHome) -> None:
    for old, size, status in ((0, 8, 200), (0, 8, 409), (8, 9, 200)):
        async with (
            serving(home, companion=serve_gateway) as (listening,),
            httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
        ):
            assert (await TlogRoutes(client).add_checkpoint(LOG.submission(old, size))).status_code == status


async def test_a_node_with_a_copied_ledger_signs_nothing_for_outside_logs(home: NodeHome) -> None:
    ledger = home.config().storage.ledger
    async with (
        serving(home, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        signed_by_both(await TlogRoutes(client).add_checkpoint(LOG.submission(0, 8)), LOG.checkpoint(8))
    backup = ledger.with_name("backup")
    shutil.copy(ledger, backup)
    backup.replace(ledger)
    async with (
        serving(home, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        for _ in range(2):
            answer = await TlogRoutes(client).add_checkpoint(LOG.submission(8, 9))
            assert (answer.status_code, answer.headers["X-Error-Code"]) == (503, "LEDGER-COPY")
    mark = FileMark(ledger.with_name(OUTSIDE_MARK), str(ledger.stat().st_ino))
    subprocess.run(mark.reset_command(), shell=True, check=True)
    async with (
        serving(home, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        signed_by_both(await TlogRoutes(client).add_checkpoint(LOG.submission(8, 9)), LOG.checkpoint(9))


async def test_a_mirrored_history_and_a_different_submitted_one_prove_misbehaviour(home: NodeHome) -> None:
    async with (
        serving(home, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        signed_by_both(await TlogRoutes(client).add_checkpoint(LOG.submission(0, 8)), LOG.checkpoint(8))
    ledger = Ledger.open(home.config().storage.ledger.parent, time.time)
    ledger.logs.create(LOG.origin, str(LOG.verifier))
    ledger.logs.advance(str(LOG.verifier), 0, FORK.entries[:12], FORK.note(12))
    ledger.close()
    async with (
        serving(home, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        for log, old in ((LOG, 8), (FORK, 12)):
            answer = await TlogRoutes(client).add_checkpoint(log.submission(old, 20))
            assert (answer.status_code, answer.headers["X-Error-Code"]) == (403, "SPLIT-VIEW")
        async with home.client() as node:
            (proof,) = await node.misbehaviour()
    assert (proof.kind, proof.origin) == ("history", LOG.origin)


async def test_a_log_may_be_both_witnessed_and_mirrored(home: NodeHome) -> None:
    home.set("tlog", mirror=vkeys([LOG]))
    home.set("replication", first_answer_seconds=0)
    async with (
        serving(home, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        signed_by_both(await TlogRoutes(client).add_checkpoint(LOG.submission(0, 8)), LOG.checkpoint(8))
        assert (await TlogRoutes(client).add_entries(LOG.upload(0, 8))).status_code == 200
        mirrored = (await TlogRoutes(client).get(f"{LOG.prefix}/checkpoint")).text
        witnessed = (await TlogRoutes(client).get(f"witness/{LOG.prefix}/checkpoint")).text
    assert home.record.cosigners[0].name in mirrored and NAME not in mirrored
    assert NAME in witnessed and home.record.cosigners[0].name not in witnessed


async def test_of_racing_requests_from_one_old_size_exactly_one_is_signed(routes: TlogRoutes) -> None:
    signed_by_both(await routes.add_checkpoint(LOG.submission(0, 8)), LOG.checkpoint(8))
    answers = await asyncio.gather(*(routes.add_checkpoint(LOG.submission(8, size)) for size in range(9, 25)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 15
    (winner,) = (answer for answer in answers if answer.status_code == 200)
    size = 9 + answers.index(winner)
    assert {answer.text for answer in answers if answer is not winner} == {f"{size}\n"}


async def test_a_stalled_request_from_an_outdated_size_is_not_signed(routes: TlogRoutes) -> None:
    signed_by_both(await routes.add_checkpoint(LOG.submission(0, 8)), LOG.checkpoint(8))
    body, others_are_done = LOG.submission(8, 12), asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield body[:-20]
        await others_are_done.wait()
        yield body[-20:]

    slow = asyncio.create_task(routes.http.post("/tlog/add-checkpoint", content=stalling()))
    signed_by_both(await routes.add_checkpoint(LOG.submission(8, 20)), LOG.checkpoint(20))
    others_are_done.set()
    answer = await slow
    assert (answer.status_code, answer.text) == (409, "20\n")


async def test_a_name_or_key_that_the_node_has_another_use_for_is_refused(home: NodeHome) -> None:
    home.set("tlog", witness_name=home.record.cosigners[0].name)
    with pytest.raises(Malformed) as refusal:
        async with serving(home, companion=serve_gateway):
            pass
    assert refusal.value.code == "CONFIG"
    home.set("tlog", witness_name=NAME, witness_key="keys/log.pem")
    with pytest.raises(Malformed):
        async with serving(home, companion=serve_gateway):
            pass


@pytest.fixture
def litewitness_table() -> list[tuple[bytes, int, str]]:
    """Requests, statuses and what the answer contains, as litewitness's own test has them."""
    text = shared("vectors/litewitness-add-checkpoint.txt").read_text()
    found = re.findall(r"```\n(.*?)```\nHTTP (\d+)\n\[Asserts\]\nbody (?:contains|==) \"(.*?)\"\n", text, re.DOTALL)
    return [(body.encode(), int(status), words) for body, status, words in found]


async def test_a_witness_answers_the_table_of_litewitness_as_the_present_specification_has_it(
    tmp_path: Path, litewitness_table: list[tuple[bytes, int, str]]
) -> None:
    public = bytes.fromhex("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f")
    key = VerifierKey(SIGSUM_ORIGIN, 1, public)
    home = make_home(tmp_path / "home", 0)
    write_keys(home.directory / "keys" / "witness.pem", KEYS)
    home.set("tlog", witness=[str(key)], witness_name=NAME)
    assert len(litewitness_table) == 9
    async with (
        serving(home, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        for body, status, words in litewitness_table:
            answer = await TlogRoutes(client).add_checkpoint(body)
            if words == "unknown log":
                assert answer.status_code == 404  # 403 in litewitness; tlog-witness says 404 now
            elif words == "invalid signature":
                assert answer.status_code == 400  # its base64 has set bits after its end: not a note here
            elif status == 409:
                assert (answer.status_code, answer.text) == (409, words.replace("\\n", "\n"))
            else:
                assert answer.status_code == status, words
                assert status != 200 or f"— {NAME} " in answer.text
