"""Which members and nodes count, how epochs and rotations change that, and at which addresses nodes are expected."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.node import members as members_module
from comity.node.charter.follower import governance_report
from comity.node.members import MAX_NODES, OUTSIDE_LOG, FoundRecord, Membership, OwnNode, PeerKey
from comity.rules.charter_drafts import draft
from comity.rules.signing import sign_content
from comity.trust.charter.document import CharterPolicy, Member, quorum
from comity.trust.errors import Untrusted
from comity.trust.home_logs import NamedLog
from comity.trust.identity import KeySet
from comity.trust.keys import HybridSigner
from comity.trust.node_records import NodeRecord, certificate_key
from comity.trust.rotation import KeyState, Rotation, rotate
from comity.trust.statement import Entry
from comity.trust.tlog.note import Checkpoint, SignedNote, VerifierKey, log_verifier_key
from comity.wire.node_status import LogStatus
from comity.wire.tls import CertificatePin, make_certificate
from support.world import Identity, Node, found, node, private_key, seat, signer

CLASSICAL = ("ed25519",)
CH, SG, ES, KR, BR = (seat(code, CLASSICAL) for code in ("CH", "SG", "ES", "KR", "BR"))
FEDERATION = found([node(who) for who in (CH, SG, ES, KR)])


def own_seat(who: Identity = CH) -> OwnNode:
    return OwnNode.parse(who.entry.line, node(who).entry.line)


def start() -> Membership:
    return Membership(own_seat(), FEDERATION)


def next_epoch(members: Membership, *seats: Member) -> None:
    """Follow an epoch with these seats; its certificate is not checked here."""
    assert members.body is not None
    members.adopt(draft(members.body, members=seats, policy=CharterPolicy(quorum(len(seats)), 1, 1, 0)))


def rotated(who: Identity, name: str, before: KeyState | None = None) -> tuple[HybridSigner, KeyState, Entry]:
    """Change the keys of `who`, from its seat or from `before`."""
    state = before or KeyState.of_inception(who.inception)
    new, recovery = signer(f"{name} new", CLASSICAL), signer(f"{who.inception.label} recovery", CLASSICAL)
    keys = KeySet((new.public,), 1)
    entry = rotate(state, Rotation(who.id, 1, state.digest, keys, ()), [recovery], [new])
    return new, KeyState(who.id, keys, (), state.home, 1), entry


def renewed(of: Node, governance: HybridSigner, tls: str) -> Entry:
    """A record of the same node with another TLS certificate, signed by `governance`."""
    key = private_key(tls, "ecdsa-p256")
    record = replace(of.record, tls=make_certificate(key))
    bound = (HybridSigner((of.log,)), of.cosigner, of.online, HybridSigner((key,)))
    return sign_content(record, governance, *bound)


def called_like(of: Node, other: Node) -> Entry:
    """A record of `of` with the name and the origin of `other`, and keys of its own."""
    record = replace(of.record, name=other.record.name, log=log_verifier_key(other.origin, of.log.public))
    bound = (HybridSigner((of.log,)), of.cosigner, of.online, HybridSigner((of.tls,)))
    return sign_content(record, of.seat.signer, *bound)


def shown(members: Membership, of: Node) -> tuple[bytes, ...]:
    peer = members.peer(PeerKey.of(of.record))
    assert peer is not None
    return peer.certificates


def certificate(tls: str) -> bytes:
    """The key of a certificate: no two certificates are equal."""
    return private_key(tls, "ecdsa-p256").public.raw


def test_the_other_nodes_of_the_file_are_peers_and_pinned() -> None:
    members = start()
    assert {peer.name for peer in members.peers} == {node(who).record.name for who in (SG, ES, KR)}
    assert set(members.pins()) == {CertificatePin.of(node(who).record.tls) for who in (SG, ES, KR)}
    assert members.by_certificate(node(SG).record.tls) == members.peer(PeerKey.of(node(SG).record))
    assert members.log_keys(node(CH).origin) == (node(CH).record.log,)
    assert members.node(node(SG).record.node) == node(SG).record
    assert members.seated


def test_a_node_is_learned_from_a_record_that_the_charter_proves() -> None:
    members = Membership(own_seat(), replace(FEDERATION, nodes=()))
    told = [FoundRecord(node(who).entry) for who in (CH, SG, BR)]
    assert [peer.name for peer in members.learn(told)] == [node(SG).record.name]
    assert members.learn(told) == ()
    assert members.pins() == (CertificatePin.of(node(SG).record.tls),)
    assert members.log_keys(node(BR).origin) == ()


def test_a_node_outside_of_any_federation_knows_itself_only() -> None:
    members = Membership(own_seat(), None)
    assert members.peers == () and not members.seated
    assert members.learn([FoundRecord(node(SG).entry)]) == ()
    assert {key for key, _ in members.cosigners.values()} == set(node(CH).record.cosigners)


def test_a_node_moves_to_the_address_that_it_states() -> None:
    members = start()
    members.relocate(PeerKey.of(node(SG).record), ("new.example:1",), ())
    members.relocate(PeerKey(SG.id, "nobody/log"), ("x.example:1",), ())
    peer = members.peer(PeerKey.of(node(SG).record))
    assert peer is not None and (peer.announced_mutual, peer.announced_open) == (("new.example:1",), ())


def test_a_record_of_another_member_is_no_seat() -> None:
    with pytest.raises(Untrusted):
        OwnNode.parse(CH.entry.line, node(SG).entry.line)


def test_a_newcomers_node_counts_from_its_epoch_on() -> None:
    members = start()
    assert members.learn([FoundRecord(node(BR).entry)]) == ()
    next_epoch(members, *(who.member for who in (CH, SG, ES, KR, BR)))
    assert [peer.name for peer in members.learn([FoundRecord(node(BR).entry)])] == [node(BR).record.name]
    assert CertificatePin.of(node(BR).record.tls) in members.pins()
    assert all(members.cosigner_key(key.name, key.key_id) == key for key in node(BR).record.cosigners)


def test_i10_a_removed_member_stops_counting_and_stays_known() -> None:
    members = start()
    next_epoch(members, *(who.member for who in (CH, SG, ES)))
    peer = members.peer(PeerKey.of(node(KR).record))
    assert peer is not None
    assert members.member(KR.id) is None
    assert members.log_keys(node(KR).origin) == (node(KR).record.log,)
    assert CertificatePin.of(node(KR).record.tls) in members.pins()
    assert members.node(node(KR).record.node) == node(KR).record
    assert all(members.cosigner_key(key.name, key.key_id) == key for key in node(KR).record.cosigners)


def test_a_removed_members_own_node_knows_that_it_has_no_seat() -> None:
    members = start()
    next_epoch(members, *(who.member for who in (SG, ES, KR)))
    assert not members.seated
    assert len(members.peers) == 3


def test_rotated_keys_bind_a_node_and_retired_ones_do_not_bind_it_again() -> None:
    members = start()
    new, _, rotation = rotated(SG, "SG")
    later, stolen = renewed(node(SG), new, "later"), renewed(node(SG), SG.signer, "stolen")
    members.learn([FoundRecord(later, 7)])
    assert shown(members, node(SG)) == (node(SG).record.tls,)  # no rotation proves the new keys yet
    assert members.rotate(SG.id, [rotation])
    assert not members.rotate(SG.id, [rotation])
    members.learn([FoundRecord(later, 7), FoundRecord(stolen, 8)])
    assert [_key(der) for der in shown(members, node(SG))] == [certificate("later"), _key(node(SG).record.tls)]


def test_the_keys_of_an_epoch_count_without_their_rotation() -> None:
    members = start()
    new, after, _ = rotated(SG, "SG")
    rekeyed = replace(SG.member, keys=after.keys, recovery=after.recovery)
    next_epoch(members, CH.member, rekeyed, ES.member, KR.member)
    members.learn([FoundRecord(renewed(node(SG), new, "later"), 7)])
    assert _key(shown(members, node(SG))[0]) == certificate("later")
    assert members.keys(SG.id) == (SG.inception.keys, after.keys)


def test_a_former_certificate_is_accepted_until_the_new_one_was_used() -> None:
    members = start()
    members.learn([FoundRecord(renewed(node(SG), SG.signer, "later"), 7)])
    new, old = shown(members, node(SG))
    assert {CertificatePin.of(new), CertificatePin.of(old)} <= set(members.pins())
    assert members.by_certificate(old) == members.by_certificate(new) == members.peer(PeerKey.of(node(SG).record))
    members.certificate_seen(PeerKey.of(node(SG).record), old)
    assert len(shown(members, node(SG))) == 2
    members.certificate_seen(PeerKey.of(node(SG).record), new)
    assert shown(members, node(SG)) == (new,)
    assert CertificatePin.of(old) not in members.pins()


def test_a_lost_certificate_is_replaced_from_another_log() -> None:
    members = start()
    members.learn([FoundRecord(node(SG).entry, 1)])
    unannounced = renewed(node(SG), SG.signer, "unannounced")
    members.learn([FoundRecord(unannounced)])
    assert [_key(der) for der in shown(members, node(SG))] == [_key(node(SG).record.tls), certificate("unannounced")]
    members.learn([FoundRecord(unannounced, 4)])
    assert _key(shown(members, node(SG))[0]) == certificate("unannounced")
    members.certificate_seen(PeerKey.of(node(SG).record), shown(members, node(SG))[0])
    members.learn([FoundRecord(node(SG).entry), FoundRecord(node(SG).entry, 1)])
    assert [_key(der) for der in shown(members, node(SG))] == [certificate("unannounced")]


def test_the_last_record_in_the_nodes_own_log_is_followed() -> None:
    members = start()
    first, second = (renewed(node(SG), SG.signer, name) for name in ("one", "two"))
    members.learn([FoundRecord(second, 9), FoundRecord(first, 4), FoundRecord(first)])
    assert _key(shown(members, node(SG))[0]) == certificate("two")


def test_a_record_under_disputed_keys_takes_nothing_over() -> None:
    members = start()
    (one, _, first), (_, _, second) = rotated(SG, "SG one"), rotated(SG, "SG two")
    members.rotate(SG.id, [first, second])
    members.learn([FoundRecord(renewed(node(SG), one, "disputed"), 9)])
    assert shown(members, node(SG)) == (node(SG).record.tls,)
    assert one.public in {key for keys in members.reached(SG.id) for key in keys.keys}


def test_no_member_takes_over_the_node_of_another() -> None:
    members = start()
    key = private_key("thief", "ecdsa-p256")
    record = replace(node(SG).record, member=KR.id, name="thief", tls=make_certificate(key))
    bound = (HybridSigner((node(SG).log,)), node(SG).cosigner, node(SG).online, HybridSigner((key,)))
    members.learn([FoundRecord(sign_content(record, KR.signer, *bound), 99)])
    peer = members.peer(PeerKey.of(node(SG).record))
    assert peer is not None and peer.member.id == SG.id and peer.record == node(SG).record


def test_two_nodes_of_one_name_and_one_origin_are_both_known_and_distinguished() -> None:
    members = start()
    namesake = called_like(node(KR), node(SG))
    record = NodeRecord.parse(namesake.statement)
    assert [peer.member.id for peer in members.learn([FoundRecord(namesake)])] == [KR.id]
    first, second = (members.peer(PeerKey.of(each)) for each in (node(SG).record, record))
    assert first is not None and second is not None and first.name == second.name
    assert members.shown_name(first) != members.shown_name(second)
    assert members.log_keys(node(SG).origin) == (node(SG).record.log, record.log)


def test_a_node_is_shown_with_its_key_as_soon_as_another_one_has_its_name() -> None:
    members = start()
    known = members.peer(PeerKey.of(node(SG).record))
    assert known is not None and members.shown_name(known) == known.name
    members.learn([FoundRecord(called_like(node(KR), node(SG)))])
    assert members.shown_name(known) == f"{known.name} ({known.key})"


def test_a_member_that_took_an_origin_first_keeps_no_other_members_node_out() -> None:
    members = Membership(own_seat(), replace(FEDERATION, nodes=()))
    members.learn([FoundRecord(called_like(node(KR), node(SG)), 1), FoundRecord(node(SG).entry, 1)])
    assert {peer.member.id for peer in members.peers} == {KR.id, SG.id}


def test_a_member_has_a_bounded_number_of_nodes() -> None:
    members = start()
    for number in range(MAX_NODES + 3):
        members.learn([FoundRecord(node(KR, f"node-{number}.example", CLASSICAL).entry)])
    assert len(members.nodes_of(KR.id)) == MAX_NODES


def with_online_key(of: Node, name: str) -> Entry:
    """A record of the same node with another online key."""
    online = signer(name, CLASSICAL)
    record = replace(of.record, online=online.public)
    bound = (HybridSigner((of.log,)), of.cosigner, online, HybridSigner((of.tls,)))
    return sign_content(record, of.seat.signer, *bound)


def test_a_node_has_a_bounded_number_of_online_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "MAX_ONLINE_KEYS", 4)
    members = start()
    made = [with_online_key(node(SG), f"online {number}") for number in range(8)]
    members.learn([FoundRecord(entry, number) for number, entry in enumerate(made)])
    assert len(members.writers(str(node(SG).record.log))) == 4
    members.learn([FoundRecord(renewed(node(KR), KR.signer, "another certificate"), 1)])
    assert _key(shown(members, node(KR))[0]) == certificate("another certificate")


def test_a_node_has_a_bounded_number_of_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "MAX_RECORDS", 3)
    members = start()
    members.learn([FoundRecord(renewed(node(SG), SG.signer, f"tls {number}"), number) for number in range(4)])
    assert _key(shown(members, node(SG))[0]) == certificate("tls 1")


def test_the_writers_of_a_log_are_known_as_soon_as_its_node_is() -> None:
    members = Membership(own_seat(), replace(FEDERATION, nodes=()))
    log = str(node(SG).record.log)
    assert not members.writers(log) and members.owner(log) is None
    members.learn([FoundRecord(node(SG).entry)])
    assert members.writers(log) == {node(SG).record.node}
    assert members.owner(log) == SG.id
    assert members.records_of(log) == (node(SG).record,)


def test_an_origin_belongs_to_the_member_whose_inception_names_it_despite_other_bindings() -> None:
    members = start()
    assert members.origins.owners[node(SG).origin] == SG.id
    members.learn([FoundRecord(called_like(node(KR), node(SG)), 99)])
    for named in (NamedLog(node(SG).origin), NamedLog(node(SG).origin, node(SG).record.log)):
        assert members.home_logs([named]).logs == (str(node(SG).record.log),)
    own = NamedLog(node(CH).origin)
    members.learn([FoundRecord(called_like(node(KR), node(CH)), 99)])
    assert members.home_logs([own]).logs == (str(node(CH).record.log),)


def test_an_origin_of_a_newcomer_is_known_with_its_inception() -> None:
    members, origin = start(), node(BR).origin
    next_epoch(members, *(who.member for who in (CH, SG, ES, KR, BR)))
    assert origin not in members.origins.owners
    members.name_homes({BR.id: BR.inception.home})
    assert members.origins.owners[origin] == BR.id
    members.learn([FoundRecord(called_like(node(KR), node(BR)), 1), FoundRecord(node(BR).entry, 1)])
    assert members.home_logs([NamedLog(origin)]).logs == (str(node(BR).record.log),)


def test_a_log_whose_key_its_node_changed_stays_a_home_log_before_the_new_one() -> None:
    members, key = start(), private_key("another log", "ed25519")
    record = replace(node(SG).record, log=log_verifier_key(node(SG).origin, key.public))
    bound = (HybridSigner((key,)), node(SG).cosigner, node(SG).online, HybridSigner((node(SG).tls,)))
    for index in (OUTSIDE_LOG, 7):
        members.learn([FoundRecord(sign_content(record, SG.signer, *bound), index)])
        home = members.home_logs([NamedLog(node(SG).origin, node(SG).record.log)])
        assert home.ranks == ((str(node(SG).record.log),), (str(record.log),))


def test_a_member_has_a_bounded_number_of_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "MAX_LOGS", 3)
    members, origin = start(), "several.example/log"
    for number in range(5):
        of = node(KR, f"several-{number}.example", CLASSICAL)
        record = replace(of.record, log=log_verifier_key(origin, of.log.public))
        members.learn([FoundRecord(sign_content(record, KR.signer, *of.bound))])
    assert len(members.home_logs([NamedLog(origin)]).logs) == 2, "and the log of its first node"
    assert members.home_logs([NamedLog(node(SG).origin)]).logs == (str(node(SG).record.log),)


def test_a_log_is_found_without_a_search_of_all_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of millions of statements about copies needs this lookup, in a federation of up to 200 members."""
    members, log, spelled = start(), str(node(SG).record.log), list[VerifierKey]()
    assert members.owner(log) == SG.id

    def spell(key: VerifierKey) -> str:
        spelled.append(key)
        return ""

    monkeypatch.setattr(VerifierKey, "__str__", spell)
    assert members.owner(log) == SG.id
    assert members.writers(log) == {node(SG).record.node}
    assert spelled == []


def test_a_home_whose_member_rotated_reads_its_rotations() -> None:
    new, _, rotation = rotated(CH, "CH")
    record = renewed(node(CH), new, "after")
    with pytest.raises(Untrusted):
        OwnNode.parse(CH.entry.line, record.line)
    assert OwnNode.parse(CH.entry.line, record.line, (rotation.line,)).rotation_lines == (rotation.line,)


def _key(der: bytes) -> bytes:
    return certificate_key(der).raw


def test_the_times_of_a_checkpoint_are_counted_by_member_and_those_of_unknown_keys_are_not() -> None:
    members, checkpoint = start(), Checkpoint("example.org/log", 1, bytes(32))
    sg, es, stranger = node(SG), node(ES), node(BR)
    lines = [*sg.cosign(checkpoint, 100), *es.cosign(checkpoint, 200), *stranger.cosign(checkpoint, 2**62)]
    later = es.cosign(checkpoint, 250)
    note = SignedNote(checkpoint.text, (*lines, *later))
    assert members.cosigned_times(note) == {SG.id: 100, ES.id: 250}


def test_a_log_that_shares_an_origin_is_named_with_the_id_of_its_key_unless_its_member_owns_the_origin() -> None:
    members, log = start(), node(SG).record.log
    assert members.log_title(str(log)) == log.name
    thief = NodeRecord.parse(called_like(node(KR), node(SG)).statement).log
    members.learn([FoundRecord(called_like(node(KR), node(SG)))])
    assert members.log_title(str(thief)) == f"{log.name}+{thief.key_id.hex()}"
    members.name_homes({SG.id: "", KR.id: ""})
    assert members.log_title(str(log)) == f"{log.name}+{log.key_id.hex()}"
    members.name_homes({SG.id: log.name})
    assert (members.log_title(str(log)), members.log_title(str(thief))) == (
        log.name,
        f"{log.name}+{thief.key_id.hex()}",
    )


def test_the_log_of_another_member_with_this_origin_makes_no_member_look_silent() -> None:
    """Or speaking: any member may bind a log of its own to another's origin."""
    members = start()
    members.learn([FoundRecord(called_like(node(KR), node(SG)))])
    logs = (node(SG).record.log, NodeRecord.parse(called_like(node(KR), node(SG)).statement).log)
    state = {str(log): LogStatus(log.name, 1, own=False, checkpoint_time=9, cosigners=()) for log in logs[:1]}
    state[str(logs[1])] = replace(state[str(logs[0])], checkpoint_time=0)
    body = SimpleNamespace(federation="f", epoch=0, digest="d", member=members.member)
    follower = SimpleNamespace(
        epoch_store=SimpleNamespace(newest=body, digests=()),
        findings=SimpleNamespace(tally=None, stopped="", forks=(), equivocations=()),
        adopted={},
        vote_reader=SimpleNamespace(full=lambda digest: ()),
    )
    heard = {member.name: member.heard for member in governance_report(members, cast(Any, follower), state, 0).members}
    assert heard[SG.inception.label] == 9


def test_the_digest_of_the_records_changes_with_those_that_are_followed_alone() -> None:
    members = start()
    before = members.records_digest
    assert before == start().records_digest
    members.learn([FoundRecord(node(BR).entry)])  # of nobody whom the charter lists
    assert members.records_digest == before
    members.learn([FoundRecord(renewed(node(SG), SG.signer, "renewed"), 7)])
    assert members.records_digest != before
    after = members.records_digest
    members.relocate(PeerKey.of(node(SG).record), ("elsewhere:1",), ())
    assert members.records_digest == after
