"""Invariant I2: two certificates for one epoch prove which members equivocated, as checked by code that shares nothing
with Comity.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import pytest
from comity.trust.charter.certificate import Certificate, certify
from comity.trust.charter.document import Body
from comity.trust.charter.votes import RoundBody
from comity.trust.encoding import Digest, sha256
from comity.trust.keys import HybridSigner
from comity.trust.statement import Entry, sign_statement
from hypothesis import given, settings, target
from hypothesis import strategies as st
from support import second_checker
from support.charters import Seated, cheaply_signed, cheaply_verifies, drafts, founded, intent, ratify, seated, votes
from support.examples import examples

ROUNDS = 5
PEOPLE = {n: [seated(f"Institute {number}") for number in range(n)] for n in (4, 5, 7, 10)}
STRANGE = sha256(b"a body that nobody has seen")


def pasts(unlock: int, body: Digest, others: Sequence[Digest]) -> list[RoundBody]:
    """The earlier RATIFY that the member may claim, if a certificate of round `unlock` lets it turn to `body`."""
    return [RoundBody(round_, past) for past in (body, *others) for round_ in range(1, unlock + 1 - (past != body))]


@st.composite
def certificates(draw: st.DrawFn, previous: Body, body: Body, others: Sequence[Digest], n: int) -> Certificate:
    """Any certificate for `body`: the INTENTs may claim any earlier RATIFY that the rules allow."""
    people, few = PEOPLE[n], previous.quorum
    rounds = sorted(draw(st.sets(st.integers(1, ROUNDS), min_size=1, max_size=3)))
    lines: list[Entry] = []
    for at, round_ in enumerate(rounds):
        for member in draw(st.permutations(people))[:few]:
            unlock = draw(st.sampled_from([None, *rounds[:at]]))
            locked = draw(st.sampled_from(pasts(unlock, body.digest, others))) if unlock else None
            lines.append(member.says(intent(previous, member.id, round_, body, last_ratified=locked, unlock=unlock)))
    for member in draw(st.permutations(people))[:few]:
        lines.append(member.says(ratify(previous, member.id, rounds[-1], body)))
    return certify(previous, body, [entry.line for entry in lines], signed=cheaply_signed)


@given(st.data())
@settings(max_examples=examples(150))
def test_two_certificates_of_one_epoch_prove_that_2q_minus_n_members_lied(data: st.DataObject) -> None:
    n = data.draw(st.sampled_from(sorted(PEOPLE)))
    previous = founded(PEOPLE[n], quorum_change=data.draw(st.integers(2 * n // 3 + 1, n)))
    one, other = drafts(previous)
    first = data.draw(certificates(previous, one, (other.digest, STRANGE), n))
    second = data.draw(certificates(previous, other, (one.digest, STRANGE), n))
    liars = second_checker.liars(previous.data, first.lines, second.lines, cheaply_verifies)
    target(-len(liars))
    assert len(liars) >= second_checker.fewest(previous.data) == 2 * previous.quorum - n
    assert liars.keys() <= {each.id for each in PEOPLE[n]}


@pytest.fixture(scope="module")
def four() -> list[Seated]:
    return [seated(f"Institute {number}", HybridSigner.generate(), HybridSigner.generate()) for number in range(4)]


def lines(*entries: Entry) -> list[bytes]:
    return [entry.line for entry in entries]


def test_a_fork_under_hybrid_keys_names_the_two_members_that_equivocated(four: list[Seated]) -> None:
    previous = founded(four)
    one, other = drafts(previous)
    first = certify(previous, one, lines(*votes(four[:3], previous, one)))
    second = certify(previous, other, lines(*votes(four[1:], previous, other, 2)))
    liars = second_checker.liars(previous.data, first.lines, second.lines)
    assert liars.keys() == {four[1].id, four[2].id}
    for one_line, other_line in liars.values():
        assert one_line in first.lines and other_line in second.lines


def test_invalid_signatures_accuse_no_member(four: list[Seated]) -> None:
    previous = founded(four)
    one, other = drafts(previous)
    said = votes(four[:3], previous, one)
    forged = [
        sign_statement(intent(previous, four[0].id, 1, other).statement(), four[3].signer).line,
        four[0].says(intent(founded(four[:3]), four[0].id, 1, other)).line,
        votes(four[1:2], previous, other)[0].line.replace(b'"sig":"', b'"sig":"AAAA'),
        b"[]",
        b"junk",
    ]
    assert second_checker.liars(previous.data, lines(*said), forged) == {}


def test_a_rotation_between_two_votes_hides_no_equivocation(four: list[Seated]) -> None:
    member = four[0]
    previous = founded(four)
    one, other = drafts(previous)
    later, rotated = member.rotated(member.seat, HybridSigner.generate(), HybridSigner.generate())
    first, second = votes([member], previous, one), votes([later], previous, other)
    assert second_checker.liars(previous.data, lines(*first), lines(*second)) == {}
    assert second_checker.liars(previous.data, lines(*first), lines(*second, rotated)).keys() == {member.id}


def test_the_second_checker_shares_no_code_with_comity() -> None:
    tree = ast.parse(Path(second_checker.__file__).read_text())
    named = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    named |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.partition(".")[0] for name in named} <= {
        *("__future__", "base64", "collections", "cryptography", "dataclasses", "hashlib", "itertools", "json"),
        "typing",
    }
