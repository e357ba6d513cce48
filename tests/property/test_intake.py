"""Arbitrary lines of any authors, in any logs and in any order: all nodes end with equal tables, which hold exactly
what the lines prove.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from comity.ledger.ledger import Ledger
from comity.node.intake import LineProver
from comity.rules.signing import sign_content
from comity.trust.copies import HeldArtifact
from comity.trust.encoding import sha256
from comity.trust.keys import HybridSigner
from comity.trust.names import Name
from comity.trust.statement import (
    Author,
    Entry,
    EnvelopeSignature,
    SideObject,
    Statement,
    Subject,
    parse_entry,
    sign_statement,
)
from comity.trust.statements import Advisory, Licence, Published
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.examples import examples
from support.logs import LogKeys
from support.rotations import CLASSICAL, Owned, of
from support.tables import parked, tables
from support.world import Identity, identity, node, signer

LOGS = [LogKeys.generate(f"log-{number}.example/log") for number in range(3)]
PEOPLE = [identity(f"person {number}", algs=CLASSICAL) for number in range(3)]
NODES = [node(person, f"node-{number}.example", CLASSICAL) for number, person in enumerate(PEOPLE)]
STRANGER = signer("stranger", CLASSICAL)
ARTIFACTS = [SideObject(sha256(b"artifact %d" % number), 100) for number in range(3)]
MODEL = sha256(b"a model")
PIECES = SideObject(sha256(b"pieces"), 1)


def ways(person: Identity) -> tuple[tuple[Owned, ...], tuple[Entry, ...]]:
    """The states of an identity, one of them disputed, and the rotations that lead there."""
    start = of(person)
    name = person.inception.label
    first, to_first = start.to(f"{name} first")
    other, to_other = start.to(f"{name} other")
    second, to_second = first.to(f"{name} second")
    return (start, first, other, second), (to_first, to_other, to_second)


WAYS = [ways(person) for person in PEOPLE]


def said(who: int, artifact: SideObject, name: str, version: str, keys: Sequence[HybridSigner]) -> Entry:
    published = Published(
        PEOPLE[who].id, Name("acme", name, version), artifact.digest, artifact, PIECES, Licence("MIT")
    )
    return sign_content(published, *keys)


def padded(entry: Entry) -> bytes:
    """The same statement with one additional signature by an unlisted key."""
    more = EnvelopeSignature(STRANGER.keys[0].public.id, bytes(64))
    signatures = tuple(sorted((*entry.envelope.signatures, more), key=lambda signature: signature.keyid))
    return replace(entry.envelope, signatures=signatures).encode()


def broken(entry: Entry) -> bytes:
    """The same statement with an invalid signature."""
    first, *others = entry.envelope.signatures
    other = replace(first, sig=bytes([first.sig[0] ^ 1]) + first.sig[1:])
    return replace(entry.envelope, signatures=(other, *others)).encode()


@dataclass(frozen=True)
class Case:
    """A line, and what has to be proven before it: `who` is its author, with the keys after these rotations, or as a
    node.
    """

    line: bytes
    statement: str
    who: int
    needs: str
    """`nothing`, `keys`, `node`, or `never`."""
    after: tuple[Entry, ...] = ()

    def spoilt(self, line: bytes) -> Case:
        return replace(self, line=line, needs="never")


@functools.cache
def cases(who: int) -> tuple[Case, ...]:
    """All lines of one identity and its node."""
    states, (to_first, to_other, to_second) = WAYS[who]
    person, mine, by = PEOPLE[who], NODES[who], Author("identity", PEOPLE[who].id)
    rotations = ((to_first, ()), (to_other, ()), (to_second, (to_first,)))
    paths = ((), (to_first,), (to_other,), (to_first, to_second))
    found = [_case(person.entry, who, "nothing")]
    found += [_case(entry, who, "keys", before) for entry, before in rotations]
    for state, path in zip(states, paths, strict=True):
        entries = [
            *(said(who, item, name, "v1", state.keys) for item in ARTIFACTS for name in ("tiny", "Tiny")),
            sign_content(mine.record, *state.keys, *mine.bound),
            sign_content(Advisory(by, ARTIFACTS[0].digest, "yank", "low", ""), *state.keys),
            sign_statement(Statement("unheard-of", (Subject("", MODEL),), by, {}), *state.keys),
        ]
        found += [_case(entry, who, "keys", path) for entry in entries]
    holds = [sign_content(HeldArtifact(mine.record.node, item, PIECES), mine.online) for item in ARTIFACTS]
    found += [_case(entry, who, "node") for entry in holds]
    worthless = [
        said(who, ARTIFACTS[0], "tiny", "v1", (STRANGER,)),
        sign_content(HeldArtifact(mine.record.node, ARTIFACTS[0], PIECES), STRANGER),
        *(sign_statement(Statement(what, (Subject("", MODEL),), mine.record.node, {}), mine.online) for what in WRONG),
    ]
    found += [_case(entry, who, "never") for entry in worthless]
    return tuple(found)


WRONG = ("draft", "hold")
"""Statements that no node may make, and one that is no hold."""


def _case(entry: Entry, who: int, needs: str, after: tuple[Entry, ...] = ()) -> Case:
    return Case(entry.line, entry.statement_digest, who, needs, after)


@st.composite
def lines(draw: st.DrawFn) -> Case:
    case = draw(st.sampled_from(cases(draw(st.integers(0, len(PEOPLE) - 1)))))
    entry = parse_entry(case.line)
    spoilt = [case.spoilt(line) for line in (padded(entry), broken(entry), b"junk")]
    return draw(st.sampled_from([case, case, case, *spoilt]))


def provable(logs: Sequence[Sequence[Case]]) -> set[tuple[object, ...]]:
    """The model: statement, log and index of the first valid copy in each log, computed by repetition until nothing
    more is proven.
    """
    good: set[str] = set()
    while more := {case.statement for log in logs for case in log if case.statement not in good and _good(case, good)}:
        good |= more
    first: dict[tuple[int, str], int] = {}
    for number, log in enumerate(logs):
        for index, case in enumerate(log):
            if _good(case, good):
                first.setdefault((number, case.statement), index)
    return {(statement, LOGS[number].vkey, index) for (number, statement), index in first.items()}


def _good(case: Case, good: set[str]) -> bool:
    if case.needs == "nothing":
        return True
    if case.needs == "node":
        return NODES[case.who].entry.statement_digest in good
    known = PEOPLE[case.who].entry.statement_digest in good
    return case.needs == "keys" and known and all(step.statement_digest in good for step in case.after)


class Node:
    """A ledger and its intake. It has a prefix of each log."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.had = [0] * len(LOGS)
        self.open()
        for log in LOGS:
            self.ledger.logs.create(log.origin, log.vkey)

    def open(self) -> None:
        self.ledger = Ledger.open(self.folder, lambda: 1_000)
        self.prover = LineProver(self.ledger, lambda who: ())

    def close(self) -> None:
        self.ledger.close()
        shutil.rmtree(self.folder)

    def take(self, number: int, lines: Sequence[bytes]) -> None:
        log, had = LOGS[number], self.had[number]
        if len(lines) > had:
            self.ledger.logs.advance(log.vkey, had, lines[had:], log.note_over(lines))
            self.had[number] = len(lines)


class IntakeMachine(RuleBasedStateMachine):
    """Two nodes that follow the same logs, each in its own order and its own time."""

    @initialize()
    def begin(self) -> None:
        self.logs: list[list[Case]] = [[] for _ in LOGS]
        self.nodes = [Node(), Node()]

    def teardown(self) -> None:
        for each in getattr(self, "nodes", ()):
            each.close()

    @rule(number=st.integers(0, len(LOGS) - 1), more=st.lists(lines(), min_size=1, max_size=4))
    def say(self, number: int, more: list[Case]) -> None:
        self.logs[number] += more

    @rule(which=st.integers(0, 1), number=st.integers(0, len(LOGS) - 1), back=st.integers(0, 3))
    def follow(self, which: int, number: int, back: int) -> None:
        lines = self.logs[number]
        self.nodes[which].take(number, [case.line for case in lines[: len(lines) - back]])

    @rule(which=st.integers(0, 1), number=st.integers(0, len(LOGS) - 1))
    def step(self, which: int, number: int) -> None:
        self.nodes[which].prover.step(LOGS[number].vkey)

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        self.nodes[which].ledger.close()
        self.nodes[which].open()

    @rule()
    def all_is_followed(self) -> None:
        for each in self.nodes:
            for number, lines in enumerate(self.logs):
                each.take(number, [case.line for case in lines])
            each.prover.finish_all()
        one, other = self.nodes
        assert tables(one.ledger) == tables(other.ledger)
        assert parked(one.ledger) == parked(other.ledger)
        assert {row[:1] + row[3:] for row in tables(one.ledger)["statements"]} == provable(self.logs)

    @invariant()
    def nothing_is_proven_that_cannot_be(self) -> None:
        possible = {statement for statement, _, _ in provable(getattr(self, "logs", []))}
        for each in getattr(self, "nodes", ()):
            assert {row[0] for row in tables(each.ledger)["statements"]} <= possible


TestIntake = IntakeMachine.TestCase
TestIntake.settings = settings(max_examples=examples(15), stateful_step_count=20, deadline=None)
