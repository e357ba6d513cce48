"""Charter votes by carried files alone: no node, no network; homes, folders of lines, and ceremony files."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from comity.federation_file import Federation
from comity.trust.charter.document import Body, quorum
from comity.trust.charter.votes import Intent, Ratify
from comity.trust.encoding import Digest
from comity.trust.errors import Conflict, Refused, Unavailable, Untrusted
from comity_client.charter.drafts import (
    draft_admission,
    draft_namespaces,
    draft_policy_change,
    draft_rekeying,
    draft_removal,
    rebase_draft,
)
from comity_client.charter.joining import carried_nodes, extended_federation, make_invitation
from comity_client.charter.keys import (
    PreparedRotation,
    apply_node_record,
    apply_rotation,
    own_chain,
    prepare_resumption,
    prepare_rotation,
    resume_voting,
)
from comity_client.charter.proposals import (
    NothingToSign,
    Plan,
    consent_plan,
    leave_plan,
    plan_carried,
    propose_plan,
    sign_plan,
    sign_plan_with_all,
    vote_plan,
)
from comity_client.charter.state import (
    CharterMaterial,
    CharterState,
    federation_charter_state,
    federation_material,
    pending_actions,
    read_folder,
    write_folder,
)
from comity_client.founding import consent_to, draft_genesis, seal_federation
from comity_client.node_card import NodeCard
from comity_client.node_home import NewNode, init_node
from comity_client.signing.seat_keys import SeatShape
from comity_client.signing.votes import (
    Ceremony,
    GovernanceKey,
    SigningPanel,
    VoteHistory,
    find_keys,
    open_key,
    parse_vote_payload,
    read_public,
    write_public,
)
from comity_client.trust_store import TrustStore
from support.softhsm import token

CODES = ("CH", "ES", "KR", "SG", "BR")


@dataclass
class MemberOffice:
    """A member's people: a home, the federation file that they pinned, and a folder for the lines that others carry to
    them.
    """

    home: Path
    card: NodeCard
    pinned: Federation | None = None
    seen: tuple[CharterMaterial, CharterState] | None = None

    @property
    def id(self) -> Digest:
        return self.card.inception.id

    @property
    def federation(self) -> Federation:
        assert self.pinned is not None
        return self.pinned

    @property
    def folder(self) -> Path:
        return self.home / "carried"

    @property
    def keys(self) -> list[GovernanceKey]:
        return find_keys(self.home / "offline", self.card.state.keys)

    def charter_state(self) -> CharterState:
        known = read_folder(self.folder) if self.folder.is_dir() else CharterMaterial()
        if self.seen is None or self.seen[0] != known:
            self.seen = known, federation_charter_state(self.federation, known)
        return self.seen[1]

    @property
    def current(self) -> Body:
        return self.charter_state().current

    def propose(self, body: Body, text: str = "because") -> None:
        self.put(propose_plan(self.charter_state(), self.keys[0].public, body, text))

    def read(self, body: Digest, *, stalled: bool = False) -> str:
        """Sign the next vote, and return which: `intent 1`; or why there is none."""
        draft = self.charter_state().draft(body).body
        made = vote_plan(self.charter_state(), self.keys[0], draft, stalled=stalled)
        if isinstance(made, NothingToSign):
            return made.why
        self.put(made)
        reading = parse_vote_payload(made.ceremony.payload)
        return f"{'intent' if isinstance(reading, Intent) else 'ratify'} {reading.round}"

    def agree(self, body: Digest) -> None:
        self.put(consent_plan(self.charter_state(), self.charter_state().draft(body).body, self.id))

    def put(self, shown: Plan) -> None:
        write_folder(self.folder, sign_plan_with_all(shown, self.keys).material)


def office(root: Path, code: str, shape: SeatShape | None = None) -> MemberOffice:
    name = f"node-{code.lower()}.example"
    where: dict[str, Any] = {"mutual": "127.0.0.1:7443", "open_": "127.0.0.1:7444"}
    home = root / code
    return MemberOffice(
        home,
        init_node(
            home,
            NewNode(jurisdiction=code, org=f"Institute {code}", node_name=name, **where, seat=shape or SeatShape()),
        ),
    )


def carry(offices: Iterable[MemberOffice]) -> None:
    """Every member gets the lines of all others, as on a stick that is carried to each twice."""
    offices = list(offices)
    for source in offices:
        for target in offices:
            if source is not target and source.folder.is_dir():
                shutil.copytree(source.folder, target.folder, dirs_exist_ok=True)


def decide(offices: Sequence[MemberOffice], body: Body) -> None:
    """All of `offices` sign both votes, and carry lines in between."""
    carry(offices)
    assert {each.read(body.digest) for each in offices} == {"intent 1"}
    carry(offices)
    assert {each.read(body.digest) for each in offices} == {"ratify 1"}
    carry(offices)
    assert {each.current.digest for each in offices} == {body.digest}


@pytest.fixture(scope="module", name="founders")
def _founders(tmp_path_factory: pytest.TempPathFactory) -> list[MemberOffice]:
    """Four members that have founded a federation; the second has three governance keys, two of which sign."""
    root = tmp_path_factory.mktemp("founders")
    offices = [office(root, code, SeatShape(3) if code == "ES" else None) for code in CODES[:4]]
    cards = [each.card for each in offices]
    body = draft_genesis(cards)
    federation = seal_federation(body, [consent_to(body, each.home) for each in offices], cards)
    return [dataclasses.replace(each, pinned=federation) for each in offices]


@pytest.fixture(name="four")
def _four(tmp_path: Path, founders: list[MemberOffice]) -> list[MemberOffice]:
    """The founders, with homes of this test only."""
    for each in founders:
        shutil.copytree(each.home, tmp_path / each.home.name)
    return [dataclasses.replace(each, home=tmp_path / each.home.name) for each in founders]


def newcomer(tmp_path: Path, offices: Sequence[MemberOffice]) -> MemberOffice:
    fifth = office(tmp_path, "BR")
    fifth.pinned = offices[0].federation
    return fifth


def test_a_fifth_member_joins(tmp_path: Path, four: list[MemberOffice]) -> None:
    fifth = newcomer(tmp_path, four)
    body = draft_admission(four[0].current, fifth.card.member)
    assert body.quorum == quorum(5)
    known = four[0].charter_state().adding(CharterMaterial.of(fifth.card.lines))
    four[0].put(propose_plan(known, four[0].keys[0].public, body, "they mirror what we publish"))
    carry([*four, fifth])
    assert ("Institute BR", "consented") in {
        (turn.name, turn.action) for turn in pending_actions(four[2].charter_state())
    }
    fifth.agree(body.digest)
    carry([*four, fifth])
    decide(four, body)
    carry([*four, fifth])
    assert fifth.current.digest == body.digest
    assert fifth.charter_state().seat_of(fifth.keys[0].public)[0].id == fifth.id


def test_a_newcomer_pins_an_invitation_and_later_moves_its_pin_along_the_certificates(
    tmp_path: Path, four: list[MemberOffice]
) -> None:
    fifth = newcomer(tmp_path, four)
    store = TrustStore(tmp_path)
    invitation = make_invitation(four[0].federation)
    assert store.diff(invitation.federation).relation == "new"
    store.pin(invitation.federation)
    body = draft_admission(four[0].current, fifth.card.member)
    four[0].propose(body)
    write_folder(four[0].folder, CharterMaterial.of(fifth.card.lines))
    carry([*four, fifth])
    fifth.agree(body.digest)
    carry([*four, fifth])
    decide(four, body)

    newer = extended_federation(four[1].federation, four[1].charter_state(), carried_nodes(four[1].charter_state()))
    assert [node.record.name for node in newer.nodes][-1] == fifth.card.record.name
    diff = store.diff(newer.encode())
    assert (diff.relation, diff.epochs) == ("forward", (0, 1))
    assert {(change.what, change.before) for change in diff.changes if change.name == fifth.id} == {("member", "")}
    assert store.pin(newer.encode()).body == body.digest
    assert store.diff(invitation.federation).relation == "back"
    with pytest.raises(Conflict) as back:
        store.pin(invitation.federation)
    assert back.value.code == "PIN-BACK"


def test_a_pin_follows_another_branch_only_if_its_owner_says_so(tmp_path: Path, four: list[MemberOffice]) -> None:
    branches = []
    for name in ("one", "two"):
        for each in four:
            shutil.rmtree(each.folder, ignore_errors=True)
            for key in each.keys:  # members that equivocate: their vote files are deleted
                key.votes.path.unlink()
                key.votes.create(VoteHistory())
        body = draft_namespaces(four[0].federation.body, {name: Digest("5" * 64)})
        four[0].propose(body)
        decide(four, body)
        branches.append(extended_federation(four[0].federation, four[0].charter_state()).encode())
    store = TrustStore(tmp_path)
    store.pin(branches[0])
    diff = store.diff(branches[1])
    assert (diff.relation, diff.common) == ("fork", 0)
    with pytest.raises(Conflict) as fork:
        store.pin(branches[1])
    assert fork.value.code == "FORK"
    assert store.pin(branches[1], branch=True).federation.body.namespaces == {"two": "5" * 64}

    both = federation_charter_state(
        four[0].federation, federation_material(Federation.parse(branches[0])), read_folder(four[0].folder)
    )
    assert len({lie.member for lie in both.tally.equivocations}) >= 2  # 2q - n, by the certificates alone
    with pytest.raises(Conflict, match="governance is stopped"):
        propose_plan(both, four[0].keys[0].public, draft_namespaces(both.current, {}), "x")


def test_a_body_without_the_newcomers_consent_is_never_decided(tmp_path: Path, four: list[MemberOffice]) -> None:
    fifth = newcomer(tmp_path, four)
    body = draft_admission(four[0].current, fifth.card.member)
    four[0].propose(body)
    write_folder(four[0].folder, CharterMaterial.of(fifth.card.lines))
    carry(four)
    assert {each.read(body.digest) for each in four} == {"intent 1"}
    carry(four)
    assert all("consent of Institute BR" in each.read(body.digest) for each in four)
    assert four[0].current.epoch == 0


def test_a_member_is_removed_and_keeps_its_files(four: list[MemberOffice]) -> None:
    gone = four[3]
    body = draft_removal(four[0].current, gone.id)
    four[0].propose(body, "it asked us to")
    decide(four[:3], body)
    carry(four)
    assert gone.current.member(gone.id) is None
    with pytest.raises(Refused) as refused:
        propose_plan(gone.charter_state(), gone.keys[0].public, draft_namespaces(gone.current, {}), "no")
    assert refused.value.code == "NO-SEAT"


def test_policy_and_namespaces_change_by_quorum(four: list[MemberOffice]) -> None:
    policy = dataclasses.replace(four[0].current.policy, min_copies=4)
    first = draft_policy_change(four[0].current, policy)
    four[1].propose(first)
    decide(four, first)
    second = draft_namespaces(four[0].current, {"swiss-ai": Digest("5" * 64)})
    four[2].propose(second)
    carry(four)
    for _ in range(2):
        for each in four[1:]:
            each.read(second.digest)
        carry(four)
    assert four[0].current.namespaces == {"swiss-ai": "5" * 64}
    assert four[0].current.policy == policy


def test_a_member_changes_its_keys_and_the_charter_follows(four: list[MemberOffice]) -> None:
    me = four[0]
    used = [open_key(me.home / "offline" / "recovery.pem")]
    prepared = prepare_rotation(
        me.charter_state(), me.home, SeatShape(governance=2, recovery=2), [key.public for key in used]
    )
    assert not (me.home / "offline" / "rotation-1").exists(), "nothing is written before the plan was seen"
    rotated = sign_plan_with_all(prepared.begin(), used)
    write_folder(me.folder, rotated.material)
    record = sign_plan_with_all(apply_rotation(me.home, rotated), prepared_keys(me, prepared))
    me.card = apply_node_record(me.home, record)
    write_folder(me.folder, record.material)
    carry(four)
    body = draft_rekeying(me.current, me.charter_state().chain(me.id).current)
    me.propose(body, "our keys are a year old")
    decide(four, body)
    seat = four[1].current.member(me.id)
    assert seat is not None
    assert (seat.keys, seat.recovery) == (prepared.keys.keys, prepared.keys.recovery)
    assert NodeCard.parse((me.home / "node-card.json").read_bytes()) == me.card
    old = open_key(me.home / "offline" / "governance.pem")
    with pytest.raises(Refused):
        me.charter_state().seat_of(old.public)


def prepared_keys(me: MemberOffice, prepared: PreparedRotation) -> list[GovernanceKey]:
    return find_keys(me.home / "offline", prepared.keys.keys)


def test_two_of_three_recovery_keys_in_two_places_change_the_keys(tmp_path: Path) -> None:
    me = office(tmp_path, "KE", SeatShape(recovery=3))
    body = draft_genesis([me.card])
    me.pinned = seal_federation(body, [consent_to(body, me.home)], [me.card])
    offline, safes = me.home / "offline", [tmp_path / "safe-1.pem", tmp_path / "safe-2.pem"]
    for number, safe in enumerate(safes, start=1):
        shutil.move(offline / f"recovery-{number}.pem", safe)
        write_public(tmp_path / f"public-{number}.json", open_key(safe).public)
    public = [read_public(tmp_path / f"public-{number}.json") for number in (1, 2)]
    with pytest.raises(Untrusted, match="1 of 3 recovery keys") as few:
        prepare_rotation(me.charter_state(), me.home, SeatShape(), public[:1])
    assert few.value.code == "TOO-FEW-KEYS"

    carried = (
        prepare_rotation(me.charter_state(), me.home, SeatShape(), public).begin().ceremony.encode("new-keys.json")
    )
    for safe in safes:
        shown = plan_carried(carried)  # an offline machine, with this key only
        assert shown.title == "NEW KEYS: Institute KE (KE) changes its keys, for the first time"
        carried = sign_plan(shown, open_key(safe)).ceremony.encode()
    rotated = plan_carried(carried, me.charter_state())
    assert rotated.ceremony.complete
    apply_rotation(me.home, rotated)
    assert own_chain(me.charter_state(), me.home).current.seq == 1


def test_votes_of_the_old_keys_in_this_epoch_bind_the_new_keys(four: list[MemberOffice]) -> None:
    me = four[0]
    one, two = (draft_namespaces(me.current, {name: Digest("5" * 64)}) for name in ("one", "two"))
    me.propose(one)
    four[1].propose(two)
    carry(four)
    assert me.read(one.digest) == "intent 1"
    used = [open_key(me.home / "offline" / "recovery.pem")]
    prepared = prepare_rotation(me.charter_state(), me.home, SeatShape(), [key.public for key in used])
    rotated = sign_plan_with_all(prepared.begin(), used)
    write_folder(me.folder, rotated.material)
    (key,) = prepared_keys(me, prepared)
    with pytest.raises(Untrusted) as twice:
        key.votes.permit(Intent(me.id, me.current.digest, 1, 1, two.digest))
    assert twice.value.code == "VOTE-TWICE"


def test_new_keys_do_not_vote_in_this_epoch_if_the_old_votes_are_lost(four: list[MemberOffice]) -> None:
    me = four[0]
    (me.home / "offline" / "governance.votes").unlink()
    used = [open_key(me.home / "offline" / "recovery.pem")]
    prepared = prepare_rotation(me.charter_state(), me.home, SeatShape(), [key.public for key in used])
    prepared.begin()
    (key,) = prepared_keys(me, prepared)
    assert key.votes.load(me.current.digest).lost(me.current.digest)


def test_two_of_three_keys_in_two_places_sign_as_one_member(tmp_path: Path, four: list[MemberOffice]) -> None:
    spain = four[1]
    one, two, three = spain.keys
    elsewhere = tmp_path / "ministry"
    elsewhere.mkdir()
    for path in (two.path, two.votes.path):
        shutil.move(path, elsewhere / path.name)
    body = draft_namespaces(spain.current, {"alia": Digest("7" * 64)})
    four[0].propose(body)
    carry(four)

    made = vote_plan(spain.charter_state(), one, body)
    assert isinstance(made, Plan)
    half = sign_plan(made, one)
    with pytest.raises(Unavailable, match="1 more of the governance keys") as waiting:
        _ = half.entry
    assert waiting.value.code == "CEREMONY"
    carried = half.ceremony.encode("intent.json")
    assert b"comity keys sign intent.json --key" in carried

    second = open_key(elsewhere / two.path.name)
    shown = plan_carried(carried)  # this machine holds a key, and nothing else
    assert shown.title.startswith("INTENT, round 1: Institute ES (ES)")
    assert [(change.what, change.name) for change in shown.changes] == [("namespace", "alia")]
    assert any("no federation is known here" in warning for warning in shown.warnings)
    done = sign_plan(shown, second)
    assert done.ceremony.complete
    write_folder(spain.folder, done.material)
    assert spain.id in spain.charter_state().tally.voters_by_round[1]

    with pytest.raises(Untrusted) as twice:
        second.votes.permit(Intent(spain.id, spain.current.digest, 1, 1, Digest("9" * 64)))
    assert twice.value.code == "VOTE-TWICE"
    assert three.votes.load(spain.current.digest).votes == ()


def test_two_copies_signed_in_two_places_are_merged(four: list[MemberOffice]) -> None:
    spain = four[1]
    one, two, _ = spain.keys
    body = draft_namespaces(spain.current, {"alia": Digest("7" * 64)})
    carried = propose_plan(spain.charter_state(), one.public, body, "x").ceremony.encode()
    here, there = (sign_plan(plan_carried(carried, spain.charter_state()), key).ceremony for key in (one, two))
    assert not here.complete
    assert here.joined(Ceremony.parse(there.encode())).complete
    other = propose_plan(spain.charter_state(), one.public, body, "y").ceremony
    with pytest.raises(Conflict):
        here.joined(other)


def test_a_key_votes_for_its_own_member_only(four: list[MemberOffice]) -> None:
    spain, korea = four[1], four[2]
    body = draft_namespaces(spain.current, {"alia": Digest("7" * 64)})
    four[0].propose(body)
    carry(four)
    made = vote_plan(spain.charter_state(), spain.keys[0], body)
    assert isinstance(made, Plan)
    panel = SigningPanel("governance", korea.card.inception.keys)
    bent = plan_carried(dataclasses.replace(made.ceremony, panels=(panel,)).encode(), korea.charter_state())
    with pytest.raises(Refused, match="another member") as refused:
        sign_plan(bent, korea.keys[0])
    assert refused.value.code == "NOT-A-SIGNER"
    assert korea.keys[0].votes.load(korea.current.digest).votes == ()


def test_a_vote_that_another_officer_drew_up_without_a_quorums_intent_is_not_signed(four: list[MemberOffice]) -> None:
    spain = four[1]
    body = draft_namespaces(spain.current, {"alia": Digest("7" * 64)})
    four[0].propose(body)
    carry(four)
    made = vote_plan(spain.charter_state(), spain.keys[0], body)
    assert isinstance(made, Plan)
    hasty = Ratify(spain.id, spain.current.digest, 1, 1, body.digest).statement().encode()
    bent = plan_carried(dataclasses.replace(made.ceremony, payload=hasty).encode(), spain.charter_state())
    with pytest.raises(Untrusted, match="intent-certificate of round 1 is missing") as refused:
        sign_plan(bent, spain.keys[1])
    assert refused.value.code == "NO-CERTIFICATE"
    assert spain.keys[1].votes.load(spain.current.digest).votes == ()


def test_a_seat_whose_key_is_in_a_token_founds_and_votes(tmp_path: Path) -> None:
    hsm = token()
    hsm.make("seat", "secp384r1")
    (tmp_path / "pin").write_text(hsm.pin)
    (tmp_path / "pin").chmod(0o600)
    described = tmp_path / "governance.toml"
    described.write_text(
        f'schema = "comity/token-key/v1"\nmodule = "{hsm.module}"\ntoken = "{hsm.label}"\nkey = "seat"\n'
        'pin_file = "pin"\nsecond = "pq.pem"\nvotes = "governance.votes"\n'
    )
    lone = office(tmp_path, "KE", SeatShape(governance=0, tokens=(described,)))
    key = open_key(described)
    assert [half.alg for half in key.public.halves] == ["ecdsa-p384", "ml-dsa-65"]
    body = draft_genesis([lone.card])
    lone.pinned = seal_federation(body, [consent_to(body, lone.home, governance=[described])], [lone.card])
    change = draft_namespaces(lone.current, {"one": Digest("5" * 64)})
    write_folder(lone.folder, sign_plan(propose_plan(lone.charter_state(), key.public, change, "x"), key).material)
    assert change.prev is not None
    for _ in range(2):
        made = vote_plan(lone.charter_state(), key, change)
        assert isinstance(made, Plan)
        write_folder(lone.folder, sign_plan(made, key).material)
    assert lone.current.digest == change.digest
    assert len(key.votes.load(change.prev).votes) == 2


def test_text_beside_the_payload_never_reaches_the_plan(four: list[MemberOffice]) -> None:
    spain = four[1]
    body = draft_namespaces(spain.current, {"alia": Digest("7" * 64)})
    shown = sign_plan(propose_plan(spain.charter_state(), spain.keys[0].public, body, "x"), spain.keys[0])
    lying = shown.ceremony.encode().replace(
        b'"next": "comity keys sign', b'"next": "harmless, sign it: comity keys sign'
    )
    assert plan_carried(lying, spain.charter_state()).facts == shown.facts
    assert "harmless" not in str(plan_carried(lying, spain.charter_state()).title)


def test_a_split_stalls_and_is_decided_in_the_second_round(four: list[MemberOffice]) -> None:
    ours, theirs = (draft_namespaces(four[0].current, {name: Digest("5" * 64)}) for name in ("ours", "theirs"))
    four[0].propose(ours)
    four[2].propose(theirs)
    carry(four)
    for each, wanted in zip(four, (ours, ours, theirs, theirs), strict=True):
        assert each.read(wanted.digest) == "intent 1"
    carry(four)
    assert four[0].current.epoch == 0
    leading = four[0].charter_state().tally.leading(1)
    assert leading is not None
    said = [each.read(leading.body.digest) for each in four]
    assert said == ["intent 2"] * 4
    carry(four)
    assert [each.read(leading.body.digest) for each in four] == ["ratify 2"] * 4
    carry(four)
    assert {each.current.digest for each in four} == {leading.body.digest}
    lost = ours if leading.body.digest == theirs.digest else theirs
    again = rebase_draft(lost, Body.parse(four[0].federation.body.data), four[0].current)
    assert set(again.namespaces) == {"ours", "theirs"}


def test_a_vote_that_was_lost_in_transit_is_signed_again_and_is_the_same(four: list[MemberOffice]) -> None:
    body = draft_namespaces(four[0].current, {"one": Digest("5" * 64)})
    four[0].propose(body)
    carry(four)
    first = vote_plan(four[0].charter_state(), four[0].keys[0], body)
    assert isinstance(first, Plan)
    sign_plan_with_all(first, four[0].keys)  # a crash: nothing reached the folder
    again = vote_plan(four[0].charter_state(), four[0].keys[0], body)
    assert isinstance(again, Plan)
    assert again.ceremony.payload == first.ceremony.payload
    four[0].put(again)
    assert four[0].id in four[0].charter_state().tally.voters_by_round[1]


def test_a_restored_backup_of_the_vote_file_is_detected_and_the_key_does_not_vote_in_this_epoch(
    four: list[MemberOffice],
) -> None:
    me = four[0]
    backup = (me.home / "offline" / "governance.votes").read_bytes()
    body = draft_namespaces(me.current, {"one": Digest("5" * 64)})
    me.propose(body)
    carry(four)
    me.read(body.digest)
    (me.home / "offline" / "governance.votes").write_bytes(backup)
    assert "must not vote in this epoch" in me.read(body.digest)


def test_an_owner_who_lost_the_votes_needs_the_copies_of_all_others_to_vote_again(four: list[MemberOffice]) -> None:
    me, others = four[0], four[1:]
    body = draft_namespaces(me.current, {"one": Digest("5" * 64)})
    me.propose(body)
    carry(four)
    me.read(body.digest)
    carry(four)
    (me.home / "offline" / "governance.votes").unlink()
    assert "must not vote" in me.read(body.digest)
    copies = {each.id: read_folder(each.folder) for each in others}
    with pytest.raises(Refused, match="Institute SG") as refused:
        prepare_resumption(me.charter_state(), me.keys[0], {k: v for k, v in copies.items() if k != four[3].id})
    assert refused.value.code == "VOTES-COPIES"
    decided = prepare_resumption(me.charter_state(), me.keys[0], copies)
    assert "equivocated" in decided.risk
    assert [reading.body for reading in decided.found] == [body.digest]
    resume_voting(decided)
    for each in others:
        each.read(body.digest)
    carry(four)
    assert me.read(body.digest) == "ratify 1"


def test_a_draft_that_would_make_the_quorum_unreachable_is_refused_with_names(four: list[MemberOffice]) -> None:
    one = draft_namespaces(four[0].current, {"one": Digest("5" * 64)})
    four[0].propose(one)
    decide(four[:3], one)
    shrunk = draft_removal(four[0].current, four[1].id)
    with pytest.raises(Refused, match="Institute SG") as refused:
        four[0].propose(shrunk)
    assert refused.value.code == "STRANDED"
    assert propose_plan(four[0].charter_state(), four[0].keys[0].public, shrunk, "we know", despite_quorum=True)


def test_a_leaving_member_stays_a_member_until_a_charter_removes_it(four: list[MemberOffice]) -> None:
    going = four[3]
    going.put(leave_plan(going.charter_state(), going.keys[0].public, "our mandate ends"))
    carry(four)
    assert four[0].charter_state().tally.left == {going.id}
    assert four[0].current.member(going.id) is not None
    body = draft_removal(four[0].current, going.id)
    four[0].propose(body)
    decide(four[:3], body)


def test_a_federation_without_a_quorum_is_founded_again_and_names_the_old_one(four: list[MemberOffice]) -> None:
    two = four[:2]
    cards = [each.card for each in two]
    body = draft_genesis(cards, predecessor=four[0].current)
    federation = seal_federation(body, [consent_to(body, each.home) for each in two], cards)
    assert federation.body.predecessor == four[0].current.digest
    assert federation.id != four[0].federation.id


def test_a_certified_draft_cannot_be_rebased_on_a_conflicting_change(four: list[MemberOffice]) -> None:
    before = four[0].current
    mine = draft_policy_change(before, dataclasses.replace(before.policy, min_copies=4))
    theirs = draft_policy_change(before, dataclasses.replace(before.policy, min_copies=2))
    with pytest.raises(Conflict) as conflict:
        rebase_draft(mine, before, theirs)
    assert conflict.value.code == "REBASE"


def test_a_ceremony_file_with_a_signature_that_is_not_over_its_payload_is_refused(four: list[MemberOffice]) -> None:
    spain = four[1]
    body = draft_namespaces(spain.current, {"alia": Digest("7" * 64)})
    half = sign_plan(propose_plan(spain.charter_state(), spain.keys[0].public, body, "x"), spain.keys[0]).ceremony
    other = propose_plan(spain.charter_state(), spain.keys[0].public, body, "y").ceremony
    mixed = dataclasses.replace(other, signatures=half.signatures)
    with pytest.raises(Exception, match="belongs to no key of its panels"):
        Ceremony.parse(mixed.encode())


def test_duplicate_and_junk_files_do_not_disturb_carried_ones(tmp_path: Path, four: list[MemberOffice]) -> None:
    body = draft_namespaces(four[0].current, {"one": Digest("5" * 64)})
    four[0].propose(body)
    material = federation_material(four[0].federation) | read_folder(four[0].folder)
    folder = tmp_path / "stick"
    assert write_folder(folder, material) == len(material.lines)
    assert write_folder(folder, material) == 0
    (folder / "lines" / "junk.line").write_bytes(b"\xff\x00")
    assert read_folder(folder).lines == material.lines | {b"\xff\x00"}
    assert federation_charter_state(four[0].federation, read_folder(folder)).draft(body.digest).body == body


def test_the_online_key_of_a_node_has_no_seat(four: list[MemberOffice]) -> None:
    me = four[0]
    online = open_key(me.home / "keys" / "online.pem")
    with pytest.raises(Refused) as refused:
        propose_plan(me.charter_state(), online.public, me.current, "x")
    assert refused.value.code == "NO-SEAT"
