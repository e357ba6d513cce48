"""The charter over the wire: the client takes lines from nodes, computes the tally itself, and submits lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from comity.content.secrets import write_keys
from comity.trust.charter.certificate import Certificate
from comity.trust.charter.document import Body
from comity.trust.charter.votes import adopted_statement
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound, Unavailable
from comity.trust.statement import sign_statement
from comity.wire.node import Charter
from comity_client.charter.drafts import draft_admission, draft_namespaces, draft_removal
from comity_client.charter.governance import GovernanceClient
from comity_client.charter.joining import admission_drafts
from comity_client.charter.keys import prepare_resumption
from comity_client.charter.proposals import Plan, propose_plan, sign_plan, vote_plan
from comity_client.charter.state import CharterMaterial
from comity_client.client import Client
from comity_client.home import Home
from comity_client.node_home import NewNode, init_node
from comity_client.signing.votes import GovernanceKey, VoteFile, VoteHistory, open_key
from support.fake_charter import FakeCharter
from support.fakes import FakeFederation, FakeNode
from support.world import NOW

TWO = Digest("5" * 64)


@pytest.fixture
def federation() -> Iterator[FakeFederation]:
    made = FakeFederation()
    for fake in made.nodes:
        fake.governance = FakeCharter(fake)
    with made.running() as running:
        yield running


@pytest.fixture
def client(tmp_path: Path, federation: FakeFederation) -> Client:
    client = Client(Home(tmp_path / "home"))
    client.pin(federation.file())
    return client


@pytest.fixture
def governance(client: Client) -> GovernanceClient:
    return client.governance()


def key_of(folder: Path, fake: FakeNode) -> GovernanceKey:
    path = folder / f"{fake.node.record.name}.pem"
    if not path.exists():
        write_keys(path, fake.node.seat.signer.keys)
        VoteFile(path.with_suffix(".votes"), fake.node.seat.signer.public).create(VoteHistory())
    return open_key(path)


def charter(fake: FakeNode) -> FakeCharter:
    assert isinstance(fake.governance, FakeCharter)
    return fake.governance


def read(governance: GovernanceClient, key: GovernanceKey, body: Digest, to: FakeNode) -> str:
    charter_state = governance.charter_state()
    made = vote_plan(charter_state, key, charter_state.draft(body).body)
    if not isinstance(made, Plan):
        return made.why
    (delivered,) = governance.deliver(sign_plan(made, key).material, to.node.record.name)
    assert delivered.refusal is None
    return made.ceremony.statement.predicate


@pytest.mark.slow
def test_a_draft_gets_both_votes_and_becomes_the_charter(
    tmp_path: Path, federation: FakeFederation, governance: GovernanceClient
) -> None:
    keys = [key_of(tmp_path, fake) for fake in federation.nodes]
    body = draft_namespaces(governance.charter_state().current, {"alia": TWO})
    shown = sign_plan(propose_plan(governance.charter_state(), keys[0].public, body, "ours"), keys[0])
    governance.deliver(shown.material, federation.nodes[0].node.record.name)
    machines = [(key, body.digest, fake) for key, fake in zip(keys, federation.nodes, strict=True)]
    said = [
        read(governance, *machine)
        for _ in range(2)
        for machine in machines
        if governance.charter_state().current.epoch == 0
    ]
    assert said == ["intent"] * 3 + ["ratified"] * 3, "the fourth member finds a quorum that intends it"
    newest = governance.newest_federation()
    assert newest.body.digest == body.digest
    assert newest.certificates[1]


def test_a_node_that_withholds_a_line_hides_nothing_that_another_shows(
    tmp_path: Path, federation: FakeFederation, governance: GovernanceClient
) -> None:
    key = key_of(tmp_path, federation.nodes[0])
    for fake in federation.nodes[1:]:
        charter(fake).forgets = ("draft",)
    body = draft_namespaces(governance.charter_state().current, {"alia": TWO})
    shown = sign_plan(propose_plan(governance.charter_state(), key.public, body, "ours"), key)
    governance.deliver(shown.material, federation.nodes[0].node.record.name)
    assert governance.charter_state().draft(body.digest).text == "ours"


def test_what_a_newcomer_signed_is_logged_at_two_members_that_answer(
    tmp_path: Path, federation: FakeFederation, governance: GovernanceClient
) -> None:
    names = [fake.node.record.name for fake in federation.nodes]
    federation.kill(names[1])
    key = key_of(tmp_path, federation.nodes[0])
    body = draft_namespaces(governance.charter_state().current, {"alia": TWO})
    shown = sign_plan(propose_plan(governance.charter_state(), key.public, body, "ours"), key)
    told = governance.deliver_to_members(shown.material)
    assert list(told) == [names[0], names[2]]
    assert all(line.refusal is None for lines in told.values() for line in lines)
    for name in (names[0], names[2], names[3]):
        federation.kill(name)
    assert governance.deliver_to_members(shown.material) == {}


def test_a_delivered_line_that_no_node_shows_is_named_and_delivered_again(
    tmp_path: Path, federation: FakeFederation, governance: GovernanceClient
) -> None:
    key = key_of(tmp_path, federation.nodes[0])
    state = governance.charter_state()
    assert governance.lacked(state) == []
    shown = sign_plan(propose_plan(state, key.public, draft_namespaces(state.current, {"alia": TWO}), "ours"), key)
    governance.deliver(shown.material, federation.nodes[0].node.record.name)
    assert governance.lacked(governance.charter_state()) == [], "the node that logged it shows it, and all mirror it"
    for fake in federation.nodes:
        charter(fake).moved_on = True
    assert governance.lacked(governance.charter_state()) == [], "a node that went on has what it went on by"
    for fake in federation.nodes:
        charter(fake).moved_on, charter(fake).forgets = False, ("draft",)
    state = governance.charter_state()
    assert state.draft(shown.entry.statement.subject).text == "ours", "a client reads its own lines"
    (lacked,) = governance.lacked(state)
    assert lacked.stuck and (lacked.entry.line, lacked.what) == (shown.entry.line, "the draft of Institute CH (CH)")
    delivered = governance.deliver_lacked(state, [lacked])
    assert len(delivered) == 2 and all(line.refusal is None for lines in delivered.values() for line in lines)
    for fake in federation.nodes:
        charter(fake).forgets = ()
    assert governance.lacked(state) == []


def test_a_decision_is_followed_once_the_nodes_of_a_quorum_say_so(
    federation: FakeFederation, governance: GovernanceClient
) -> None:
    body = draft_namespaces(governance.federation.body, {"alia": TWO})
    decided = governance.charter_state()
    tally = replace(decided.tally, epochs=(Certificate(body, ()),), current=body)
    for number, fake in enumerate(federation.nodes[:3]):
        seen = replace(decided, tally=tally, entries=governance.charter_state().entries)
        found = governance.following(seen)
        assert (found.ahead, found.followed.epoch, len(found.members), found.needed) == (True, 0, number, 3)
        adopts(fake, body)
    found = governance.following(replace(decided, tally=tally, entries=governance.charter_state().entries))
    assert (found.ahead, found.followed) == (False, body)
    forged = sign_statement(
        adopted_statement(body, federation.nodes[3].node.record.node.id), federation.nodes[0].node.online
    )
    federation.nodes[3].log.append(forged.line)
    again = governance.following(replace(decided, tally=tally, entries=governance.charter_state().entries))
    assert len(again.members) == 3


def test_an_invented_epoch_of_a_node_changes_nothing(federation: FakeFederation, governance: GovernanceClient) -> None:
    current = governance.federation.body
    invented = draft_removal(current, federation.nodes[1].node.seat.id)
    charter(federation.nodes[0]).held = [Charter(1, invented.data, (b"{}",))]
    assert governance.charter_state().current.digest == current.digest


def test_unreachable_nodes_are_named_and_stop_nothing(federation: FakeFederation, governance: GovernanceClient) -> None:
    gone = federation.nodes[2].node.record.name
    federation.kill(gone)
    gathered = governance.gather()
    assert {name for name, _ in gathered.silent} == {gone}
    assert len(gathered.answered) == 3


def test_a_newcomer_asks_and_members_see_its_card(tmp_path: Path, federation: FakeFederation, client: Client) -> None:
    home = tmp_path / "node-br"
    card = init_node(
        home,
        NewNode(
            jurisdiction="BR",
            org="Institute BR",
            node_name="node-br.example",
            mutual="127.0.0.1:7443",
            open_="127.0.0.1:7444",
        ),
    )
    asked = client.governance().ask(home)
    assert asked.member == card.inception.id
    assert len(asked.waiting) == 4
    (asking,) = client.governance().applicants()
    assert asking.card == card

    governance, key = client.governance(), key_of(tmp_path, federation.nodes[0])
    body = draft_admission(governance.charter_state().current, asking.card.member)
    known = governance.charter_state().adding(CharterMaterial.of(asking.card.lines))
    shown = sign_plan(propose_plan(known, key.public, body, "they asked"), key)
    delivered = governance.deliver(shown.material, federation.nodes[0].node.record.name)
    assert len(delivered) == 3, "the newcomer's inception and node record go before the draft"
    assert governance.charter_state().draft(body.digest).objection is None
    (hope,) = admission_drafts(governance.charter_state(), card.inception.id)
    assert (hope.by, hope.text, hope.consented, hope.quorum) == ("Institute CH", "they asked", False, 3)


def test_a_card_that_does_not_prove_itself_is_no_request(
    tmp_path: Path, federation: FakeFederation, client: Client
) -> None:
    first, second = federation.nodes[:2]
    mixed = (first.node.seat.entry.line, second.node.entry.line)
    client.governance().run(lambda session: session.ask(lambda node: node.ask(mixed)))
    assert client.governance().applicants() == []


def test_copies_of_a_home_log_come_member_by_member(
    tmp_path: Path, federation: FakeFederation, governance: GovernanceClient
) -> None:
    key = key_of(tmp_path, federation.nodes[0])
    body = draft_namespaces(governance.charter_state().current, {"alia": TWO})
    shown = sign_plan(propose_plan(governance.charter_state(), key.public, body, "ours"), key)
    governance.deliver(shown.material, federation.nodes[0].node.record.name)
    assert read(governance, key, body.digest, federation.nodes[0]) == "intent"
    key.votes.path.unlink()
    assert "must not vote" in read(governance, key, body.digest, federation.nodes[0])
    decided = prepare_resumption(governance.charter_state(), key, governance.material_by_member())
    assert [reading.body for reading in decided.found] == [body.digest]


def test_without_a_pin_or_a_node_there_is_no_charter_state_and_no_answer(
    tmp_path: Path, federation: FakeFederation, client: Client
) -> None:
    with pytest.raises(NotFound) as which:
        Client(Home(tmp_path / "nobody")).governance()
    assert which.value.code == "WHICH-FEDERATION"
    for fake in federation.nodes:
        federation.kill(fake.node.record.name)
    for question in (client.governance().applicants, client.governance().charter_state):
        with pytest.raises(Unavailable):
            question()


def adopts(fake: FakeNode, body: Body) -> None:
    fake.log.append(sign_statement(adopted_statement(body, fake.node.record.node.id), fake.node.online).line)


def test_a_charter_is_confirmed_by_the_cosigned_home_logs_of_enough_members(
    federation: FakeFederation, governance: GovernanceClient
) -> None:
    found = governance.confirm(governance.charter_state())
    assert (found.epoch, found.confirmed, found.needed, found.enough) == (0, 4, 2, True)
    assert {len(head.cosigners) for head in found.heads} == {3}, "a member's own cosignature does not count"
    assert found.seen(NOW) == NOW


def test_a_client_with_an_old_charter_sees_that_members_follow_another(
    federation: FakeFederation, governance: GovernanceClient
) -> None:
    hidden = draft_namespaces(governance.federation.body, {"alia": TWO})
    for fake in federation.nodes[:2]:
        adopts(fake, hidden)
    found = governance.confirm(governance.charter_state())
    assert {head.name for head in found.elsewhere} == {"Institute CH", "Institute SG"}
    assert (found.confirmed, found.enough) == (2, False)


def test_a_stranger_adopts_nothing_in_a_members_name(federation: FakeFederation, governance: GovernanceClient) -> None:
    hidden = draft_namespaces(governance.federation.body, {"alia": TWO})
    first, second = federation.nodes[:2]
    forged = sign_statement(adopted_statement(hidden, first.node.record.node.id), second.node.online)
    first.log.append(forged.line)
    assert governance.confirm(governance.charter_state()).elsewhere == ()


def test_the_age_of_a_frozen_view_shows(federation: FakeFederation, governance: GovernanceClient) -> None:
    for fake in federation.nodes:
        fake.cosigners = {}
    found = governance.confirm(governance.charter_state())
    assert (found.confirmed, found.seen(NOW), found.enough) == (0, None, False)
