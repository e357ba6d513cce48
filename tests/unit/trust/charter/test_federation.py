"""Federation files: charters, certificates and node records in one document."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from comity.federation_file import Federation
from comity.rules.charter_drafts import draft as next_body
from comity.rules.signing import sign_content
from comity.trust.charter.federation import CHUNK, in_chunks, prove_epochs, prove_record
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.policy_file import parse_policy
from comity.trust.statement import MAX_LINE, Entry
from support.case import nodes
from support.charters import Seated, votes
from support.rotations import of as of_seat
from support.world import draft, found, identity, node, seat

NODES = nodes(3)
FEDERATION = found(NODES, {"swiss-ai": identity("Swiss AI", "CH").id})
OUTSIDER = node(seat("BR"))


def lines_of(federation: Federation) -> list[str]:
    return [line.decode() for line in federation.certificates[0]]


LINES = lines_of(FEDERATION)


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


def test_a_file_is_indented_text_that_people_read(monkeypatch: pytest.MonkeyPatch) -> None:
    named = Federation.assemble(FEDERATION.chain, [FEDERATION.certificates[0]], FEDERATION.nodes)
    assert named == FEDERATION
    assert FEDERATION.encode().startswith(b'{\n "schema"') and FEDERATION.encode().endswith(b"}\n")
    umlaut = replace(FEDERATION, certificates=(("Zürich".encode(), *FEDERATION.certificates[0]),))
    assert "Zürich".encode() in umlaut.encode()
    with pytest.raises(ValueError, match="zip"):
        replace(FEDERATION, certificates=()).encode()


def test_strings_may_be_as_long_as_their_limit() -> None:
    fits, over = "x" * MAX_LINE, "x" * (MAX_LINE + 1)
    assert Federation.parse(first_epoch(certificate=[*LINES, fits])).chain == FEDERATION.chain
    with pytest.raises(Malformed, match="at most"):
        Federation.parse(first_epoch(certificate=[*LINES, over]))


def test_unknown_members_of_the_format_are_refused() -> None:
    bodies, identities = prove_epochs(in_chunks(FEDERATION.encode()))
    assert bodies == FEDERATION.chain
    assert {entry.line for entry in identities} == {node.seat.entry.line for node in NODES}
    with pytest.raises(Malformed):
        prove_epochs(in_chunks(document(more=1)))
    with pytest.raises(Malformed):
        Federation.parse(listed(more=1))


def test_a_files_chunks_together_give_the_file() -> None:
    data = bytes(range(256)) * 5000
    assert [len(chunk) for chunk in in_chunks(data)] == [CHUNK, len(data) - CHUNK]
    assert b"".join(in_chunks(data)) == data


def test_a_file_may_be_indented_differently() -> None:
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
        pytest.param(first_epoch(certificate=lines_of(found(nodes(4)))), id="other consents"),
        pytest.param(first_epoch(certificate=[5]), id="a consent that is no text"),
        pytest.param(first_epoch(round=1), id="an unknown member of an epoch"),
        pytest.param(listed(record=OUTSIDER.entry.line.decode()), id="a node of an identity without a seat"),
        pytest.param(
            listed(record=sign_content(NODES[0].record, NODES[1].seat.signer, *NODES[0].bound).line.decode()),
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


def test_the_body_names_the_keys_of_a_member() -> None:
    moved = replace(NODES[0].seat.member, keys=seat("IN").inception.keys)
    body = draft([moved, *(each.seat.member for each in NODES[1:])])
    with pytest.raises(Untrusted) as refusal:
        prove_record(NODES[0].entry, body)
    assert refusal.value.code == "NODE-RECORD"


PEOPLE = [Seated(each.seat.inception, each.seat.signer, of_seat(each.seat).recovery[0]) for each in NODES]
ROTATED, ROTATION = of_seat(NODES[1].seat).to("SG second")
MOVED = replace(NODES[1].seat.member, keys=ROTATED.state.keys, recovery=ROTATED.state.recovery)
NEXT = next_body(
    FEDERATION.body,
    members=[MOVED if member.id == MOVED.id else member for member in FEDERATION.body.members],
    policy=replace(FEDERATION.body.policy, min_copies=3),
)
CERTIFICATE = [ROTATION.line, *(entry.line for entry in votes(PEOPLE, FEDERATION.body, NEXT))]
RENEWED = sign_content(NODES[1].record, *ROTATED.keys, *NODES[1].bound)
LATER = Federation.assemble(
    [FEDERATION.body, NEXT], [FEDERATION.certificates[0], CERTIFICATE], [*FEDERATION.nodes[:1], *FEDERATION.nodes[2:]]
)


def carrying(*lines: bytes, node: Entry) -> Federation:
    """The two epochs with additional lines in the newest certificate, and one node."""
    listed = replace(FEDERATION.nodes[1], line=node.line)
    return Federation.assemble(LATER.chain, [LATER.certificates[0], [*CERTIFICATE, *lines]], [listed])


def test_a_file_leads_from_the_genesis_to_the_newest_body() -> None:
    again = Federation.parse(LATER.encode())
    assert again == LATER
    assert (again.id, again.genesis, again.body) == (FEDERATION.id, FEDERATION.body, NEXT)
    assert again.chain == (FEDERATION.body, NEXT)
    assert again.holds(FEDERATION.body.digest) == FEDERATION.body
    assert again.holds(MOVED.id) is None


@pytest.mark.parametrize("missing", range(len(CERTIFICATE)))
def test_each_epoch_is_certified_by_its_certificate_in_the_file(missing: int) -> None:
    rest = [line for at, line in enumerate(CERTIFICATE) if at != missing]
    with pytest.raises(Untrusted):
        Federation.assemble(LATER.chain, [LATER.certificates[0], rest], [])


def test_epochs_come_in_their_order_from_the_genesis_on() -> None:
    for chain, certificates in (
        (LATER.chain[::-1], LATER.certificates[::-1]),
        (LATER.chain[1:], LATER.certificates[1:]),
        ((*LATER.chain, NEXT), (*LATER.certificates, CERTIFICATE)),
    ):
        with pytest.raises(Untrusted):
            Federation.assemble(chain, certificates, [])


def test_a_node_need_not_sign_again_with_each_epoch() -> None:
    assert carrying(node=NODES[1].entry).nodes[0].record == NODES[1].record


def test_a_node_record_holds_under_new_keys_and_under_those_that_rotations_in_the_file_reach() -> None:
    assert carrying(node=RENEWED).nodes[0].record == NODES[1].record
    third, rotation = ROTATED.to("SG third")
    newest = sign_content(NODES[1].record, *third.keys, *NODES[1].bound)
    assert carrying(rotation.line, node=newest).nodes[0].record == NODES[1].record
    with pytest.raises(Untrusted):
        carrying(node=newest)


def test_an_owner_may_pin_any_body_of_the_file_and_has_the_newest_by_default() -> None:
    for pin, body in (("", NEXT), (f'body = "{FEDERATION.body.digest}"', FEDERATION.body)):
        text = f'[[pin]]\nfile = "federation.json"\n{pin}\n'
        assert parse_policy(text.encode(), lambda _: LATER.encode()).pins == (body,)
    unknown = f'[[pin]]\nfile = "federation.json"\nbody = "{NODES[0].seat.id}"\n'
    with pytest.raises(Untrusted) as refusal:
        parse_policy(unknown.encode(), lambda _: LATER.encode())
    assert refusal.value.code == "PIN"
