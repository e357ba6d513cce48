"""The drill of a cut-off: it finds what would fail, and logs nothing."""

from __future__ import annotations

from typing import Any

import pytest
from comity.trust.encoding import Digest
from comity.trust.identity import KeySet
from comity_cli.commands import pact as drill
from comity_cli.commands.pact import run_drill
from comity_cli.offers.context import OfferContext
from comity_client.identity_signer import IdentitySigner
from comity_client.offers.offer_client import FoundGrant
from comity_client.offers.views import IdentityResolver, view
from support.fair import Stall
from support.offers import HOUR, START
from support.world import Identity, seat


def context(who: Identity) -> OfferContext:
    made = OfferContext()
    keys = KeySet((who.signer.public,), 1)
    made.__dict__["signer"] = IdentitySigner(who.id, who.inception.label, (who.signer,), keys, ())
    return made


def held(stall: Stall, chain: Digest, grant: Any, **bundle: bool) -> FoundGrant:
    lines = stall.bundle(**bundle)
    seen = view(lines, chain, IdentityResolver([stall.federation], lines.entries))
    return FoundGrant(seen, seen.grant(grant.digest), grant)


def failing(context: OfferContext, held: FoundGrant) -> list[str]:
    return [step.what for step in run_drill(context, held) if not step.well]


@pytest.fixture(autouse=True)
def _within_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "now", lambda: START + HOUR)


@pytest.fixture
def stall() -> Stall:
    return Stall()


def test_a_pact_that_would_work_passes_every_step_and_nothing_is_logged(stall: Stall) -> None:
    chain = stall.post()
    pact = stall.grant(chain, pact=True)
    stall.accept(chain, pact)
    before = list(stall.entries)
    assert failing(context(stall.customer), held(stall, chain, pact)) == []
    assert stall.entries == before


def test_the_drill_names_what_would_fail(stall: Stall, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = stall.post()
    pact = stall.grant(chain, pact=True)
    assert failing(context(stall.customer), held(stall, chain, pact)) == ["its state"]
    stall.accept(chain, pact)
    assert failing(context(stall.customer), held(stall, chain, pact, proven=False)) == ["its chain"]
    assert failing(context(seat("KR")), held(stall, chain, pact)) == ["your key"]
    for at, why in ((START - 1, ": not begun"), (START + 10**7, ": over")):
        monkeypatch.setattr(drill, "now", lambda at=at: at)
        assert failing(context(stall.customer), held(stall, chain, pact)) == ["its window"]
        (window,) = [step for step in run_drill(context(stall.customer), held(stall, chain, pact)) if not step.well]
        assert window.how.endswith(why)


def test_keys_that_the_charter_does_not_know_are_found_out(stall: Stall) -> None:
    chain = stall.post()
    pact = stall.grant(chain, pact=True)
    stall.accept(chain, pact)
    made, thief = context(stall.customer), seat("SG")
    made.__dict__["signer"] = IdentitySigner(
        stall.customer.id, "Institute ES", (thief.signer,), KeySet((thief.signer.public,), 1), ()
    )
    assert failing(made, held(stall, chain, pact)) == ["the declaration", "a redemption"]


def test_a_missing_key_is_a_failed_step_and_no_error(stall: Stall, tmp_path: Any) -> None:
    chain = stall.post()
    pact = stall.grant(chain, pact=True)
    stall.accept(chain, pact)
    assert failing(OfferContext(home=tmp_path), held(stall, chain, pact)) == ["your key"]


def test_a_grant_is_no_pact(stall: Stall) -> None:
    chain = stall.post()
    grant = stall.grant(chain)
    stall.accept(chain, grant)
    assert failing(context(stall.customer), held(stall, chain, grant)) == ["the pact"]
