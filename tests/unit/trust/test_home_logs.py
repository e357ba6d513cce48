"""Which logs are the home logs of an identity: named by a key, by an origin only, and after a rotation of either."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import pytest
from comity.rules.signing import sign_content
from comity.trust.charter.document import Body
from comity.trust.encoding import canonical
from comity.trust.home_logs import (
    MAX_HOMES,
    AdmittedMembers,
    HomeLogs,
    HomePosition,
    NamedLog,
    OriginOwners,
    home_logs,
    home_name,
    home_origin,
    inception_homes,
    named_homes,
    origin_owners,
)
from comity.trust.identity import Inception, InceptionStatement
from comity.trust.node_records import NodeRecord
from comity.trust.rotation import follow
from comity.trust.statement import sign_statement
from comity.trust.tlog.note import MAX_NAME, VerifierKey, log_verifier_key
from support.case import nodes
from support.rotations import begun
from support.rotations import of as owner_of
from support.world import Identity, draft, found, identity, node, succeeded

CH, SG, ES = nodes(3)
ORIGIN, KEY = CH.origin, CH.record.log
FEDERATION = found(nodes(3))
OWNERS = origin_owners(FEDERATION.chain, FEDERATION.identity_entries)
OLD, NAMED = (NamedLog(ORIGIN),), (NamedLog(ORIGIN, KEY),)


@functools.cache
def bound(owner: Identity, name: str, origin: str = ORIGIN) -> NodeRecord:
    """The record by which a member binds a log with a key of its own to an origin."""
    other = node(owner, f"{name}-{owner.id[:8]}")
    return replace(other.record, log=log_verifier_key(origin, other.log.public))


LIES = tuple(bound(member.seat, name) for member in (SG, ES) for name in ("a", "b"))


def logs(*records: NodeRecord) -> tuple[str, ...]:
    return tuple(sorted(str(record.log) for record in records))


def test_a_home_is_named_by_its_key_or_by_its_origin_alone() -> None:
    assert NamedLog.parse(str(KEY)) == NamedLog(ORIGIN, KEY)
    assert NamedLog.parse(ORIGIN) == NamedLog(ORIGIN)
    assert home_name(KEY) == str(KEY)
    assert home_origin(str(KEY)) == home_origin(ORIGIN) == ORIGIN


@pytest.mark.parametrize(
    "home",
    ["", f"{ORIGIN}+", f"{ORIGIN}+00000000+{str(KEY).rpartition('+')[2]}", str(CH.record.cosigners[0])],
    ids=["empty", "no key", "another id", "the key of a cosigner"],
)
def test_a_text_that_names_no_log_is_no_home_log(home: str) -> None:
    assert NamedLog.parse(home) is None
    assert home_origin(home) == ""


def test_a_key_that_is_too_long_for_an_inception_is_named_by_its_origin() -> None:
    spare = len(str(KEY)) - len(ORIGIN)
    longest, longer = (VerifierKey("o" * (MAX_NAME - spare + more), KEY.type, KEY.public) for more in (0, 1))
    assert (len(home_name(longest)), home_name(longest)) == (MAX_NAME, str(longest))
    assert home_name(longer) == longer.name


@pytest.mark.parametrize("named", [OLD, NAMED], ids=["by its origin", "by its key"])
def test_logs_that_other_members_bind_to_the_origin_are_no_home_logs(named: tuple[NamedLog, ...]) -> None:
    expected = home_logs(named, [CH.record], OWNERS)
    assert expected.logs == (str(KEY),)
    assert home_logs(named, [*LIES, CH.record], OWNERS) == home_logs(named, [CH.record, *LIES], OWNERS) == expected
    assert home_logs(named, LIES, OWNERS).logs == ((str(KEY),) if named is NAMED else ())


def test_an_origin_belongs_to_the_member_whose_inception_names_it_first() -> None:
    assert OWNERS.owners == {each.origin: each.seat.id for each in nodes(3)}
    assert OWNERS.seat(CH.seat.id) == CH.seat.id
    late = named_by("Late", ORIGIN)
    grown = epoch_after(FEDERATION.body, late)
    owners = origin_owners([FEDERATION.body, grown], [*FEDERATION.identity_entries, late.entry])
    assert owners == OWNERS
    assert home_logs(OLD, [CH.record, bound(late, "a")], owners).logs == (str(KEY),)


def test_an_origin_that_two_founders_name_belongs_to_neither() -> None:
    twin = named_by("Twin", ORIGIN)
    chain = [draft([each.member for each in (CH.seat, SG.seat, twin)])]
    owners = origin_owners(chain, [CH.seat.entry, SG.seat.entry, twin.entry])
    assert owners.owners == {ORIGIN: None, SG.origin: SG.seat.id}
    assert home_logs(OLD, [CH.record], owners).logs == ()
    assert home_logs(NAMED, [CH.record, bound(twin, "a")], owners).logs == (str(KEY),)


def test_an_origin_that_two_federations_give_to_two_members_belongs_to_neither() -> None:
    other = OriginOwners({ORIGIN: SG.seat.id, SG.origin: SG.seat.id}, {})
    for order in ([OWNERS, other], [other, OWNERS]):
        joined = OriginOwners.of_all([*order, OWNERS])
        assert joined.owners == {**OWNERS.owners, ORIGIN: None}
    assert OriginOwners.of_all([OWNERS, OWNERS]) == OWNERS
    assert OriginOwners.of_all([OWNERS, OriginOwners({}, {ES.seat.id: SG.seat.id})]).seat(ES.seat.id) == SG.seat.id


def test_a_successor_of_a_seat_owns_its_origin_and_gets_no_other_one() -> None:
    heir, second = named_by("Heir", "heir.example/log"), named_by("Second heir", "heir.example/log")
    first = succeeded(FEDERATION.body, CH=heir)
    chain = [FEDERATION.body, first, succeeded(first, CH=second)]
    owners = origin_owners(chain, [*FEDERATION.identity_entries, heir.entry, second.entry])
    assert owners.seat(second.id) == owners.seat(heir.id) == CH.seat.id
    assert owners.owners == {**OWNERS.owners, "heir.example/log": CH.seat.id}
    assert home_logs(OLD, [bound(second, "a"), *LIES], owners).logs == logs(bound(second, "a"))
    taking = AdmittedMembers.of(chain[:2]).owners({SG.seat.id: SG.origin, heir.id: SG.origin})
    assert taking.owners == {SG.origin: SG.seat.id}, "a seat does not become older by a successor"


def test_an_origin_that_no_inception_names_belongs_to_the_only_seat_that_binds_it() -> None:
    second = bound(CH.seat, "second", "second.example/log")
    named = (NamedLog("second.example/log"),)
    assert home_logs(named, [CH.record, second], OWNERS).logs == logs(second)
    assert home_logs(named, [second, bound(SG.seat, "a", "second.example/log")], OWNERS).logs == ()


def test_a_log_after_that_of_the_key_is_followed_if_the_same_seat_binds_it() -> None:
    later = bound(CH.seat, "later")
    home = home_logs(NAMED, [later, *LIES, CH.record], OWNERS)
    assert home.ranks == ((str(KEY),), (str(later.log),))
    assert home.position([(str(later.log), 2)]) == HomePosition(1, 2)
    assert home.position([(str(later.log), 2), (str(KEY), 9)]) == HomePosition(0, 9)
    assert home.position([(str(each.log), 0) for each in LIES]) is home.position([]) is None


def test_a_member_that_does_not_own_the_origin_may_write_a_home_log_too() -> None:
    first, second = (bound(SG.seat, name) for name in ("a", "b"))
    home = home_logs((NamedLog(ORIGIN, first.log),), [CH.record, bound(CH.seat, "later"), *LIES], OWNERS)
    assert home.ranks == ((str(first.log),), (str(second.log),))


def test_an_origin_and_a_key_of_another_one_are_both_home_logs() -> None:
    named = (NamedLog(SG.origin), NamedLog(ORIGIN, KEY))
    home = home_logs(named, [CH.record, SG.record, *LIES], OWNERS)
    assert home.ranks == ((str(SG.record.log),), (str(KEY),), ())
    assert home.origins == {SG.origin: 0, ORIGIN: 1}


def test_the_last_eight_home_logs_count() -> None:
    homes = [f"node-{number}.example/log" for number in range(MAX_HOMES + 1)]
    assert chain_of(*homes[1:]) == tuple(map(NamedLog, homes[1:]))
    assert chain_of(*homes) == tuple(map(NamedLog, homes[1:]))


def test_an_invalid_inception_hides_no_other() -> None:
    broken = sign_statement(replace(CH.seat.entry.statement, body={"record": 1}), CH.seat.signer)
    assert inception_homes([broken, SG.seat.entry, CH.entry]) == {SG.seat.id: SG.origin}


def test_several_logs_after_that_of_the_key_have_no_order() -> None:
    later = [bound(CH.seat, name) for name in ("later", "latest")]
    home = home_logs(NAMED, [*later, CH.record], OWNERS)
    assert home.ranks == ((str(KEY),), logs(*later))
    assert {home.position([(str(each.log), 7)]) for each in later} == {HomePosition(1, 0)}
    assert home.position([(str(KEY), 7)]) == HomePosition(0, 7)


def test_several_logs_of_the_owner_of_an_origin_have_no_order() -> None:
    later = bound(CH.seat, "later")
    home = home_logs(OLD, [CH.record, later], OWNERS)
    assert home.ranks == (logs(CH.record, later),)
    assert home.position([(str(KEY), 7)]) == home.position([(str(later.log), 3)]) == HomePosition(0, 0)


def test_a_member_with_a_copy_of_the_key_adds_no_log() -> None:
    thief = replace(bound(SG.seat, "a"), log=KEY)
    later = bound(CH.seat, "later")
    assert home_logs(NAMED, [thief, *LIES, CH.record, later], OWNERS).ranks == ((str(KEY),), (str(later.log),))
    assert home_logs(NAMED, [thief, *LIES, CH.record, later], OriginOwners()).ranks == ((str(KEY),), ())


def chain_of(*homes: str) -> tuple[NamedLog, ...]:
    """The home logs of an identity whose inception and rotations name these."""
    owner = begun("mover")
    first = replace(owner, state=replace(owner.state, home=homes[0]))
    states, entries = [first], []
    for number, home in enumerate(homes[1:]):
        after, entry = states[-1].to(f"mover {number}", home=home)
        states.append(after)
        entries.append(entry)
    return named_homes(follow(first.state, entries))


def test_a_rotation_may_name_another_home_log() -> None:
    assert chain_of(ORIGIN) == chain_of(ORIGIN, "") == (NamedLog(ORIGIN),)
    moved = chain_of(str(KEY), "", SG.origin)
    assert moved == (NamedLog(ORIGIN, KEY), NamedLog(SG.origin))
    home = home_logs(moved, [CH.record, SG.record, *LIES], OWNERS)
    assert home.logs == (str(KEY), str(SG.record.log))
    after, before = home.position([(str(SG.record.log), 0)]), home.position([(str(KEY), 99)])
    assert before is not None and after is not None and before < after


def test_a_rotation_that_adds_the_key_replaces_the_origin() -> None:
    assert chain_of(ORIGIN, str(KEY)) == chain_of(str(KEY)) == NAMED
    assert chain_of("", ORIGIN, SG.origin, str(KEY)) == (NamedLog(SG.origin), *NAMED)


def test_a_log_that_a_rotation_names_is_not_a_successor_of_the_one_before() -> None:
    later = [bound(CH.seat, name) for name in ("later", "latest")]
    named = (*NAMED, NamedLog(ORIGIN, later[0].log), NamedLog(ORIGIN, later[1].log))
    home = home_logs(named, [*later, CH.record, *LIES], OWNERS)
    assert home.logs == (str(KEY), str(later[0].log), str(later[1].log))
    assert home.origins == {ORIGIN: 4}


def test_disputed_rotations_change_no_home_log() -> None:
    owner = owner_of(identity("Swiss AI", "CH"))
    one, other = (owner.to(name, home=home)[1] for name, home in (("one", SG.origin), ("other", ES.origin)))
    assert named_homes(follow(owner.state, [one])) == (NamedLog(ORIGIN), NamedLog(SG.origin))
    assert named_homes(follow(owner.state, [one, other])) == (NamedLog(ORIGIN),)


def test_statements_before_an_entry_are_in_that_log_or_an_earlier_one() -> None:
    home = HomeLogs((("first",), (), ("second",), ("third", "fourth")), {"a": 0, "b": 2, "c": 3})
    assert home.is_before([("first", 4)], "a", 5) is True
    assert home.is_before([("first", 5)], "a", 5) is False
    assert home.is_before([("second", 1)], "a", 5) is home.is_before([], "a", 5) is None
    assert home.is_before([("first", 99), ("second", 9)], "b", 5) is True
    assert home.is_before([("second", 9)], "b", 5) is False
    assert home.is_before([("third", 0)], "c", 5) is None
    assert home.is_before([("second", 9)], "c", 5) is True
    assert home.is_before([("first", 0)], "elsewhere", 5) is None


def named_by(label: str, home: str) -> Identity:
    """A member in Switzerland whose inception names this home log."""
    other = identity(label, "CH", kind="member")
    inception = Inception("member", other.inception.keys, other.inception.recovery, home, "CH", label)
    return Identity(inception, other.signer, sign_content(InceptionStatement(inception), other.signer))


def epoch_after(body: Body, member: Identity) -> Body:
    """The epoch after `body`, in which this member is admitted; without a certificate."""
    document = json.loads(draft([*body.members, member.member]).data)
    document |= {"epoch": body.epoch + 1, "prev": body.digest, "federation": body.federation}
    return Body.parse(canonical(document))
