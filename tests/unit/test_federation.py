from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from comity.trust.errors import ComityError, Untrusted
from comity.trust.federation import Federation, prove_record
from comity.trust.node_record import sign_node_record
from support.case import nodes
from support.world import draft, found, identity, node, seat

NODES = nodes(3)
FEDERATION = found(NODES, {"swiss-ai": identity("Swiss AI", "CH").id})
OUTSIDER = node(seat("BR"))


def of(federation: Federation) -> list[str]:
    return [line.decode() for line in federation.certificates[0]]


LINES = of(FEDERATION)


def document(**change: Any) -> bytes:
    return json.dumps({**json.loads(FEDERATION.encode()), **change}).encode()


def first_epoch(**change: Any) -> bytes:
    first, *rest = json.loads(FEDERATION.encode())["epochs"]
    return document(epochs=[{**first, **change}, *rest])


def listed(**change: Any) -> bytes:
    first, *rest = json.loads(FEDERATION.encode())["nodes"]
    return document(nodes=[{**first, **change}, *rest])


def test_a_federation_file_reads_back() -> None:
    assert Federation.parse(FEDERATION.encode()) == FEDERATION
    assert Federation.parse(FEDERATION.encode()).encode() == FEDERATION.encode()


def test_people_may_indent_it() -> None:
    assert Federation.parse(json.dumps(json.loads(FEDERATION.encode()), indent=4).encode()) == FEDERATION


def test_a_member_may_run_several_nodes_or_none() -> None:
    second = node(NODES[0].seat, "second.example")
    assert len(Federation.parse(found([*NODES, second]).encode()).nodes) == 4
    assert Federation.parse(replace(FEDERATION, nodes=()).encode()).nodes == ()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(document(schema="comity/federation/v2"), id="another schema"),
        pytest.param(document(extra=1), id="an unknown member"),
        pytest.param(document(federation=NODES[0].seat.id), id="another federation"),
        pytest.param(document(epochs=[]), id="no charter"),
        pytest.param(first_epoch(body=FEDERATION.body.data.decode() + " "), id="a body of other bytes"),
        pytest.param(first_epoch(body=json.loads(FEDERATION.body.data)), id="a body that is no text"),
        pytest.param(first_epoch(certificate=[]), id="no consent"),
        pytest.param(first_epoch(certificate=LINES[:-1]), id="a missing consent"),
        pytest.param(first_epoch(certificate=LINES[1:]), id="a missing inception"),
        pytest.param(first_epoch(certificate=of(found(nodes(4)))), id="other consents"),
        pytest.param(first_epoch(certificate=[5]), id="a consent that is no text"),
        pytest.param(first_epoch(round=1), id="an unknown member of an epoch"),
        pytest.param(listed(record=OUTSIDER.entry.line.decode()), id="a node of somebody who is not a member"),
        pytest.param(
            listed(record=sign_node_record(NODES[0].record, [NODES[1].seat.signer], NODES[0].bound).line.decode()),
            id="a record by another member",
        ),
        pytest.param(listed(record="{}"), id="no record"),
        pytest.param(listed(mutual=["node.example"]), id="an address without port"),
        pytest.param(listed(open=["node.example:7444\nPASS"]), id="an address of two lines"),
        pytest.param(listed(open=["node.example:7444"] * 9), id="too many addresses"),
        pytest.param(listed(open="node.example:7444"), id="addresses that are no list"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff", id="not UTF-8"),
    ],
)
def test_a_file_that_does_not_prove_itself_is_refused(data: bytes) -> None:
    with pytest.raises(ComityError):
        Federation.parse(data)


def test_a_record_is_proven_by_a_member_of_the_body() -> None:
    assert prove_record(NODES[0].entry, FEDERATION.body) == NODES[0].record
    with pytest.raises(Untrusted) as refusal:
        prove_record(OUTSIDER.entry, FEDERATION.body)
    assert refusal.value.code == "NON-MEMBER"


def test_the_body_says_by_which_keys_a_member_speaks() -> None:
    moved = replace(NODES[0].seat.member, keys=seat("IN").inception.keys)
    body = draft([moved, *(each.seat.member for each in NODES[1:])])
    with pytest.raises(Untrusted) as refusal:
        prove_record(NODES[0].entry, body)
    assert refusal.value.code == "NODE-RECORD"
