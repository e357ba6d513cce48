"""Floods of copied requests: the statements of a grantee are logged all the same."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from attackers.charter import copies
from comity.trust.errors import ComityError
from comity.wire.offer import Redeem
from support.federation import make_home, serving
from support.offer_commands import Borrower, Lender, reaches
from support.offers import START, hours

NOW = float(START)


@pytest.mark.slow
async def test_copies_of_a_request_keep_no_grantee_from_accepting_and_redeeming(tmp_path: Path) -> None:
    lender, borrower = Lender(make_home(tmp_path / "home", 0)), Borrower()
    lender.home.set("publishing", accept="none")
    async with serving(lender.home, clock=lambda: NOW), lender.home.client() as door:
        offer = await lender.post()
        asked = borrower.request(offer, hours(0, 10, nodes=2, amount=100))
        await borrower.submit(lender.home, asked)
        for line in (*copies(asked.line, 62), *copies(borrower.publisher.announcement, 62)):
            with contextlib.suppress(ComityError):
                await door.submit([borrower.publisher.announcement, asked.line, line])
        granted = await lender.approve(asked.digest)
        accepting = borrower.accept(granted)
        await borrower.submit(lender.home, accepting)
        for line in copies(accepting.line, 62):
            with contextlib.suppress(ComityError):
                await door.submit([borrower.publisher.announcement, line])
        state = await reaches(lender.home, asked, "accepted")
        assert state.newest is not None
        redemption = borrower.redeem(granted, state.newest, 60)
        await borrower.submit(lender.home, redemption)
        await lender.act(Redeem(redemption.digest))
        await borrower.submit(lender.home, borrower.give_back(granted))
        await reaches(lender.home, asked, "released")
