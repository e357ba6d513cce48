"""Texts that people type about offers, and the texts in which offers are shown to them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from comity.rules.offers.records import CutOff, Redeemed, Redemption
from comity.trust.encoding import LAST_TIME
from comity.trust.errors import Malformed, NotFound
from comity_cli.main import command
from comity_cli.offers.arguments import allocations, amounts, moment
from comity_cli.offers.rendering import STALE_SECONDS, describe_status, next_step, request_rows, statement_rows, when
from comity_cli.output import Output
from comity_client.home import Home
from comity_client.offers.measure import NAME, MeasuredFigures, MeasuredRate
from comity_client.offers.offer_client import FoundChain
from comity_client.offers.views import IdentityResolver, view
from comity_client.trust_store import TrustStore
from support.command_documents import faults
from support.fair import Stall
from support.offers import HOUR, START, an_offer, hours, to
from support.world import NOW


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02", 86_400),
        ("1970-01-01T01:00", 3600),
        ("1970-01-01T01:00Z", 3600),
        ("1970-01-01T01:00+01:00", 0),
    ],
)
def test_times_are_utc_unless_they_name_an_offset(text: str, seconds: int) -> None:
    assert moment(text) == seconds


@pytest.mark.parametrize("text", ["tomorrow", "", "2027-13-01"])
def test_an_invalid_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        moment(text)


def test_a_time_after_the_last_date_can_be_shown() -> None:
    """A peer may claim any time; none of them may break a list."""
    assert when(START) == "2027-01-15 08:00Z"
    assert when(LAST_TIME + 1) == f"second {LAST_TIME + 1}"


def test_a_want_without_an_amount_is_all_that_its_nodes_give() -> None:
    (part,) = allocations(an_offer(), ["h100:2"], START, START + 10 * HOUR)
    assert part == hours(0, 10, nodes=2, amount=2 * 8 * 10)
    (whole,) = allocations(an_offer(), ["h100:4"], None, None)
    assert whole == hours(0, 240, nodes=4, amount=1000)  # no more than the slice has
    (less,) = allocations(an_offer(), ["h100:2:7"], START, START + HOUR)
    assert less.amount == 7


@pytest.mark.parametrize(
    "want", ["big:1", "h100", "h100:", "h100:x", "h100:1:x", "h100:9", "h100:0", "h100:1:999999999999", "h100:-1"]
)
def test_a_request_beyond_the_offer_is_refused_before_it_is_sent(want: str) -> None:
    with pytest.raises(click.UsageError):
        allocations(an_offer(), [want], None, None)


def test_times_between_two_granules_are_refused_by_the_offers_own_rule() -> None:
    with pytest.raises(click.UsageError, match="multiples of 3600 seconds"):
        allocations(an_offer(), ["h100:1"], START + 1, START + HOUR)


def test_amounts_are_all_that_is_left_unless_they_are_named() -> None:
    assert amounts((), (5, 6)) == (5, 6)
    assert amounts((1, 2), (5, 6)) == (1, 2)
    with pytest.raises(click.UsageError):
        amounts((1,), (5, 6))


def seen(stall: Stall, chain: Any, answers: bool = False, **bundle: bool) -> FoundChain:
    lines = stall.bundle(**bundle)
    return FoundChain(view(lines, chain, IdentityResolver([stall.federation], lines.entries)), ("node-es",), answers)


def test_proven_claimed_stale_and_faulty_are_different_words() -> None:
    stall = Stall()
    chain = stall.post()
    assert describe_status(seen(stall, chain, answers=True), NOW) == "proven, its provider answers"
    assert describe_status(seen(stall, chain), NOW).startswith("proven as of ")
    assert describe_status(seen(stall, chain), NOW).endswith("; its provider does not answer")
    assert describe_status(replace(seen(stall, chain), nodes=()), NOW).endswith("; no node was asked")
    assert describe_status(seen(stall, chain), NOW + STALE_SECONDS + 1).startswith("stale: as of ")
    assert "not cosigned yet" in describe_status(seen(stall, chain, cosigned=False), NOW)
    assert describe_status(seen(stall, chain, proven=False), NOW).startswith("claimed by node-es: no proof")
    assert describe_status(seen(stall, chain, answers=True), START + 10**7).startswith("over, proven")
    lying = Stall()
    assert describe_status(seen(lying, lying.post(provider=stall.customer.id)), NOW).startswith("CONVICTED: ")


def test_each_request_is_a_row_with_the_next_command() -> None:
    stall = Stall()
    chain = stall.post()
    grant = stall.grant(chain)
    stall.ask(chain)
    held, asked = request_rows(seen(stall, chain).view)
    assert (held.state, held.line) == ("granted", grant.digest)
    assert held.next == f"comity grant accept {grant.digest[:12]} --node HOME"
    assert (asked.state, asked.next.split()[:3]) == ("requested", ["comity", "grant", "approve"])
    stall.accept(chain, grant)
    held, _ = request_rows(seen(stall, chain).view)
    assert held.next.startswith("comity grant redeem")
    assert [each.kind for each in statement_rows(seen(stall, chain).view, grant.digest)] == ["acceptance"]


def run(home: Path, *arguments: str | Path) -> Any:
    return CliRunner(env={"COMITY_HOME": str(home), "COLUMNS": "200"}).invoke(
        command, [str(argument) for argument in arguments], obj=Output()
    )


def test_a_carried_offer_is_shown_with_no_node_at_all(tmp_path: Path) -> None:
    stall = Stall()
    stall.post(title="Spare \u202enodes")
    TrustStore(Home(tmp_path).ensure(tmp_path / "trust")).pin(stall.federation.encode())
    stall.bundle().write(tmp_path / "offer.bundle")
    shown = run(tmp_path, "offer", "show", tmp_path / "offer.bundle", "--offline")
    assert shown.exit_code == 0, shown.output
    for words in ("Spare \\u202enodes", "4 nodes of 8 NVIDIA H100 80 GiB", "Institute CH (CH)", "by 2 members"):
        assert words in shown.output
    assert "\u202e" not in shown.output
    listed = run(tmp_path, "offer", "ls", "--offline", "--from", tmp_path / "offer.bundle")
    assert "4 x 8 H100 80 GiB" in listed.output


def test_the_schema_of_offers_knows_a_chain_that_nobody_cosigned(tmp_path: Path) -> None:
    stall = Stall()
    stall.post()
    TrustStore(Home(tmp_path).ensure(tmp_path / "trust")).pin(stall.federation.encode())
    stall.bundle(cosigned=False).write(tmp_path / "offer.bundle")
    listed = json.loads(run(tmp_path, "offer", "ls", "--offline", "--from", tmp_path / "offer.bundle", "--json").stdout)
    assert listed["offers"][0]["as_of"] is None
    assert faults("offers", listed) == []


def test_a_template_is_never_written_over_anything(tmp_path: Path) -> None:
    assert run(tmp_path, "offer", "new", "--out", tmp_path / "o.toml").exit_code == 0
    again = run(tmp_path, "offer", "new", "--out", tmp_path / "o.toml")
    assert "is not overwritten" in str(again.exception)


def test_an_offer_is_checked_for_the_node_that_would_grant_it(tmp_path: Path) -> None:
    run(tmp_path, "offer", "new", "--out", tmp_path / "o.toml")
    assert isinstance(refused := run(tmp_path, "offer", "check", tmp_path / "o.toml").exception, NotFound)
    assert refused.code == "NO-HOME"
    (tmp_path / "node-record.line").write_bytes(Stall().provider.entry.line + b"\n")
    wanted = ("offer", "check", tmp_path / "o.toml", "--dir", tmp_path)
    assert "'operator'" in str(run(tmp_path, *wanted).exception)
    text = (tmp_path / "o.toml").read_text().replace('operator = ""', 'operator = "Example"')
    (tmp_path / "o.toml").write_text(text)
    checked = run(tmp_path, *wanted)
    assert checked.exit_code == 0, checked.exception
    assert "4 x 8 H100 80 GiB" in checked.output
    assert "no model near the machines" in checked.output


def test_measured_figures_become_part_of_the_offer_and_are_shown_as_a_claim(tmp_path: Path) -> None:
    run(tmp_path, "offer", "new", "--out", tmp_path / "o.toml")
    text = (tmp_path / "o.toml").read_text().replace('operator = ""', 'operator = "Example"')
    (tmp_path / "o.toml").write_text(text)
    (tmp_path / "node-record.line").write_bytes(Stall().provider.entry.line + b"\n")
    rates = MeasuredRate(3, 2, 4, "MB/s"), MeasuredRate(30, 20, 40, "GFLOP/s bf16")
    (tmp_path / "m.json").write_bytes(MeasuredFigures(NAME, *rates, 79_000, "one node").encode())
    wanted = ("offer", "check", tmp_path / "o.toml", "--dir", tmp_path, "--measured")
    plain = json.loads(run(tmp_path, *wanted[:-1], "--json").output)
    checked = json.loads(run(tmp_path, *wanted, "big", tmp_path / "m.json", "--json").output)
    assert checked["offer"] != plain["offer"]
    assert checked["document"]["slices"][0]["attributes"]["measured/memory"] == "3 MB/s, 2 to 4"
    shown = run(tmp_path, *wanted, "big", tmp_path / "m.json").output
    assert "big capacity claimed by the lender: 79000 MiB an accelerator" in " ".join(shown.split())
    assert "no such slice" in run(tmp_path, *wanted, "small", tmp_path / "m.json").output
    (tmp_path / "m.json").write_bytes(b"{}")
    assert isinstance(refused := run(tmp_path, *wanted, "big", tmp_path / "m.json").exception, Malformed)
    assert refused.code == "MEASURED"


@pytest.mark.parametrize("pact", [False, True])
def test_the_next_step_follows_the_statements_and_records_of_a_grant(pact: bool) -> None:
    stall = Stall()
    chain = stall.post()
    grant = stall.grant(chain, pact=pact)

    def next_command() -> str:
        state = seen(stall, chain).view
        return next_step(state, state.grant(grant.digest)).removeprefix("comity ").partition(" --node HOME")[0]

    by, name = stall.customer.id, grant.digest[:12]
    assert next_command() == f"grant accept {name}"
    stall.accept(chain, grant)
    declared = None
    if pact:
        assert next_command() == f"pact declare {name}"
        stall.say(CutOff(by, chain, grant.digest, True, "a drill"))
        assert next_command() == f"pact declare {name}"
        declared = stall.say(CutOff(by, chain, grant.digest, False, "cut off")).digest
    assert next_command() == f"grant redeem {name}"
    for amount, then in ((3, f"grant redeem {name}"), (5, "")):
        newest = seen(stall, chain).view.grant(grant.digest).newest
        said = stall.say(Redemption(by, chain, grant.digest, (amount,), newest))
        assert next_command() == f"grant hand-over {said.digest[:12]}"
        stall.record(Redeemed(to(chain), grant.digest, said.digest, (amount,), declared))
        assert next_command() == then


def test_the_text_of_a_partly_redeemed_grant_says_how_much() -> None:
    stall = Stall()
    chain = stall.post()
    grant = stall.grant(chain)
    from comity_cli.offers.rendering import grant_facts

    held = seen(stall, chain).view.grant(grant.digest)
    facts = dict(grant_facts(seen(stall, chain).view, replace(held, redeemed=(3,))))
    assert facts["h100"].endswith("8 accelerator-hours, 3 redeemed")
    assert facts["to"] == "Institute ES (ES)"
