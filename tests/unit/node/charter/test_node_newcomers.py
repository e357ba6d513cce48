"""Statements of identities without a seat, found among those that others write in their name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from attackers.charter import branches, copies, unsigned
from attackers.forging import RawKey
from comity.node.charter.inbox import (
    MAX_LOGGED,
    SignatureCache,
    find_inception,
    logged_rotations,
    logged_statements,
    newcomer_entries,
)
from comity.trust.charter.votes import consent
from comity.trust.identity import KeySet
from comity.trust.rotation import KeyState, Rotation, rotate
from comity.trust.statement import Entry
from support.assembly import CLASSICAL, NEWCOMER, Assembly, reseated
from support.bench import Bench
from support.world import Identity, seat, signer

WHO = seat(NEWCOMER, CLASSICAL)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    opened = Bench(tmp_path, Assembly.of(4))
    yield opened
    opened.close()


def rotation(who: Identity) -> Entry:
    state, new = KeyState.of_inception(who.inception), signer(f"{who.inception.label} after", CLASSICAL)
    change = Rotation(who.id, 1, state.digest, KeySet((new.public,), 1), ())
    return rotate(state, change, [signer(f"{who.inception.label} recovery", CLASSICAL)], [new])


def test_junk_in_one_log_hides_no_statement_of_another(bench: Bench) -> None:
    liar, honest = bench.assembly.seats[2:]
    body = reseated(bench.assembly.body, [*bench.assembly.body.members, WHO.member])
    said = [WHO.entry.line, rotation(WHO).line, consent(body, WHO.id, WHO.signer).line]
    bench.mirror(liar, [junk for line in said for number in range(200) for junk in (unsigned(line, number),)])
    bench.mirror(honest, said)
    found = find_inception(bench.ledger, WHO.id)
    assert found is not None and found[1].line == said[0]
    lines = [
        entry.line for entry in newcomer_entries(bench.ledger, WHO.id, bench.assembly.body.digest, SignatureCache())
    ]
    assert lines == said


def test_only_a_few_lines_of_each_log_are_read(bench: Bench) -> None:
    liar, honest = bench.assembly.seats[2:]
    line = rotation(WHO).line
    recovery = RawKey.of_seed(f"{WHO.inception.label} recovery ed25519")
    bench.mirror(honest, [WHO.entry.line, line, *copies(line, 2 * MAX_LOGGED)])
    bench.mirror(liar, [*branches(WHO.id, KeyState.of_inception(WHO.inception).digest, recovery, 2 * MAX_LOGGED)])
    assert 1 < len(logged_statements(bench.ledger, WHO.id, "rotated")) <= MAX_LOGGED
    chain = logged_rotations(bench.ledger, KeyState.of_inception(WHO.inception), SignatureCache())
    assert line in {step.entry.line for step in chain.steps}
