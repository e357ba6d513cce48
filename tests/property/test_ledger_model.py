"""A ledger behaves like a Merkle tree in memory, for any operations in any order."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

import pytest
from comity.ledger.entry_index import EntryPosition, EntryQuery
from comity.ledger.ledger import Ledger
from comity.rules.tree_proofs import MemoryTree
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError
from comity.trust.tlog.merkle import leaf_hash, verify_consistency, verify_inclusion
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.examples import examples
from support.logs import LogKeys, statement_lines

OWN = LogKeys.generate("own.example/log")
FAR = LogKeys.generate("far.example/log")


@functools.cache
def all_lines() -> list[bytes]:
    return statement_lines(0, 1200)


steps = st.one_of(st.integers(0, 3), st.integers(0, 300))


class LedgerMachine(RuleBasedStateMachine):
    """One own log and one mirrored log, each compared with its model; `all_lines` has all lines of both."""

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.ledger = Ledger.open(self.folder, lambda: 1_000)
        self.ledger.logs.create(OWN.origin, OWN.vkey, own=True)
        self.ledger.logs.create(FAR.origin, FAR.vkey)
        self.models = {OWN: MemoryTree(), FAR: MemoryTree()}
        self.roots = {log: [model.root()] for log, model in self.models.items()}
        self.staged = 0

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            shutil.rmtree(self.folder)

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = Ledger.open(self.folder, lambda: 1_000)

    @rule(count=steps)
    def append(self, count: int) -> None:
        start = self.models[OWN].size
        lines = all_lines()[start : start + count]
        assert self.ledger.logs.append(OWN.origin, lines) == list(range(start, start + len(lines)))
        self.grow(OWN, lines)

    @rule()
    def sign(self) -> None:
        self.ledger.logs.set_note(OWN.origin, OWN.note(self.models[OWN].size, self.models[OWN].root()))

    @rule(back=st.integers(0, 300), count=steps, good=st.booleans())
    def stage(self, back: int, count: int, good: bool) -> None:
        start = max(self.models[FAR].size, self.staged - back)
        lines = all_lines()[start : start + count] if good else [b"forged"] * count
        root = self.ledger.logs.stage(FAR.origin, start, lines)
        self.staged = start + len(lines)
        if good and start == self.models[FAR].size:
            assert root == MemoryTree(map(leaf_hash, all_lines()[: self.staged])).root()

    @rule(count=steps)
    def advance(self, count: int) -> None:
        start = self.models[FAR].size
        lines = all_lines()[start : start + count]
        note = FAR.note_over(all_lines()[: start + len(lines)])
        self.ledger.logs.advance(FAR.origin, start, lines, note)
        self.grow(FAR, lines)
        self.staged = start + len(lines)

    @precondition(lambda self: self.staged > self.models[FAR].size)
    @rule()
    def advance_over_what_is_staged(self) -> None:
        """Succeeds exactly if everything that is staged is valid."""
        before = self.models[FAR].size
        note = FAR.note_over(all_lines()[: self.staged])
        try:
            self.ledger.logs.advance(FAR.origin, self.staged, [], note)
        except ComityError as error:
            assert error.code == "ROOT-MISMATCH"
            self.staged = before
        else:
            self.grow(FAR, all_lines()[before : self.staged])

    @rule(shift=st.integers(1, 5))
    def a_second_history_is_refused(self, shift: int) -> None:
        size = self.models[FAR].size
        forged = FAR.note(size + shift, bytes(32))
        with pytest.raises(ComityError):
            self.ledger.logs.advance(FAR.origin, size, [b"forged"] * shift, forged)
        self.staged = size
        with pytest.raises(ComityError):
            self.ledger.logs.set_note(FAR.origin, forged)

    def grow(self, log: LogKeys, lines: list[bytes]) -> None:
        for line in lines:
            self.models[log].append(leaf_hash(line))
            self.roots[log].append(self.models[log].root())

    @invariant()
    def state_is_that_of_the_model(self) -> None:
        for log, model in self.models.items():
            state = self.ledger.logs.get(log.origin)
            assert (state.size, state.root) == (model.size, model.root())
        assert self.ledger.logs.get(FAR.origin).staged == self.staged

    @rule(data=st.data())
    def proofs_verify(self, data: st.DataObject) -> None:
        log = data.draw(st.sampled_from(list(self.models)))
        size = data.draw(st.integers(0, self.models[log].size))
        old = data.draw(st.integers(0, size))
        root = self.roots[log][size]
        assert self.ledger.history.root(log.origin, size) == root
        growth = self.ledger.history.consistency(log.origin, old, size)
        verify_consistency(old, self.roots[log][old], size, root, growth)
        if size:
            index = data.draw(st.integers(0, size - 1))
            line = self.ledger.history.entry(log.origin, index)
            assert line == all_lines()[index]
            proof = self.ledger.history.inclusion(log.origin, index, size)
            verify_inclusion(leaf_hash(line), index, size, proof, root)
            assert EntryPosition(log.origin, log.vkey, index) in self.ledger.index.positions(sha256(line))

    @rule()
    def everything_is_sound_and_nothing_else_is_found(self) -> None:
        for log, model in self.models.items():
            self.ledger.history.verify_all(log.origin)
            wanted = all_lines()[: model.size][:1000] if log == OWN else []  # of a mirrored log, what the intake proves
            found = self.ledger.index.find(EntryQuery(origin=log.origin), limit=1000)
            assert [entry.line for entry in found] == wanted


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=examples(30), stateful_step_count=25, deadline=None)
