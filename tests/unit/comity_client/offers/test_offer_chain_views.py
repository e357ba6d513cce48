"""The view that a client computes of an offer chain, from any node: proven, claimed or at fault. And the content of
offer bundles.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comity.rules.offers.records import Acceptance, Accepted, Grant, Redemption
from comity.rules.signing import statement_of
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, NotFound, Unavailable, Untrusted
from comity.trust.statement import sign_statement
from comity_client.offers import offer_client
from comity_client.offers.bundle import OfferBundle, PlacedLine, unlogged
from comity_client.offers.offer_client import FoundChain, OfferClient
from comity_client.offers.views import ChainView, IdentityResolver, chain_ids, compute_balances, view
from hypothesis import given
from hypothesis import strategies as st
from support.fair import Stall
from support.offers import HOUR, START, to
from support.world import NOW, identity, node, seat


@pytest.fixture
def stall() -> Stall:
    return Stall()


def seen(stall: Stall, chain: Digest, bundle: OfferBundle | None = None) -> ChainView:
    bundle = stall.bundle() if bundle is None else bundle
    return view(bundle, chain, IdentityResolver([stall.federation], bundle.entries))


def market(stall: Stall, *bundles: OfferBundle) -> OfferClient:
    known = OfferBundle()
    for bundle in bundles:
        known |= bundle

    def nobody(work: object) -> Any:
        raise AssertionError("no node is to be asked")

    return OfferClient((stall.federation,), nobody, known=known, offline=True)


def test_a_chain_with_a_proof_of_its_newest_record_is_proven(stall: Stall) -> None:
    chain = stall.post()
    stall.accept(chain, stall.grant(chain))
    found = seen(stall, chain)
    assert (found.status, found.why, found.cosigners, found.as_of) == ("proven", "", 2, NOW)
    assert found.provider is not None
    assert found.provider.member.jurisdiction == "CH"
    found.require_proven()


def test_two_cosigners_of_one_member_are_one_member() -> None:
    twin = Stall()
    twin.nodes = (*twin.nodes, node(twin.nodes[-1].seat, "twin.example"))
    assert seen(twin, twin.post()).cosigners == 2


def test_a_grant_is_read_again_until_its_acceptance_is_recorded(stall: Stall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offer_client, "RECORD_POLL", 0.0)
    chain = stall.post()
    granted = stall.grant(chain)
    assert not market(stall).awaits_record(found := market(stall, stall.bundle()).grant(granted.digest))
    said = stall.say(Acceptance(stall.customer.id, chain, granted.digest))
    found = market(stall, stall.bundle()).grant(granted.digest)
    assert market(stall).awaits_record(found)
    unrecorded = FoundChain(found.view, (), provider_answers=True)
    stall.record(Accepted(to(chain), granted.digest, said.digest))
    answers = [unrecorded, FoundChain(seen(stall, chain), (), provider_answers=True)]

    def answer(work: object) -> Any:
        return answers.pop(0) if answers else unrecorded

    online = replace(market(stall), offline=False, run=answer)
    recorded = online.wait_for_record(found)
    assert (recorded.grant_state.state, online.awaits_record(recorded), answers) == ("accepted", False, [])

    monkeypatch.setattr(offer_client, "RECORD_TIMEOUT", 0.0)
    with pytest.raises(Unavailable) as refused:
        online.wait_for_record(found)
    assert refused.value.code == "NOT-RECORDED"


def test_the_order_of_lines_changes_nothing(stall: Stall) -> None:
    chain = stall.post()
    stall.accept(chain, stall.grant(chain))
    bundle = stall.bundle()
    assert seen(stall, chain, replace(bundle, lines=bundle.lines[::-1])).state.grants == seen(stall, chain).state.grants


def test_an_unproven_chain_is_claimed(stall: Stall) -> None:
    chain = stall.post()
    found = seen(stall, chain, stall.bundle(proven=False))
    assert (found.status, found.as_of) == ("claimed", None)
    with pytest.raises(Untrusted) as refused:
        found.require_proven()
    assert refused.value.code == "NOT-PROVEN"


def test_a_proof_of_an_older_record_does_not_prove_the_newest(stall: Stall) -> None:
    chain = stall.post()
    old = stall.bundle().proofs
    stall.grant(chain)
    assert seen(stall, chain, replace(stall.bundle(proven=False), proofs=old)).status == "claimed"


def test_records_withheld_at_the_end_of_a_chain_are_not_detected(stall: Stall) -> None:
    chain = stall.post()
    grant = stall.grant(chain)
    stall.accept(chain, grant)
    found = seen(stall, chain, stall.bundle(upto=3))
    assert (found.status, found.state.grants[grant.digest].state) == ("proven", "granted")  # as of then


@pytest.mark.parametrize("missing", [1, 2, 3, (1, 2), (2, 3)])
def test_withheld_lines_prove_no_fault(stall: Stall, missing: int | tuple[int, ...]) -> None:
    chain = stall.post()
    stall.accept(chain, stall.grant(chain))
    bundle, gone = stall.bundle(), (missing,) if isinstance(missing, int) else missing
    lines = tuple(placed for placed in bundle.lines if placed.index not in gone)
    assert seen(stall, chain, replace(bundle, lines=lines)).status == "claimed"


def test_a_log_that_no_pinned_charter_binds_is_only_claimed(stall: Stall) -> None:
    chain = stall.post()
    bundle = stall.bundle()
    found = view(bundle, chain, IdentityResolver([], bundle.entries))
    assert (found.status, found.why) == ("claimed", "no pinned charter binds its log to a member")


def test_an_offer_in_another_members_name_is_a_fault_of_its_log(stall: Stall) -> None:
    chain = stall.post(provider=seat("ES").id)
    found = seen(stall, chain)
    assert found.status == "convicted"
    assert "in the name of another member" in found.why


def test_signed_overbooking_is_a_fault_of_the_node(stall: Stall) -> None:
    chain = stall.post()
    stall.grant(chain, nodes=3)
    asked = stall.ask(chain, nodes=3)
    state = stall.read.chain_of(chain).state  # type: ignore[union-attr]  # the chain is there
    honest = state.link(Grant(to(chain), asked.digest, stall.customer.id, _wanted(1), START + 86_400), START)
    stall.sign(statement_of(replace(honest, allocations=_wanted(3)), stall.provider.record.node))
    found = seen(stall, chain)
    assert (found.status, found.why.split()[0]) == ("convicted", "overbooked")


def test_two_chains_under_one_key_are_a_fault(stall: Stall) -> None:
    chain = stall.post()
    other = stall.second()
    stall.grant(chain, amount=8)
    other.grant(chain, amount=9)
    lines = [PlacedLine(e.line, stall.log.origin, 10 + i) for i, e in enumerate(other.entries)]
    found = seen(stall, chain, stall.bundle() | OfferBundle(tuple(lines)))
    assert (found.status, found.why.split()[0]) == ("convicted", "forked")


def test_a_record_that_another_key_signed_counts_for_nothing(stall: Stall) -> None:
    chain = stall.post()
    asked = stall.ask(chain)
    state = stall.read.chain_of(chain).state  # type: ignore[union-attr]  # the chain is there
    forged = state.link(Grant(to(chain), asked.digest, stall.customer.id, _wanted(1), START + 86_400), START)
    line = sign_statement(statement_of(forged, stall.provider.record.node), node(seat("SG")).online)
    found = seen(stall, chain, stall.bundle() | OfferBundle((PlacedLine(line.line, stall.log.origin, 2),)))
    assert (found.status, found.state.grants) == ("proven", {})


def test_lines_without_an_offer_give_no_chain(stall: Stall) -> None:
    with pytest.raises(NotFound) as refused:
        seen(stall, sha256(b"nothing"), OfferBundle())
    assert refused.value.code == "NO-OFFER"


def test_a_bundle_with_one_grant_gives_it_without_its_id(stall: Stall) -> None:
    chain = stall.post()
    grant = stall.grant(chain)
    held = market(stall, stall.bundle()).grant("")
    assert (held.grant_state.digest, held.granted) == (grant.digest, grant)
    stall.grant(chain)
    with pytest.raises(NotFound) as refused:
        market(stall, stall.bundle()).grant("")
    assert refused.value.code == "NO-GRANT"


def test_an_unlogged_redemption_is_found_in_its_bundle(stall: Stall) -> None:
    chain = stall.post()
    grant = stall.grant(chain)
    newest = stall.accept(chain, grant).digest
    said = Redemption(stall.customer.id, chain, grant.digest, (5,), newest, "user: alice")
    unlogged_entry = stall.say(said, logged=False)
    found = market(stall, stall.bundle(), unlogged([unlogged_entry.line])).statement("", Redemption)
    assert (found.statement, found.entry) == (said, unlogged_entry)
    forged = sign_statement(statement_of(replace(said, amounts=(8,))), identity("a thief").signer)
    with pytest.raises(NotFound):
        market(stall, stall.bundle(), unlogged([forged.line])).statement("", Redemption)


def test_ids_that_are_too_short_name_nothing(stall: Stall) -> None:
    chain = stall.post()
    assert market(stall, stall.bundle()).offer(chain[:8]).view.state.chain == chain
    with pytest.raises(Malformed):
        market(stall, stall.bundle()).offer(chain[:7])


def test_usage_counts_once_both_have_signed_it(stall: Stall) -> None:
    from comity.rules.offers.amounts import Usage
    from comity.rules.offers.offer import Window
    from comity.rules.offers.records import Agreement

    chain = stall.post()
    grant = stall.grant(chain)
    stall.accept(chain, grant)
    used = stall.sign(
        statement_of(Usage(chain, grant.digest, Window(START, START + HOUR), (6,)), stall.provider.record.node)
    )
    (claimed,) = compute_balances([seen(stall, chain, stall.bundle())])
    assert (claimed.claimed, claimed.net) == (6, 0)
    agreement = Agreement(stall.customer.id, chain, grant.digest, used.digest)
    forged = sign_statement(statement_of(agreement), identity("a thief").signer)
    (still,) = compute_balances([seen(stall, chain, stall.bundle() | unlogged([forged.line]))])
    assert still.claimed == 6
    agreed = stall.say(agreement, logged=False)  # in another log, or carried
    (kept,) = compute_balances([seen(stall, chain, stall.bundle() | unlogged([agreed.line]))])
    assert (kept.claimed, abs(kept.net), kept.unit.accelerator) == (0, 6, "H100")


def test_an_offer_bundle_reads_back(stall: Stall, tmp_path: Path) -> None:
    chain = stall.post()
    bundle = stall.bundle() | unlogged([stall.say(_redemption(stall, chain), logged=False).line])
    bundle.write(tmp_path / "x", "comity offer ls")
    assert OfferBundle.read(tmp_path / "x") == bundle
    assert chain_ids(bundle) == (chain,)
    assert json.loads((tmp_path / "x").read_text())["next"] == "comity offer ls"


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_an_invalid_offer_bundle_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        OfferBundle.parse(data)
    assert refused.value.code == "PARCEL"


MEMBERS = st.fixed_dictionaries(
    {}, optional={name: st.integers() | st.text(max_size=9) | st.none() for name in ("line", "origin", "index", "x")}
)


@given(st.lists(MEMBERS, max_size=3) | MEMBERS)
def test_no_document_breaks_the_reader_of_offer_bundles(value: Any) -> None:
    document = {"schema": "comity/parcel/v1", "next": "", "lines": value, "proofs": []}
    try:
        OfferBundle.parse(json.dumps(document).encode())
    except Malformed as error:
        assert error.code == "PARCEL"


def _redemption(stall: Stall, chain: Digest) -> Redemption:
    return Redemption(stall.customer.id, chain, sha256(b"grant"), (1,), sha256(b"after"))


def _wanted(nodes: int) -> Any:
    from support.offers import hours

    return (hours(0, 10, nodes=nodes),)
