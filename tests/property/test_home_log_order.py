"""I12: no member changes which statement of a publisher is the newest, whatever logs it binds and what it puts there.

The strategies generate what one member can do: records under any origin, signed by its seat and by keys of its own;
logs under them that have any statements of others at any index, cosigned by others; and records of the home's own
member.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from comity.rules.signing import sign_content
from comity.trust.home_logs import HomeLogs, home_logs, named_homes, origin_owners
from comity.trust.identity import Inception, InceptionStatement
from comity.trust.names import Reference
from comity.trust.node_records import NodeRecord
from comity.trust.resolution import Preference, PublisherClaim, newest_first, select_candidate
from comity.trust.rotation import KeyState, RotationChain, follow
from comity.trust.statement import Entry
from comity.trust.tlog.note import log_verifier_key
from hypothesis import given, settings
from hypothesis import strategies as st
from support.candidates import candidate
from support.case import Case, case, filled, nodes, release
from support.examples import examples
from support.rotations import of as owner_of
from support.world import Identity, Log, Node, found, identity, node

CH, SG, ES, KR = nodes(4)
FEDERATION = found(nodes(4))
OWNERS = origin_owners(FEDERATION.chain, FEDERATION.identity_entries)
VERSIONS = ("v1", "v2", "v9", "v10", "rc")
ORIGINS = (CH.origin, SG.origin, ES.origin, "elsewhere.example/log")


@functools.cache
def lying_node(owner: Identity, number: int, origin: str) -> tuple[Node, NodeRecord]:
    """A node of a member, whose record binds a log with a key of its own to this origin."""
    other = node(owner, f"lying-{owner.inception.jurisdiction.lower()}-{number}")
    return other, replace(other.record, log=log_verifier_key(origin, other.log.public))


@functools.cache
def publisher(home: str) -> Identity:
    """A publisher whose inception names this home log."""
    other = identity("Swiss AI", "CH")
    inception = Inception("publisher", other.inception.keys, other.inception.recovery, home, "CH", "Swiss AI")
    return Identity(inception, other.signer, sign_content(InceptionStatement(inception), other.signer))


def by_origin(*, moved: bool) -> RotationChain:
    """The keys of a publisher that named its home log by its origin; with `moved` it added the key by a rotation."""
    owner = owner_of(publisher(CH.origin))
    return follow(owner.state, [owner.to("moved", home=str(CH.record.log))[1]] if moved else [])


CHAINS = (
    by_origin(moved=False),
    by_origin(moved=True),
    follow(KeyState.of_inception(publisher(str(CH.record.log)).inception), ()),
)


@dataclass(frozen=True)
class Lie:
    """One record under `origin`, and the positions of the versions in its log."""

    number: int
    origin: str
    places: dict[str, int]

    def record(self, owner: Identity) -> NodeRecord:
        return lying_node(owner, self.number, self.origin)[1]


lies = st.lists(
    st.builds(
        Lie,
        st.integers(0, 3),
        st.sampled_from(ORIGINS),
        st.dictionaries(st.sampled_from(VERSIONS), st.integers(0, 20)),
    ),
    max_size=5,
)
orders = st.permutations(VERSIONS)


def newest(order: Sequence[str], logged: int, told: Sequence[Lie], owner: Identity, home: HomeLogs) -> list[str]:
    """The versions, the newest first, where the first `logged` of `order` are in the log of CH in this order."""
    found = []
    for version in VERSIONS:
        places = [(str(CH.record.log), order.index(version))] if version in order[:logged] else []
        places += [(str(lie.record(owner).log), lie.places[version]) for lie in told if version in lie.places]
        made = candidate(version, FEDERATION.id, None)
        found.append(replace(made, position=home.position(places)))
    preference = Preference(PublisherClaim(found[0].publisher), "bound")
    ordered = [each.version for each in newest_first(found)]
    assert select_candidate(Reference.parse("swiss-ai/tiny"), found, [preference]).version == ordered[0]
    return ordered


@given(orders, st.integers(0, 5), lies, st.sampled_from(CHAINS), st.sampled_from([SG, ES]), st.randoms())
def test_no_other_member_changes_which_version_is_the_newest(
    order: list[str], logged: int, told: list[Lie], chain: RotationChain, liar: Node, random: object
) -> None:
    named, honest = named_homes(chain), [each.record for each in nodes(4)]
    records = [*honest, *(lie.record(liar.seat) for lie in told)]
    random.shuffle(records)  # type: ignore[attr-defined]
    before = newest(order, logged, [], liar.seat, home_logs(named, honest, OWNERS))
    assert newest(order, logged, told, liar.seat, home_logs(named, records, OWNERS)) == before


@given(orders, st.integers(0, 5), lies)
def test_the_homes_own_member_changes_no_order_within_the_named_log(
    order: list[str], logged: int, told: list[Lie]
) -> None:
    records = [*(each.record for each in nodes(4)), *(lie.record(CH.seat) for lie in told)]
    home = home_logs(named_homes(CHAINS[2]), records, OWNERS)
    found = [version for version in newest(order, logged, told, CH.seat, home) if version in order[:logged]]
    assert found == order[:logged][::-1]


GOOD = case()
SPDX = ("MIT", "ISC", "Apache-2.0")


@functools.cache
def statements(home: str) -> tuple[Identity, tuple[Entry, ...]]:
    """A publisher, and three statements of it about the same bytes."""
    by = publisher(home)
    return by, tuple(release(by=by, spdx=spdx)[1] for spdx in SPDX)


def judged(order: Sequence[int], home: str, told: Sequence[tuple[str, Sequence[int]]]) -> str:
    """The licence of GOOD where its publisher logged its statements at CH in this order, and SG lies: under each of
    these origins it binds a log that has the statements in another order."""
    by, entries = statements(home)
    log = filled(CH)
    for number in order:
        log.append(entries[number].line)
    proofs = [log.proof(entry.line, [SG, ES, KR]) for entry in entries]
    bound: list[bytes] = []
    for number, (origin, places) in enumerate(told):
        other, record = lying_node(SG.seat, number, origin)
        bound.append(sign_content(record, SG.seat.signer, *other.bound).line)
        lying = Log(origin, other.log)
        for at in places:
            lying.append(entries[at].line)
        proofs += [lying.proof(entries[at].line, [CH, ES, KR]) for at in set(places)]
    kept = [line for line in GOOD.claims if line not in (GOOD.publication.line, identity("Swiss AI", "CH").entry.line)]
    claims = (by.entry.line, *kept, *bound, *(entry.line for entry in entries))
    text = GOOD.policy_text.replace(identity("Swiss AI", "CH").id, by.id)
    told_case: Case = replace(GOOD, claims=claims, proofs=tuple(proofs), policy_text=text)
    verdict = told_case.verdict()
    assert verdict.exit_status == 0
    return verdict.row("licence").summary.split()[0].rstrip(",")


@settings(max_examples=examples(25))
@given(
    st.permutations(range(3)),
    st.sampled_from([CH.origin, str(CH.record.log)]),
    st.lists(st.tuples(st.sampled_from(ORIGINS), st.lists(st.integers(0, 2), min_size=1, max_size=5)), max_size=3),
)
def test_no_other_member_changes_which_statement_a_verdict_follows(
    order: list[int], home: str, told: list[tuple[str, list[int]]]
) -> None:
    assert judged(order, home, told) == SPDX[order[-1]]
