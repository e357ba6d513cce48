"""A node as a mirror of logs that are pushed to it (C2SP tlog-mirror): it signs only what it holds and what
is proven.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from comity.gateway.app import serve_gateway
from comity.rules.witness import AddCheckpoint, MirrorInfo, MirrorUpload, parse_signatures
from comity.trust.encoding import sha256
from comity.trust.statement import SideObject, Statement, Subject, sign_statement
from comity.trust.tlog.note import SignedNote, verify_cosignature
from support.federation import NodeHome, found, introduced, make_home, note_of, serving, until
from support.logs import AUTHOR, PUBLISHER
from support.outside import OutsideLog, TlogRoutes, read_log, vkeys
from support.waiting import PATIENCE

LOG = OutsideLog("outside.example/log").grow(700)
FORK = OutsideLog(LOG.origin, LOG.key).grow(256).grow(700, b"another")


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    home = make_home(tmp_path / "home", 0)
    home.set("tlog", mirror=vkeys([LOG]))
    home.set("replication", first_answer_seconds=0)
    return home


@pytest.fixture
async def routes(home: NodeHome) -> AsyncIterator[TlogRoutes]:
    async with (
        serving(home, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        yield TlogRoutes(client)


async def submit(routes: TlogRoutes, old: int, size: int, log: OutsideLog = LOG) -> None:
    answer = await routes.add_checkpoint(log.submission(old, size))
    assert (answer.status_code, answer.content) == (200, b""), answer.text  # the mirror's key signs what it holds only


def cosigned(home: NodeHome, answer: httpx2.Response, size: int, log: OutsideLog = LOG) -> None:
    assert answer.status_code == 200, answer.text
    lines = parse_signatures(answer.content)
    for key in home.record.cosigners:
        (line,) = (line for line in lines if line.by(key))
        assert verify_cosignature(line, key, log.checkpoint(size)) > 0


def stands(answer: httpx2.Response, status: int, pending: int, next_entry: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "text/x.tlog.mirror-info"
    assert MirrorInfo.parse(answer.content) == MirrorInfo(pending, next_entry)


@pytest.mark.parametrize("packed", [False, True])
async def test_a_log_is_pushed_signed_and_served(routes: TlogRoutes, home: NodeHome, packed: bool) -> None:
    await submit(routes, 0, 600)
    assert (await routes.get(f"{LOG.prefix}/checkpoint")).status_code == 404
    answer = await routes.add_entries(LOG.upload(0, 600), packed=packed)
    assert answer.headers["Accept-Encoding"] == "gzip"
    cosigned(home, answer, 600)
    checkpoint, entries = await read_log(routes, LOG.prefix, LOG.verifier)
    assert (checkpoint.size, entries) == (600, LOG.entries[:600])


async def test_a_mirror_grows_from_any_size_to_any_larger_one(routes: TlogRoutes, home: NodeHome) -> None:
    sizes = [0, 1, 2, 255, 256, 257, 512, 700]
    for old, size in itertools.pairwise(sizes):
        await submit(routes, old, size)
        cosigned(home, await routes.add_entries(LOG.upload(old, size)), size)
    assert (await read_log(routes, LOG.prefix, LOG.verifier))[1] == LOG.entries


async def test_entries_that_are_here_already_may_be_uploaded_again(routes: TlogRoutes, home: NodeHome) -> None:
    await submit(routes, 0, 300)
    cosigned(home, await routes.add_entries(LOG.upload(0, 300)), 300)
    await submit(routes, 300, 310)
    cosigned(home, await routes.add_entries(LOG.upload(290, 310)), 310)
    cosigned(home, await routes.add_entries(LOG.upload(310, 310)), 310)
    assert (await read_log(routes, LOG.prefix, LOG.verifier))[1] == LOG.entries[:310]


async def test_a_body_that_ends_early_continues_where_it_ended(routes: TlogRoutes, home: NodeHome) -> None:
    await submit(routes, 0, 700)
    stands(await routes.add_entries(LOG.upload(0, 700, packages=1)), 202, 700, 256)
    stands(await routes.add_entries(LOG.upload(256, 700)[:-1]), 202, 700, 512)
    cosigned(home, await routes.add_entries(LOG.upload(512, 700)), 700)


@pytest.mark.parametrize("cut", [0, 1, 20, 40, 45, 300, 2_000])
async def test_a_body_without_one_whole_package_is_a_bad_request(routes: TlogRoutes, cut: int) -> None:
    await submit(routes, 0, 700)
    assert (await routes.add_entries(LOG.upload(0, 700)[:cut])).status_code == 400


async def test_an_upload_outlives_a_log_that_grows(routes: TlogRoutes, home: NodeHome) -> None:
    await submit(routes, 0, 300)
    stands(await routes.add_entries(LOG.upload(0, 300, packages=1)), 202, 300, 256)
    await submit(routes, 300, 600)
    cosigned(home, await routes.add_entries(LOG.upload(256, 300)), 300)
    cosigned(home, await routes.add_entries(LOG.upload(300, 600)), 600)


async def test_an_upload_at_another_position_is_answered_with_the_pending_one(
    routes: TlogRoutes, home: NodeHome
) -> None:
    await submit(routes, 0, 600)
    for start, end in ((0, 0), (0, 599), (1, 600), (257, 700)):
        stands(await routes.add_entries(LOG.upload(start, end)), 409, 600, 0)
    cosigned(home, await routes.add_entries(LOG.upload(0, 600)), 600)
    stands(await routes.add_entries(LOG.upload(0, 0)), 409, 600, 600)


async def test_entries_that_are_not_in_the_checkpoint_are_unprocessable(routes: TlogRoutes, home: NodeHome) -> None:
    await submit(routes, 0, 600)
    other = OutsideLog(LOG.origin).grow(600, b"another")
    assert (await routes.add_entries(other.upload(0, 600))).status_code == 422
    half = LOG.upload(0, 600, packages=1) + FORK.upload(256, 600)[len(MirrorUpload(LOG.origin, 256, 600).encode()) :]
    assert (await routes.add_entries(half)).status_code == 422
    stands(await routes.add_entries(LOG.upload(0, 0)), 409, 600, 256)
    cosigned(home, await routes.add_entries(LOG.upload(256, 600)), 600)


async def test_entries_before_any_checkpoint_and_of_other_logs_are_refused(routes: TlogRoutes, home: NodeHome) -> None:
    assert (await routes.add_entries(LOG.upload(0, 10))).status_code == 422
    assert (await routes.add_entries(OutsideLog("stranger.example/log").grow(3).upload(0, 3))).status_code == 404
    own = MirrorUpload(home.origin, 0, 0).encode()
    assert (await routes.add_entries(own)).status_code == 404


async def test_many_callers_may_push_one_log_and_a_stalled_one_delays_no_other(
    routes: TlogRoutes, home: NodeHome
) -> None:
    await submit(routes, 0, 700)
    body, go = LOG.upload(0, 700), asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield body[:4_000]
        await go.wait()
        yield body[4_000:]

    stalled = asyncio.create_task(routes.http.post("/tlog/add-entries", content=stalling()))
    for answer in await asyncio.gather(*(routes.add_entries(LOG.upload(0, 700)) for _ in range(4))):
        cosigned(home, answer, 700)
    go.set()
    cosigned(home, await stalled, 700)
    assert (await read_log(routes, LOG.prefix, LOG.verifier))[1] == LOG.entries


async def test_uploaded_entries_survive_a_restart_of_the_node(home: NodeHome) -> None:
    async with (
        serving(home, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        await submit(TlogRoutes(client), 0, 600)
        stands(await TlogRoutes(client).add_entries(LOG.upload(0, 600, packages=1)), 202, 600, 256)
    async with (
        serving(home, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        cosigned(home, await TlogRoutes(client).add_entries(LOG.upload(256, 600)), 600)


async def test_a_statement_without_its_side_objects_is_not_signed(home: NodeHome) -> None:
    item = SideObject(sha256(b"a document"), 10)
    statement = Statement("vouched", (Subject("a", sha256(b"a")),), AUTHOR, {}, objects=(item,))
    log = OutsideLog("members.example/log")
    log.append(sign_statement(statement, PUBLISHER).line)
    home.set("tlog", mirror=vkeys([log]))
    async with (
        serving(home, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        await submit(TlogRoutes(client), 0, 1, log)
        answer = await TlogRoutes(client).add_entries(log.upload(0, 1))
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (503, "SIDE-OBJECT")
        assert (await TlogRoutes(client).get(f"{log.prefix}/checkpoint")).status_code == 404


async def test_beyond_its_quota_a_log_is_not_mirrored(home: NodeHome) -> None:
    home.set("limits", entries_per_origin=300)
    async with (
        serving(home, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        await submit(TlogRoutes(client), 0, 600)
        answer = await TlogRoutes(client).add_entries(LOG.upload(0, 600))
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (507, "QUOTA")


async def test_a_packing_that_is_unknown_or_broken_is_refused(routes: TlogRoutes) -> None:
    await submit(routes, 0, 300)
    for coding, body in (("br", b"x"), ("gzip", b"no gzip"), ("gzip", b"\x1f\x8b\x08\x00" + b"\xff" * 40)):
        headers = {"Content-Encoding": coding}
        assert (await routes.http.post("/tlog/add-entries", content=body, headers=headers)).status_code == 400


async def test_an_upload_that_claims_more_than_there_can_be_is_refused(routes: TlogRoutes) -> None:
    name = LOG.origin.encode()
    head = struct.pack(">H", len(name)) + name
    for start, end in ((2**64 - 1, 2**64 - 1), (0, 2**63), (5, 4)):
        assert (await routes.add_entries(head + struct.pack(">QQH", start, end, 0))).status_code == 400


async def test_two_keys_of_one_origin_are_two_logs(home: NodeHome) -> None:
    rival = OutsideLog(LOG.origin).grow(20, b"another")
    home.set("tlog", mirror=vkeys([LOG, rival]))
    async with (
        serving(home, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        for log, size in ((LOG, 10), (rival, 20)):
            await submit(TlogRoutes(client), 0, size, log)
            cosigned(home, await TlogRoutes(client).add_entries(log.upload(0, size)), size, log)
        assert (await read_log(TlogRoutes(client), LOG.prefix, LOG.verifier))[1] == LOG.entries[:10]
        for log, size in ((LOG, 10), (rival, 20)):
            prefix = sha256(str(log.verifier).encode())
            assert (await read_log(TlogRoutes(client), prefix, log.verifier))[1] == log.entries[:size]
        listed = {log["vkey"]: log["prefix"] for log in (await client.get("/tlog")).json()["logs"]}
    assert listed[str(LOG.verifier)] == f"/tlog/{LOG.prefix}"
    assert listed[str(rival.verifier)] == f"/tlog/{sha256(str(rival.verifier).encode())}"


@pytest.mark.slow
async def test_anyone_may_push_a_members_log_to_a_node_that_cannot_reach_it(tmp_path: Path) -> None:
    founded = found(tmp_path, 2)
    first, second = founded.homes
    async with (
        serving(first, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        await introduced(first)
        log = OutsideLog(first.origin)
        checkpoint, entries = await read_log(TlogRoutes(client), log.prefix, first.record.log)
        note = SignedNote.parse((await TlogRoutes(client).get(f"{log.prefix}/checkpoint")).content)
    for entry in entries:
        log.append(entry)
    async with (
        serving(second, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
    ):
        submission = AddCheckpoint(0, (), note).encode()
        assert (await TlogRoutes(client).add_checkpoint(submission)).status_code == 200
        answer = await signed(TlogRoutes(client), log.upload(0, checkpoint.size))
        lines = parse_signatures(answer.content)
        assert {key for key in second.record.cosigners for line in lines if line.by(key)} == set(
            second.record.cosigners
        )
        async with second.client() as node:
            carried = await note_of(node, first.origin)
    assert carried is not None and set(lines) <= set(carried.signatures)


async def signed(routes: TlogRoutes, body: bytes) -> httpx2.Response:
    """The answer to an upload, once peers have signed."""
    answers: list[httpx2.Response] = []

    async def done() -> bool:
        answers.append(await routes.add_entries(body))
        return answers[-1].status_code == 200

    await until(done, what="the node to sign")
    return answers[-1]
