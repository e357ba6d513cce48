"""The drill by computation: what remains without each single party, and what is unknown."""

from __future__ import annotations

from dataclasses import replace

from comity.rules.copy_counts import CopyPolicy, Holder
from comity.rules.parties import (
    CA_STORE,
    CLOCK,
    DNS,
    HARDWARE_ROOT,
    HUB,
    PACKAGE_INDEX,
    PARTY_KINDS,
    UPDATE_CHANNEL,
    Party,
)
from comity.trust.encoding import sha256
from comity_client.dependents import FURTHER_PARTIES, Dependents
from comity_client.party_drill import (
    MAX_FALLEN,
    DrillArtifact,
    DrillGroup,
    DrillInput,
    DrillNode,
    PartyOutcome,
    drill,
)
from hypothesis import given
from hypothesis import strategies as st

A, B, C = (sha256(b"member %d" % at) for at in range(3))
LOGS = {"node-a/log": 10, "node-b/log": 4}
NODES = (
    DrillNode("node-a", A, "CH", ("CH", "US"), "Example Cloud", entries=LOGS),
    DrillNode("node-b", B, "ES", ("ES", "US"), "Example Cloud", entries=LOGS),
    DrillNode("node-c", C, "KR", ("KR",), entries=LOGS),
)
HOLDERS = tuple(Holder(node.member, node.jurisdiction, True, node.reach, node.cloud) for node in NODES)


def group(holders: tuple[Holder, ...], *names: str) -> DrillGroup:
    """Artifacts with these names and holders."""
    first = tuple(DrillArtifact(sha256(name.encode()), name) for name in names[:MAX_FALLEN])
    return DrillGroup(holders, len(names), first)


WIDE = group(HOLDERS, "lab/wide@v1")
CLOUDY = group(HOLDERS[:2], "lab/cloudy@v1")
DEPENDENTS = {party: Dependents(party, 0, (), "nothing asks it") for party in FURTHER_PARTIES}
SCENE = DrillInput(
    NODES, (WIDE, CLOUDY), CopyPolicy(2, 2), LOGS, (sha256(b"publisher"),), ("https://hub.example",), DEPENDENTS
)


def outcome(kind: str, name: str = "", scene: DrillInput = SCENE) -> PartyOutcome:
    (found,) = drill(scene, [Party(kind, name)])
    return found


def test_every_single_party_is_removed_once_and_the_kinds_are_in_order() -> None:
    parties = [item.party for item in drill(SCENE)]
    assert len(parties) == len(set(parties))
    order = list(PARTY_KINDS)
    assert {party.kind for party in parties} == set(order)
    assert [order.index(party.kind) for party in parties] == sorted(order.index(party.kind) for party in parties)
    assert {party.name for party in parties if party.kind == "publisher"} == {*SCENE.publishers}


def test_the_loss_of_a_member_leaves_copies_of_others() -> None:
    found = outcome("member", A)
    assert (found.nodes, found.pulls, found.verifies, found.enough) == (("node-a",), 2, 2, 1)
    assert found.survived


def test_the_loss_of_a_cloud_removes_artifacts_that_only_it_has() -> None:
    for kind, name in (("cloud", "Example Cloud"), ("reach", "US")):
        found = outcome(kind, name)
        assert (found.pulls, found.survived) == (1, False)
        (item,) = found.fallen
        assert (item.name, item.before.copies, item.after.copies) == ("lab/cloudy@v1", 2, 0)


def test_a_copy_is_lost_with_its_cloud_though_its_member_has_another_node() -> None:
    elsewhere = replace(NODES[0], name="node-a2", reach=("CH",), cloud="")
    found = outcome("cloud", "Example Cloud", replace(SCENE, nodes=(*NODES, elsewhere)))
    assert (found.nodes, found.pulls) == (("node-a", "node-b"), 1)
    assert [item.name for item in found.fallen] == ["lab/cloudy@v1"]


def test_artifacts_that_pull_from_a_tested_copy_are_counted() -> None:
    claimed = tuple(replace(holder, tested=False) for holder in HOLDERS)
    groups = group(HOLDERS, "1", "2"), group(claimed, "3", "4", "5"), group((HOLDERS[0], *claimed[1:]), "6")
    for lost, tested in ((A, 2), (B, 3)):
        found = outcome("member", lost, replace(SCENE, groups=groups))
        assert (found.pulls, found.tested) == (6, tested)


def test_a_party_without_dependents_has_no_reason_of_its_kind() -> None:
    for kind in ("jurisdiction", "reach", "cloud"):
        found = outcome(kind, "FR")
        assert (found.survived, found.nodes, found.why) == (True, (), "")


def test_a_party_on_which_nothing_depends_is_reported_with_the_reason() -> None:
    for kind, name in (
        ("publisher", SCENE.publishers[0]),
        (HUB, SCENE.hubs[0]),
        (HARDWARE_ROOT, "amd"),
        (PACKAGE_INDEX, ""),
        (UPDATE_CHANNEL, ""),
        (DNS, ""),
        (CA_STORE, ""),
        (CLOCK, ""),
    ):
        found = outcome(kind, name)
        assert (found.survived, found.nodes) == (True, ())
        assert found.why


def test_without_dns_only_nodes_with_a_numeric_address_are_left() -> None:
    named = tuple(replace(node, numeric=False) for node in NODES)
    found = outcome(DNS, scene=replace(SCENE, nodes=(*named[:2], NODES[2])))
    assert (found.nodes, found.pulls, found.why) == (("node-a", "node-b"), 1, "")
    assert outcome(DNS, scene=replace(SCENE, nodes=named)).pulls == 0


def test_a_copy_of_a_node_that_does_not_answer_is_not_counted_on() -> None:
    silent = replace(NODES[1], answers=False, entries={})
    found = outcome("member", A, replace(SCENE, nodes=(NODES[0], silent, NODES[2])))
    assert (found.pulls, [item.name for item in found.fallen]) == (1, ["lab/cloudy@v1"])


def test_entries_that_only_the_lost_node_has_make_the_verdict_unknown() -> None:
    ahead = replace(NODES[0], entries=LOGS | {"node-a/log": 12})
    scene = replace(SCENE, nodes=(ahead, *NODES[1:]), read=LOGS | {"node-a/log": 12})
    found = outcome("member", A, scene)
    assert (found.pulls, found.verifies, found.survived) == (2, 0, False)
    assert [(item.origin, item.first, item.count) for item in found.remainders] == [("node-a/log", 10, 2)]
    assert {item.name: (item.before.copies, item.after.copies) for item in found.fallen} == {
        "lab/wide@v1": (3, 2),
        "lab/cloudy@v1": (2, 1),
    }
    assert outcome("member", B, scene).survived


def test_unread_entries_are_not_about_the_artifacts() -> None:
    ahead = replace(NODES[0], entries=LOGS | {"node-a/log": 10**6, "node-a/another": 1})
    scene = replace(SCENE, nodes=(ahead, *NODES[1:]))
    assert outcome("member", A, scene).survived
    assert scene.on_their_way() == ()


@given(st.lists(st.tuples(st.booleans(), st.integers(8, 11), st.booleans()), min_size=3, max_size=3))
def test_entries_are_in_transit_exactly_if_a_loss_removes_them_and_leaves_a_node(
    told: list[tuple[bool, int, bool]],
) -> None:
    nodes = tuple(
        replace(node, answers=answers, entries={"node-a/log": size} if answers else {}, numeric=numeric)
        for node, (answers, size, numeric) in zip(NODES, told, strict=True)
    )
    scene = replace(SCENE, nodes=nodes, read={"node-a/log": 10})
    cut = [item for item in drill(scene) if item.remainders]
    leaves = [item for item in cut if any(node.answers and not node.lost_with(item.party) for node in nodes)]
    assert bool(scene.on_their_way()) == bool(leaves)


def test_logs_with_lost_entries_are_listed_in_order_and_empty_ones_are_not() -> None:
    logs = {"node-z/log": 3, "node-a/log": 12, "node-b/log": 4, "node-empty/log": 0, "node-y/log": 1}
    found = outcome("member", A, replace(SCENE, nodes=(replace(NODES[0], entries=logs), *NODES[1:]), read=logs))
    assert [(item.origin, item.first, item.count) for item in found.remainders] == [
        ("node-a/log", 10, 2),
        ("node-y/log", 0, 1),
        ("node-z/log", 0, 3),
    ]


def test_a_log_that_no_other_node_has_is_lost_and_an_empty_log_is_not() -> None:
    alone = replace(SCENE, nodes=NODES[:1])
    found = outcome("member", A, alone)
    assert [(item.origin, item.first, item.count) for item in found.remainders] == [
        ("node-a/log", 0, 10),
        ("node-b/log", 0, 4),
    ]
    nobody_has = {"node-z/log": 1, "node-y/log+id+key": 2, "node-x/log": 0}
    assert replace(SCENE, read=nobody_has).on_their_way() == ("node-y/log+id+key", "node-z/log")
    (lost, _) = outcome("member", A, replace(SCENE, read=nobody_has)).remainders
    assert lost.origin == "node-y/log"


def test_many_lost_artifacts_are_counted_and_the_first_are_named() -> None:
    names = [str(at) for at in range(MAX_FALLEN + 5)]
    found = outcome("member", A, replace(SCENE, groups=(group(HOLDERS[:1], *names),)))
    assert (found.pulls, found.artifacts, len(found.fallen)) == (0, MAX_FALLEN + 5, MAX_FALLEN)
    untested = (replace(HOLDERS[0], tested=False),)
    for first in (MAX_FALLEN - 1, MAX_FALLEN):
        groups = group(HOLDERS[:1], *names[:first]), group(untested, *names[first:])
        found = outcome("member", A, replace(SCENE, groups=groups))
        assert [item.name for item in found.fallen] == names[:MAX_FALLEN]


@given(st.lists(st.sets(st.integers(0, 2)), max_size=6))
def test_an_artifact_pulls_exactly_if_a_holder_is_left(held: list[set[int]]) -> None:
    groups = (group(tuple(HOLDERS[who] for who in sorted(members)), str(at)) for at, members in enumerate(held))
    scene = replace(SCENE, groups=tuple(groups))
    for number, node in enumerate(NODES):
        found = outcome("member", node.member, scene)
        assert found.pulls == sum(bool(members - {number}) for members in held)
        assert found.pulls == found.artifacts - len(found.fallen)


def test_what_needs_a_party_without_copies_is_named_and_every_artifact_is_left() -> None:
    party = Party(PACKAGE_INDEX, "")
    needed = replace(SCENE, dependents={party: Dependents(party, 3, ("lab/x@v1",), "not installed without it")})
    found = outcome(PACKAGE_INDEX, scene=needed)
    assert (found.dependents, found.dependent_names, found.survived) == (3, ("lab/x@v1",), True)
    unknown = replace(SCENE, dependents={party: Dependents(party, None, (), "no node says it")})
    assert outcome(PACKAGE_INDEX, scene=unknown).dependents is None
