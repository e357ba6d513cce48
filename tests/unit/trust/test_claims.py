"""Holds and addresses, as signed statements of a node."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from comity.rules.signing import sign_content
from comity.trust.copies import HeldArtifact
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from comity.trust.node_records import Addresses, signed_by_node
from comity.trust.statement import SideObject, Statement, Subject, parse_entry, sign_statement
from comity.trust.statements import ADVISORIES, KEY_COMPROMISE, Advisory, Compromise
from support.case import nodes
from support.world import identity

MANIFEST, PIECES = SideObject.of(b"a manifest"), SideObject.of(b"a piece index")
NODE, OTHER = nodes(2)
CRITIC = identity("Security desk", "ES")
WARNING = Advisory(CRITIC.inception.author, MANIFEST.digest, "malware", "high", "do not\nload it")


def test_a_hold_reads_back_and_is_the_nodes_own() -> None:
    entry = parse_entry(sign_content(HeldArtifact(NODE.record.node, MANIFEST, PIECES), NODE.online).line)
    assert HeldArtifact.parse(entry.statement) == HeldArtifact(NODE.record.node, MANIFEST, PIECES)
    assert entry.statement.objects == (MANIFEST, PIECES)
    assert signed_by_node(entry, NODE.record)
    assert not signed_by_node(entry, OTHER.record)


def test_a_hold_signed_by_another_key_is_not_the_nodes_own() -> None:
    assert not signed_by_node(sign_content(HeldArtifact(NODE.record.node, MANIFEST, PIECES), OTHER.online), NODE.record)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"subjects": (Subject("", sha256(b"another artifact")),)}, id="about another manifest"),
        pytest.param({"objects": (MANIFEST,)}, id="without its piece index among the objects"),
        pytest.param({"by": CRITIC.inception.author}, id="by an identity"),
        pytest.param({"predicate": "hold-withdrawn"}, id="another predicate"),
        pytest.param({"body": {"manifest": MANIFEST.to_json()}}, id="without pieces"),
        pytest.param({"subjects": (Subject("", MANIFEST.digest), Subject("", PIECES.digest))}, id="two subjects"),
    ],
)
def test_an_invalid_hold_is_refused(change: dict[str, Any]) -> None:
    hold = sign_content(HeldArtifact(NODE.record.node, MANIFEST, PIECES), NODE.online).statement
    with pytest.raises(Malformed):
        HeldArtifact.parse(replace(hold, **change))


def test_addresses_read_back() -> None:
    entry = sign_content(Addresses.of(NODE.record, ["node.example:7443", "[2001:db8::1]:7443"], []), NODE.online)
    expected = Addresses(NODE.record.node, ("node.example:7443", "[2001:db8::1]:7443"), ())
    assert Addresses.parse(parse_entry(entry.line).statement) == expected


@pytest.mark.parametrize(
    "address", ["node.example", ":7443", "node:0", "node:65536", "a b:1", "a\n:1", "a:٣", "x" * 400]
)
def test_an_address_is_host_and_port(address: str) -> None:
    entry = sign_content(Addresses.of(NODE.record, ["node.example:7443"], []), NODE.online)
    with pytest.raises(Malformed):
        Addresses.parse(replace(entry.statement, body={"mutual": [address], "open": []}))


@pytest.mark.parametrize("kind", ADVISORIES)
def test_an_advisory_reads_back(kind: str) -> None:
    warning = replace(WARNING, kind=kind)
    assert Advisory.parse(parse_entry(sign_content(warning, CRITIC.signer).line).statement) == warning


def test_a_node_may_advise_too() -> None:
    warning = replace(WARNING, by=NODE.record.node)
    assert Advisory.parse(sign_content(warning, NODE.online).statement) == warning


@pytest.mark.parametrize(
    "change", [{"kind": "gossip"}, {"severity": "huge"}, {"text": "\x1b[31m"}, {"text": "x" * 4001}]
)
def test_a_malformed_advisory_is_not_signed(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        sign_content(replace(WARNING, **change), CRITIC.signer)


@pytest.mark.parametrize("length", [0, 1, 4000])
def test_an_advisory_may_have_a_text_of_any_length_up_to_the_limit(length: int) -> None:
    warning = replace(WARNING, text="x" * length)
    assert Advisory.parse(sign_content(warning, CRITIC.signer).statement) == warning


COMPROMISE = Compromise(sha256(b"a key"), "node.example/log", 7)
SINCE: dict[str, Any] = {"origin": COMPROMISE.origin, "index": COMPROMISE.index}
STOLEN: dict[str, Any] = {"kind": KEY_COMPROMISE, "severity": "high", "text": "", "key": COMPROMISE.key, "since": SINCE}


def advised(change: dict[str, Any]) -> Statement:
    return Statement("advisory", (Subject("", CRITIC.id),), CRITIC.inception.author, {**STOLEN, **change})


@pytest.mark.parametrize("origin", [COMPROMISE.origin, "x" * 255])
def test_an_advisory_about_a_key_says_from_which_entry_on(origin: str) -> None:
    said = Advisory(CRITIC.inception.author, CRITIC.id, KEY_COMPROMISE, "high", "", replace(COMPROMISE, origin=origin))
    assert Advisory.parse(sign_content(said, CRITIC.signer).statement) == said
    assert Advisory.parse(advised({"since": {**SINCE, "origin": origin}})) == said


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(replace(advised({}), predicate="warning"), id="another predicate"),
        pytest.param(replace(advised({}), by=None), id="no author"),
        pytest.param(advised({"kind": "yank"}), id="a key that another kind of advisory names"),
        pytest.param(advised({"more": 1}), id="an unknown member"),
        pytest.param(advised({"since": {**SINCE, "more": 1}}), id="an unknown member of the moment"),
        pytest.param(advised({"since": {**SINCE, "index": -1}}), id="a negative index"),
        pytest.param(advised({"since": {**SINCE, "origin": "x" * 256}}), id="a long origin"),
        pytest.param(advised({"since": {**SINCE, "origin": "two words"}}), id="an origin that no log can have"),
    ],
)
def test_a_malformed_advisory_is_refused(statement: Statement) -> None:
    with pytest.raises(Malformed):
        Advisory.parse(statement)


def test_an_advisory_is_about_one_artifact() -> None:
    body = {"kind": "yank", "severity": "low", "text": ""}
    subjects = (Subject("", MANIFEST.digest), Subject("", PIECES.digest))
    statement = Statement("advisory", subjects, CRITIC.inception.author, body)
    with pytest.raises(Malformed):
        Advisory.parse(sign_statement(statement, CRITIC.signer).statement)
