"""Honest votes while strangers and one member with all its keys flood the logs: every honest node computes the same
epoch, in whatever order the logs grow.

The honest votes are such that a flood could harm them: one of them depends on a vote of the hostile member, which it
publishes only after it has exceeded its share many times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
from attackers.charter import branches, contradictions, copies, draft, unsigned
from attackers.forging import Holder, RawKey
from comity.node.charter import inbox as inbox_module
from comity.trust.charter.document import Body
from comity.trust.statement import Entry
from hypothesis import event, given, settings
from hypothesis import strategies as st
from support.assembly import Assembly, change
from support.bench import Bench
from support.world import Identity

SMALL = {"HOME_LOG": 20, "OTHER_LOG": 6}
"""Statements that a share allows: small, so that small floods exceed it."""


def raw_key(who: Identity, name: str = "first") -> RawKey:
    """The key of a member of `support.world`, for use by an attacker."""
    return RawKey.of_seed(f"{who.inception.label} {name} ed25519")


@dataclass(frozen=True)
class FloodedVotes:
    """All lines of one example: honest lines by the member that logs them, in order; the vote that is needed; and the
    flood.
    """

    assembly: Assembly
    body: Body
    honest: dict[Identity, tuple[bytes, ...]]
    needed: bytes
    flood: tuple[bytes, ...]

    @property
    def hostile(self) -> Identity:
        return self.assembly.seats[3]


@cache
def flooded() -> FloodedVotes:
    assembly = Assembly.of(4)
    first, second, third, hostile = assembly.seats
    body, rival = change(assembly.body, 1), change(assembly.body, 2)
    assembly.put(body, first)
    drafted = assembly.lines[-1]
    assembly.put(rival, third)
    other = assembly.lines[-1]
    needed = assembly.intent(hostile, body, 7)
    said = {
        first: [drafted, assembly.intent(first, body, 7), assembly.ratify(first, body, 7)],
        second: [assembly.intent(second, body, 7)],
        third: [other, assembly.intent(third, rival, 7)],
    }
    said[first].append(assembly.intent(first, body, 8, last=(7, body), unlock=7))
    for who in (second, third):
        said[who].append(assembly.intent(who, body, 8))
    for who in (first, second, third):
        said[who].append(assembly.ratify(who, body, 8))
    honest = {who: tuple(entry.line for entry in entries) for who, entries in said.items()}
    return FloodedVotes(assembly, body, honest, needed.line, tuple(_flood(assembly, hostile, [body, rival], said)))


def _flood(
    assembly: Assembly, hostile: Identity, bodies: Sequence[Body], said: dict[Identity, list[Entry]]
) -> list[bytes]:
    author = Holder({"identity": hostile.id}, (raw_key(hostile),))
    genesis = assembly.body
    public = [entry.line for entries in said.values() for entry in entries]
    lines = [*contradictions(author, genesis.digest, 1, [body.digest for body in bodies], range(9, 25))]
    lines += [draft(author, genesis.federation, genesis.digest, bodies[0].data, str(number)) for number in range(40)]
    lines += [copy for line in public for copy in copies(line, 3)]
    lines += [unsigned(line, number) for line in public for number in range(3)]
    recovery = raw_key(hostile, "recovery")
    lines += [*branches(hostile.id, hostile.member.key_state.digest, recovery, 20)]
    return [*lines, b"no statement at all", b"{}"]


def grow(drawn: Random, told: FloodedVotes, me: Identity) -> list[tuple[Identity, list[bytes]]]:
    """The logs of all members, each cut into a few segments, which arrive in any order; segments of one log in their
    own order.
    """
    logs: dict[Identity, list[bytes]] = {}
    for who, lines in told.honest.items():
        logs[who] = list(lines)
        for line in drawn.sample(
            told.flood[:160], drawn.randrange(40)
        ):  # statements that anyone may submit at an honest node
            logs[who].insert(drawn.randrange(len(logs[who]) + 1), line)
    flood = list(told.flood)
    drawn.shuffle(flood)
    logs[told.hostile] = [*flood, told.needed, *drawn.sample(flood, 20)]
    steps: list[tuple[Identity, list[bytes]]] = []
    for who, log in logs.items():
        cuts = sorted(drawn.sample(range(len(log)), min(len(log) - 1, drawn.randrange(1, 4))))
        steps += [(who, log[start:end]) for start, end in zip([0, *cuts], [*cuts, len(log)], strict=True)]
    order = [who for who, _ in steps]
    drawn.shuffle(order)
    queues = {who: [part for owner, part in steps if owner == who] for who in logs}
    return [(who, queues[who].pop(0)) for who in order]


async def follows(
    folder: Path, told: FloodedVotes, me: Identity, steps: Sequence[tuple[Identity, list[bytes]]]
) -> Bench:
    bench = Bench(folder, told.assembly, me=me, nodes=True)
    for body in told.assembly.bodies.values():
        bench.store.put(Body.parse(body).digest, body)
    for who, lines in steps:
        if who is me:
            bench.ledger.logs.append(str(bench.me.record.log), [line for line in lines if line.startswith(b'{"p')])
        else:
            bench.mirror(who, lines)
        await bench.follower.step()
    await bench.settle()
    return bench


@pytest.mark.slow
@settings(max_examples=4, deadline=None)
@given(st.randoms(use_true_random=False))
def test_honest_votes_come_out_the_same_at_every_honest_node(drawn: Random) -> None:
    told = flooded()
    small = {name: replace(getattr(inbox_module, name), statements=most) for name, most in SMALL.items()}
    with (
        TemporaryDirectory() as folder,
        mock.patch.multiple(inbox_module, **small),
        mock.patch.object(inbox_module, "WINDOW", 16),
    ):
        epochs = []
        for number, me in enumerate(told.assembly.seats[:3]):
            steps = grow(drawn, told, me)
            bench = asyncio.run(follows(Path(folder) / str(number), told, me, steps))
            kept = bench.follower.vote_reader.inbox(told.assembly.body.digest)
            event(f"passed over: {bool(kept.full())}")
            epochs.append(bench.follower.epoch_store.newest.digest)
            assert len(kept.entries) <= 4 * (SMALL["HOME_LOG"] + 3 * SMALL["OTHER_LOG"]) + 20
            assert not bench.follower.findings.stopped
            bench.close()
        assert epochs == [told.body.digest] * 3
