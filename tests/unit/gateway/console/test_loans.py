"""Who lends to whom: the state of a loan, and that logs take turns."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest
from comity.gateway.console import loans as loans_module
from comity.gateway.console.languages import LANGUAGES
from comity.gateway.console.loans import LoanBoard, Loans, LoanState, LoanView, read_loans
from comity.gateway.console.offers import OfferPage
from comity.gateway.console.words import environment
from comity.node.offers.index import ChainKey, OfferIndex
from comity.rules.offers.log_reader import ChainFault, OfferChain
from comity.rules.offers.records import Acceptance, Accepted, CutOff, Lapsed, Redeemed, Redemption, Released
from comity.trust.encoding import Digest, sha256
from comity.trust.statement import Entry
from comity.trust.tlog.note import log_verifier_key
from support.console import HOSTILE, ReadPage, check_page
from support.offers import GRANTEE, HOUR, LOG, LOG_KEY, PROVIDER, START, Written, hours, to

DAY = 24 * HOUR
STATES = get_args(LoanState)


class Chains:
    """An index of chains, each with its log; `asked` counts what was read."""

    def __init__(self, *chains: tuple[str, OfferChain]) -> None:
        self.asked = 0
        self._chains = [((number, chain.state.chain, log), chain) for number, (log, chain) in enumerate(chains)]

    def chains_after(self, key: ChainKey | None, most: int) -> list[tuple[ChainKey, OfferChain]]:
        self.asked += 1
        return [found for found in self._chains if key is None or found[0] > key][:most]


def accepted(log: Written, chain: Digest, grant: Entry) -> None:
    said = log.say(Acceptance(GRANTEE, chain, grant.digest))
    log.record(Accepted(to(chain), grant.digest, said.digest), at=START)


async def shown(log: Written, chain: Digest, now: int, *, closed: bool = False) -> Loans:
    index = Chains((str(LOG), log.chain(chain)))
    return await read_loans(cast(OfferIndex, index), now, closed=closed)


async def states(log: Written, chain: Digest, now: int, *, closed: bool = False) -> list[str]:
    return [loan.state for loan in (await shown(log, chain, now, closed=closed)).listed]


async def test_a_loan_names_its_parties_its_machines_and_its_dates() -> None:
    log = Written()
    chain = log.post()
    accepted(log, chain, log.grant(chain, hours(24, 48, nodes=2, amount=16)))
    (loan,) = (await shown(log, chain, START)).listed
    assert (loan.lender, loan.borrower, loan.pact) == (PROVIDER, GRANTEE, False)
    assert (loan.start, loan.end, loan.granted) == (START + DAY, START + 2 * DAY, START)
    (part,) = loan.parts
    assert part.slice is not None
    assert (part.slice.accelerator, part.allocation.nodes, part.allocation.amount, part.used) == ("H100", 2, 16, 0)
    assert log.entries[loan.index].statement.predicate == "grant"


async def test_the_state_of_a_grant_follows_its_records_and_the_time() -> None:
    log = Written()
    chain = log.post()
    grant = log.grant(chain, hours(24, 48))
    assert await states(log, chain, START) == ["waits"]
    assert await states(log, chain, START + DAY + 1) == ["lapsed"], "nobody has recorded yet that it lapsed"
    accepted(log, chain, grant)
    assert await states(log, chain, START) == ["later"]
    assert await states(log, chain, START + DAY) == ["running"]
    assert await states(log, chain, START + 2 * DAY) == ["ended"]
    log.record(Released(to(chain), grant.digest), at=START + 2 * DAY)
    assert await states(log, chain, START + 2 * DAY) == []
    assert await states(log, chain, START + 2 * DAY, closed=True) == ["released"]


async def test_a_grant_that_lapsed_is_over() -> None:
    log = Written()
    chain = log.post()
    grant = log.grant(chain, hours(24, 48))
    log.record(Lapsed(to(chain), grant.digest), at=START + DAY + 1)
    assert await states(log, chain, START + DAY + 1) == []
    assert await states(log, chain, START + DAY + 1, closed=True) == ["lapsed"]


async def test_a_pact_is_reserved_until_its_beneficiary_calls_it() -> None:
    log = Written()
    chain = log.post()
    pact = log.grant(chain, hours(0, 48, amount=8), pact=True)
    accepted(log, chain, pact)
    assert await states(log, chain, START + HOUR) == ["reserved"]
    cut_off = log.say(CutOff(GRANTEE, chain, pact.digest, False))
    newest = log.chain(chain).state.grants[pact.digest].newest
    asked = log.say(Redemption(GRANTEE, chain, pact.digest, (3,), newest))
    log.record(Redeemed(to(chain), pact.digest, asked.digest, (3,), cut_off.digest), at=START + HOUR)
    (loan,) = (await shown(log, chain, START + HOUR)).listed
    assert (loan.state, loan.pact, loan.parts[0].used) == ("running", True, 3)


async def test_a_lender_at_fault_and_a_log_that_is_not_read_completely_are_named() -> None:
    log = Written()
    chain = log.post()
    accepted(log, chain, log.grant(chain, hours(0, 48)))
    log.chain(chain).doubtful = True
    assert await states(log, chain, START + HOUR) == ["unknown"]
    log.chain(chain).fault = ChainFault("overbooked", 9, sha256(b"line"), "more than there is")
    assert await states(log, chain, START + HOUR) == ["fault"]


def many(log: str, count: int) -> tuple[str, OfferChain]:
    """A chain of a lender with this many grants that wait."""
    written = Written()
    chain = written.post()
    grant = written.grant(chain, hours(0, 1))
    found = written.chain(chain)
    held = found.state.grants[grant.digest]
    copies = {sha256(b"%s %d" % (log.encode(), number)): held for number in range(count)}
    found.state.grants.update(copies)
    found.state.open = dict.fromkeys(copies)
    return log, found


async def test_the_loans_of_one_lender_hide_none_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loans_module, "MAX_OF_LOG", 20)
    monkeypatch.setattr(loans_module, "MAX_LOANS", 8)
    other = str(log_verifier_key("node-es/log", LOG_KEY.public))
    index = cast(OfferIndex, Chains(*[many(str(LOG), 30) for _ in range(3)], many(other, 2)))
    loans = await read_loans(index, START, closed=False)
    assert [loan.origin for loan in loans.listed[:4]] == ["node-ch/log", "node-es/log"] * 2
    assert (len(loans.listed), loans.more) == (8, 84)


async def test_loans_are_read_once_for_many_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    index = Chains(many(str(LOG), 3))
    board = LoanBoard(cast(OfferIndex, index))
    found = [await board.now(START, closed=False) for _ in range(5)]
    assert len({id(loans) for loans in found}) == 1
    once = index.asked
    assert (await board.now(START, closed=True)) is not found[0]
    monkeypatch.setattr(loans_module, "FRESH", 0.0)
    await board.now(START, closed=False)
    assert index.asked == 3 * once


@pytest.mark.parametrize("text", HOSTILE)
async def test_hostile_texts_on_the_board_stay_text(text: str) -> None:
    log = Written()
    chain = log.post()
    log.grant(chain, hours(0, 48))
    (loan,) = (await shown(log, chain, START)).listed
    views = [replace(loan, measure=text, origin=text, state=cast(Any, state)) for state in (text, *STATES)]
    values = {"page": OfferPage((), ""), "closed": True, "loans": Loans(tuple(views), 7), "shown": views}
    page = compute_page(**values, next_loan=25, names={PROVIDER: text, GRANTEE: text})
    assert page.text.count("At fault") == 1 and page.text.count("Given back") == 1
    assert "7 more are not listed" in page.text


async def test_a_board_without_offers_and_loans_says_so() -> None:
    values = {"page": OfferPage((), ""), "closed": False, "loans": Loans((), 0), "shown": []}
    page = compute_page(**values, next_loan=0, names={})
    assert "No offer is open." in page.text and "Nobody borrows machines now." in page.text
    assert "comity offer new --for HOME" in page.text


async def test_what_is_lent_is_in_use_by_the_word_of_its_lender() -> None:
    log = Written()
    chain = log.post()
    log.grant(chain, hours(0, 48))
    (loan,) = (await shown(log, chain, START)).listed
    running = replace(loan, state="running")
    values = {"page": OfferPage((), ""), "closed": False, "loans": Loans((running,), 0), "shown": [running]}
    page = compute_page(**values, next_loan=0, names={PROVIDER: "A", GRANTEE: "B"})
    part = running.parts[0]
    assert part.slice is not None
    machines = f"{part.allocation.nodes} × {part.slice.count} {part.slice.accelerator}, {part.slice.memory_gib} GiB"
    assert machines in page.text and "In use" in page.text
    marks = [attributes.get("class", "") for attributes in page.found("span")]
    assert "basis note" in marks and "basis here" not in marks


def compute_page(**values: Any) -> ReadPage:
    reader = SimpleNamespace(language="en", session=None, prefix="", chosen=False, in_language=lambda language: "?")
    state = SimpleNamespace(front_end=None, alerts=(), now=0, situation="running")
    common = {"reader": reader, "link": lambda path, **query: path, "languages": LANGUAGES, "node": "node"}
    common |= {"statements": {}, "signs_in": True, "state": state}
    return check_page(environment("en").get_template("compute.html").render(**common, **values))


def test_a_page_is_a_part_of_the_list() -> None:
    every = tuple(cast(LoanView, SimpleNamespace(index=number)) for number in range(60))
    pages: list[Any] = [Loans(every, 0).page(start) for start in (0, 25, 50, 75)]
    assert [len(page) for page in pages] == [25, 25, 10, 0]
