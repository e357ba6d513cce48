"""An offer file that a provider writes becomes a document, or is refused with its faults."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from comity.rules.offers.offer import Offer
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from comity.trust.node_records import NodeRecord
from comity_client.offers.offer_file import offer_warnings, read_offer, template
from hypothesis import given
from hypothesis import strategies as st
from support.world import node, seat

NOW = 1_796_000_000
"""2026-11-29."""


RECORD = node(seat("CH")).record


@pytest.fixture(name="record")
def _record() -> NodeRecord:
    return RECORD


def written(**changes: str) -> bytes:
    """The template with lines changed; an empty text removes a line."""
    lines = template("CH", NOW).splitlines()
    for name, value in changes.items():
        (at, *_) = [at for at, line in enumerate(lines) if line.split("=")[0].strip() == name]
        lines[at] = f"{name} = {value}" if value else ""
    return "\n".join([*lines, ""]).replace('operator = ""', 'operator = "Example Institute"').encode()


def refusal(data: bytes, record: NodeRecord) -> str:
    with pytest.raises(Malformed) as refused:
        read_offer(data, record)
    assert refused.value.code == "OFFER-FILE"
    return refused.value.why


def test_the_template_reads_back_as_an_offer_of_the_node(record: NodeRecord) -> None:
    offer = read_offer(written(), record)
    assert (offer.provider, offer.log) == (record.member, str(record.log))
    (part,) = offer.slices
    hours = (offer.window.end - offer.window.start) // 3600
    assert (part.vendor, part.accelerator, part.amount) == ("NVIDIA", "H100", 4 * 8 * hours)
    assert (offer.accept_seconds, offer.granularity.seconds) == (72 * 3600, 3600)
    assert Offer.parse(offer.encode()) == offer


@pytest.mark.parametrize("now", [NOW, 1_798_675_200, 1_798_675_199])
def test_a_template_begins_on_the_first_of_the_next_month(now: int) -> None:
    window = tomllib.loads(template("CH", now))["window"]
    assert (window["start"].day, window["end"].day) == (1, 1)
    assert window["start"].timestamp() > now


def test_fields_that_the_file_leaves_out_are_in_the_document(record: NodeRecord) -> None:
    offer = read_offer(
        b'title = "x"\nmeasure = "node-hours"\n[window]\nstart = 2027-01-01T00:00:00Z\n'
        b"end = 2027-01-02T00:00:00+00:00\n[location]\n"
        b'jurisdiction = "CH"\noperator = "x"\n[engine]\nkind = "ssh"\n[[slices]]\nname = "cpu"\nnodes = 2\n'
        b'cpus = 8\n[[slices]]\nname = "gpu"\naccelerator = "MI300X"\nmemory_gib = 192\nnodes = 1\n',
        record,
    )
    cpu, gpu = offer.slices
    assert (cpu.count, cpu.amount, gpu.count, gpu.vendor, gpu.amount) == (0, 48, 1, "AMD", 24)
    assert offer.location.legal_reach == ("CH",)
    assert (offer.eligibility.who, offer.terms.kind, offer.accept_seconds) == ("members", "grant", 72 * 3600)


def test_digests_may_be_written_as_people_write_them(record: NodeRecord) -> None:
    digests = sorted([sha256(b"a"), sha256(b"b")], reverse=True)
    offer = read_offer(written(artifacts=f'["sha256:{digests[0]}", "{digests[1]}"]'), record)
    assert offer.artifacts == tuple(sorted(digests))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"start": "2027-01-01T00:00:00"}, "time with a time zone"),
        ({"start": "2027-01-01"}, "time with a time zone"),
        ({"start": '"2027-01-01T00:00:00Z"'}, "time with a time zone"),
        ({"end": ""}, "a start and an end"),
        ({"hours": "0"}, "whole number of hours"),
        ({"hours": "7"}, "whole granules"),
        ({"measure": '"core-hours"'}, "member 'measure' must be one of"),
        ({"title": ""}, "'title' is missing"),
        ({"contact": "7"}, "'contact'"),
        ({"who": '"friends"'}, "'who' must be one of"),
        ({"artifacts": '["abc"]'}, "digest"),
        ({"artifacts": "7"}, "not a list"),
        ({"kind": '"price"'}, "currency"),
        ({"legal_reach": "[7]"}, "not a list of texts"),
        ({"memory_gib": "80.5"}, "'memory_gib'"),
        ({"accept_within_hours": "true"}, "whole number of hours"),
        ({"attributes": '{ "" = "x" }'}, "attribute"),
        ({"name": '"UPPER"'}, "short lower-case word"),
        ({"strict": '"no"'}, "'strict'"),
        ({"jurisdiction": '"Switzerland"'}, "jurisdiction"),
    ],
)
def test_an_offer_that_cannot_be_posted_is_refused_with_the_reason(
    changes: dict[str, str], why: str, record: NodeRecord
) -> None:
    assert why in refusal(written(**changes), record)


@pytest.mark.parametrize("more", ["discount = 5\n", "[slice]\n", "[window.x]\n"])
def test_unknown_fields_are_refused(more: str, record: NodeRecord) -> None:
    assert refusal(more.encode() + written() if "=" in more else written() + more.encode(), record)


def test_invalid_toml_and_a_large_file_are_refused(record: NodeRecord) -> None:
    assert "not TOML" in refusal(b"= 7", record)
    assert "not TOML" in refusal(b"\xff", record)
    assert "at most" in refusal(b"#" * 100_000, record)


@given(st.binary(max_size=200))
def test_no_file_breaks_the_reader(data: bytes) -> None:
    try:
        read_offer(written() + data, RECORD)
    except Malformed as error:
        assert error.code == "OFFER-FILE"


def test_unusual_offers_are_remarked_upon(record: NodeRecord) -> None:
    usual = read_offer(written(artifacts=f'["{sha256(b"a")}"]'), record)
    assert offer_warnings(usual, NOW) == ()
    strange: dict[str, Any] = {"accelerator": '"H100-90GB"', "fabric": '""', "legal_reach": '["FR"]'}
    found = " / ".join(offer_warnings(read_offer(written(**strange), record), 2**34))
    for word in ("SkyPilot", "window is over", "legal reach", "no model", "no fabric"):
        assert word in found


@pytest.mark.parametrize("operator", ['The "Institute"', "Institut für X", "a\\b", "tab\there"])
def test_the_operator_is_written_as_it_is(operator: str) -> None:
    assert tomllib.loads(template("CH", NOW, operator))["location"]["operator"] == operator
