"""Grants over a real ledger: concurrent, lapsing, released, and interrupted; no instant is granted twice."""

from __future__ import annotations

from collections import Counter

from comity.rules.offers.log_reader import LocatedStatement
from comity.rules.offers.offer import SliceAllocation, Window
from comity.rules.offers.records import Acceptance, GivingBack, GrantRequest, Redemption
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.statement import Entry
from comity.wire.offer import Approve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.examples import examples
from support.offer_provider import BORROWER, DiedError, GrantingNode
from support.offers import HOUR, START, a_slice, hours

HOURS, NODES, AMOUNT = 12, 3, 40
POINTS = ("ledger.compose.before-commit", "ledger.append.grown", "ledger.compose.after-commit")

wanted = st.builds(
    lambda first, length, nodes, amount: hours(first, min(HOURS, first + length), nodes=nodes, amount=amount),
    st.integers(0, HOURS - 1),
    st.integers(1, HOURS),
    st.integers(1, NODES),
    st.integers(1, 8),
)


class Lending(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.granting = GrantingNode()
        self.versions = 0
        self.asked: list[Entry] = []
        self.grants: list[Digest] = []
        self.offer = self._post(None, NODES, AMOUNT)

    def teardown(self) -> None:
        if hasattr(self, "granting"):
            self.granting.end()

    @rule(allocations=st.lists(wanted, max_size=4), point=st.none() | st.sampled_from(POINTS))
    def ask_and_approve_at_once(self, allocations: list[SliceAllocation], point: str | None) -> None:
        """New requests, and requests that may have been answered before; the node may be killed meanwhile."""
        for allocation in allocations:
            said = GrantRequest(BORROWER, self.offer, (allocation,), len(self.asked))
            self.asked.append(self.granting.say(said))
        self.granting.deadly = point or ""
        acts = [self.granting.provider.perform(Approve(asked.digest)) for asked in self.asked[-6:]]
        done = self.granting.together(acts)
        self.granting.deadly = ""
        assert all(isinstance(each, tuple | ComityError | DiedError) for each in done), done
        if any(isinstance(each, DiedError) for each in done):
            self.granting.reopen()
        (chain,) = self.granting.read().chains.values()
        self.grants = list(chain.state.grants)

    @rule(data=st.data(), which=st.sampled_from([Acceptance, GivingBack]))
    def say(self, data: st.DataObject, which: type) -> None:
        if self.grants:
            self.granting.say(which(BORROWER, self._chain, data.draw(st.sampled_from(self.grants))))

    @rule(data=st.data(), amount=st.integers(1, 9), twice=st.booleans())
    def redeem(self, data: st.DataObject, amount: int, twice: bool) -> None:
        if self.grants:
            held = self.granting.read().chains[self._chain].state.grants[data.draw(st.sampled_from(self.grants))]
            said = self.granting.say(Redemption(BORROWER, self._chain, held.digest, (amount,), held.newest))
            self.granting.together([self.granting.provider.redeem(said.digest) for _ in range(1 + twice)])

    @rule(passed=st.integers(0, 3))
    def pass_time(self, passed: int) -> None:
        self.granting.now += passed * HOUR + 1
        self.granting.tick()

    @rule(nodes=st.integers(1, 5), amount=st.integers(20, 60))
    def supersede(self, nodes: int, amount: int) -> None:
        self.offer = self._post(self.offer, nodes, amount) or self.offer

    @invariant()
    def what_was_given_out_was_there(self) -> None:
        (chain,) = self.granting.read().chains.values()
        assert chain.fault is None
        taken: Counter[int] = Counter()
        amount = 0
        for held in chain.state.grants.values():
            (allocation,) = held.grant.allocations
            amount += held.redeemed[0] if held.state == "released" else 0
            if held.state in ("granted", "accepted"):
                amount += allocation.amount
                taken.update(dict.fromkeys(range(allocation.start, allocation.end, HOUR), allocation.nodes))
        part = chain.state.offer.slices[0]
        assert amount <= part.amount
        assert all(nodes <= part.nodes for at, nodes in taken.items() if at >= chain.state.at)
        assert len({held.grant.request for held in chain.state.grants.values()}) == len(chain.state.grants)

    @invariant()
    def statements_are_found_by_their_grant(self) -> None:
        for chain in self.granting.read().chains.values():
            expected: dict[Digest, list[LocatedStatement]] = {}
            for located in chain.statements:
                if not isinstance(located.statement, GrantRequest):
                    expected.setdefault(located.statement.grant, []).append(located)
            assert chain.by_grant == expected

    @property
    def _chain(self) -> Digest:
        return next(iter(self.granting.read().chains))

    def _post(self, before: Digest | None, nodes: int, amount: int) -> Digest:
        self.versions += 1
        offer = self.granting.offer(
            window=Window(START, START + HOURS * HOUR),
            slices=(a_slice(nodes=nodes, amount=amount),),
            accept_seconds=2 * HOUR,
            supersedes=before,
            title=f"version {self.versions}",
        )
        (result,) = self.granting.together([self.granting.provider.post(offer)])
        return offer.id if not isinstance(result, ComityError) else before or offer.id


Lending.TestCase.settings = settings(max_examples=examples(6), stateful_step_count=12, deadline=None)
TestLending = Lending.TestCase
