"""Which ancestors the collector asks about while strangers name others: those of the claimed lineage come first."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from comity.rules import collector as collecting
from comity.rules.collector import Collector, Question
from comity.rules.signing import sign_content
from comity.trust.claims import read_claims
from comity.trust.encoding import Digest, sha256
from comity.trust.lineage import LineageGraph, claimed_lineage
from comity.trust.names import Name
from comity.trust.policy import Policy
from comity.trust.statement import SideObject, parse_entry
from comity.trust.statements import Licence, Parent, Published
from comity.trust.verify import verify
from hypothesis import given, settings
from hypothesis import strategies as st
from support.case import Case, case
from support.derivations import derived_line
from support.examples import examples
from support.world import Identity, identity

CLASSICAL = ("ed25519",)
OWNER, STRANGER, FRIEND = (identity(label, algs=CLASSICAL) for label in ("Real", "Stranger", "Friend"))
CHAIN = tuple(sha256(name) for name in (b"A", b"B", b"C", b"D"))
A, B, C, D = CHAIN
BOUND = Policy(bindings={"real": OWNER.id})


@functools.cache
def published(by: Identity, name: str, artifact: Digest, parents: tuple[tuple[str, Digest], ...] = ()) -> bytes:
    named = tuple(Parent("finetune", parent, digest) for parent, digest in parents)
    nothing = SideObject(artifact, 3)
    said = Published(by.id, Name.parse(name), artifact, nothing, nothing, Licence("MIT"), lineage=named)
    return sign_content(said, by.signer).line


@functools.cache
def derived(child: Digest, parent: Digest) -> bytes:
    return derived_line(child, parent, by=STRANGER, exact=False)


def invented(what: str, count: int = 32) -> tuple[Digest, ...]:
    return tuple(sha256(f"{what} {number}".encode()) for number in range(count))


@dataclass
class World:
    """Statements by artifact. The publisher of A names B as its parent, that of B names C, and that of C names D."""

    said: dict[Digest, list[bytes]] = field(default_factory=dict)
    kept: tuple[bytes, ...] = ()
    bounds: tuple[str, ...] = ()

    @classmethod
    def chain(cls) -> World:
        made = cls()
        for at, parent in [*pairwise(CHAIN), (D, None)]:
            parents = ((f"real/{parent[:8]}", parent),) if parent else ()
            made.say(at, OWNER.entry.line, published(OWNER, f"real/{at[:8]}@v1", at, parents))
        return made

    def say(self, about: Digest, *lines: bytes, first: bool = False) -> None:
        known = self.said.setdefault(about, [])
        self.said[about] = [*lines, *known] if first else [*known, *lines]

    def collect(
        self, root: Digest = A, policy: Policy | None = None, publisher: Digest | None = OWNER.id
    ) -> list[Digest]:
        """Returns the ancestors that are asked about, in their order."""
        collector, asked = Collector(root, policy or Policy(), publisher), list[Digest]()
        while questions := collector.questions():
            for question in questions:
                about = question.kind in ("artifact", "ancestor")
                lines = self.said.get(question.digest, []) if about else []
                collector.answered(question, map(parse_entry, lines))
                asked += [question.digest] if question.kind == "ancestor" else []
        self.kept, self.bounds = collector.lines, tuple(collector.bounds)
        return asked


def strangers_derive(world: World, target: Digest) -> None:
    """One stranger says that an artifact was derived from 32 others, of which two have 32 parents each."""
    parents = invented(f"derived {target}")
    world.say(target, STRANGER.entry.line, *(derived(target, parent) for parent in parents), first=True)
    for parent in parents[:2]:
        of_its_own = tuple((f"s/{each[:8]}", each) for each in invented(parent))
        world.say(parent, STRANGER.entry.line, published(STRANGER, f"s/{parent[:8]}@v1", parent, of_its_own))


def strangers_publish(world: World, target: Digest, namespace: str = "s") -> None:
    """Two strangers publish the same bytes under names of a namespace, and name 32 parents each."""
    for number in range(2):
        by = identity(f"Stranger {number}", algs=CLASSICAL)
        parents = tuple((f"{namespace}/{each[:8]}", each) for each in invented(f"published {target} {number}"))
        world.say(target, by.entry.line, published(by, f"{namespace}/x@v1", target, parents), first=True)


def in_the_namespace(world: World, target: Digest) -> None:
    strangers_publish(world, target, "real")


ATTACKS = {
    "derived": (strangers_derive, Policy()),
    "published": (strangers_publish, Policy()),
    "published in a bound namespace": (in_the_namespace, BOUND),
}


@pytest.mark.parametrize("target", [A, B, C, D], ids="ABCD")
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_parents_that_strangers_name_take_a_question_from_those_that_publishers_name(
    attack: str, target: Digest
) -> None:
    act, policy = ATTACKS[attack]
    world = World.chain()
    act(world, target)
    asked = world.collect(policy=policy)
    assert asked[:3] == [B, C, D]
    assert len(asked) == len(set(asked)) <= collecting.MAX_ANCESTORS
    honest = World.chain()
    assert honest.collect(policy=policy) == [B, C, D] and not honest.bounds
    assert graph(world.kept, policy) == graph(honest.kept, policy)
    assert not graph(world.kept, policy).missing


def graph(lines: Iterable[bytes], policy: Policy, root: Digest = A) -> LineageGraph:
    claims = read_claims(lines, root)
    chosen = next(each for each in claims.publications if each.publisher.id == OWNER.id)
    return claimed_lineage(claims, root, chosen, policy)


def test_the_row_is_the_same_while_strangers_name_parents() -> None:
    child = case(lineage=(Parent("finetune", f"real/{B[:8]}", B),))
    publisher = child.publication.statement.by
    assert publisher is not None

    def row(world: World) -> tuple[str, str]:
        world.say(child.artifact, *child.claims)
        world.collect(child.artifact, child.policy, publisher.id)
        judged: Case = replace(child, claims=world.kept)
        found = verify(judged.evidence, judged.policy).row("lineage")
        return found.state, found.cause

    attacked = World.chain()
    for target in (child.artifact, B, C):
        strangers_derive(attacked, target)
        strangers_publish(attacked, target)
    assert row(attacked) == row(World.chain()) == ("pass", "")


def test_what_strangers_name_is_asked_about_with_what_is_left() -> None:
    world = World.chain()
    strangers_derive(world, A)
    asked = world.collect()
    assert asked[3:35] == [*invented(f"derived {A}")]
    assert len(asked) == collecting.MAX_ANCESTORS
    assert world.bounds == (f"ancestors that were asked about: more than {collecting.MAX_ANCESTORS}",)


def test_parents_that_others_name_of_an_ancestor_are_asked_about_too() -> None:
    world, (other, beyond) = World.chain(), invented("other", 2)
    world.say(B, STRANGER.entry.line, published(STRANGER, "s/x@v1", B, (("s/other", other),)))
    world.say(other, STRANGER.entry.line, published(STRANGER, "s/other@v1", other, (("s/beyond", beyond),)))
    assert world.collect() == [B, C, D, other, beyond]


def test_bytes_that_strangers_say_about_ancestors_end_no_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = World.chain()
    honest.collect()
    monkeypatch.setattr(collecting, "MAX_ANCESTOR_BYTES", sum(map(len, honest.kept)))
    world = World.chain()
    strangers_derive(world, B)
    world.say(C, STRANGER.entry.line, derived(C, sha256(b"no room")))
    assert world.collect() == [B, C, D]
    assert graph(world.kept, Policy()) == graph(honest.kept, Policy())
    assert derived(B, invented(f"derived {B}")[0]) in world.kept
    assert derived(C, sha256(b"no room")) not in world.kept
    told = ("statements about ancestors", "ancestors that were asked about")
    assert {f"{what}: more than {collecting.MAX_ANCESTOR_BYTES} bytes" for what in told} < set(world.bounds)


def test_a_lineage_that_was_followed_to_its_end_reaches_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the last ancestor has the bytes that end it, and where others name what was asked about already."""
    world = World.chain()
    world.say(A, STRANGER.entry.line, derived(A, C), derived(A, D))
    lines = {line for ancestor in (B, C, D) for line in world.said[ancestor]}
    monkeypatch.setattr(collecting, "MAX_ANCESTOR_BYTES", sum(map(len, lines)) - 1)
    assert world.collect() == [B, C, D]
    assert world.bounds == ()


def test_statements_of_strangers_about_an_ancestor_displace_not_that_of_its_publisher() -> None:
    world = World.chain()
    world.say(B, STRANGER.entry.line, *(derived(B, parent) for parent in invented("many", 40)), first=True)
    assert world.collect()[:3] == [B, C, D]
    assert not graph(world.kept, Policy()).missing


def test_lines_that_decide_no_lineage_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    honest, world = World.chain(), World.chain()
    honest.collect()
    strangers_derive(world, B)
    monkeypatch.setattr(collecting, "MAX_CLAIMS", len(honest.kept))
    world.collect()
    assert world.kept == honest.kept


def test_keys_are_asked_for_of_those_who_describe_an_ancestor() -> None:
    world = World.chain()
    strangers_publish(world, B)
    world.say(C, FRIEND.entry.line, published(FRIEND, f"real/{C[:8]}@v2", C))
    collector = Collector(A, Policy(), OWNER.id)
    while questions := collector.questions():
        for question in questions:
            about = question.kind in ("artifact", "ancestor")
            collector.answered(question, map(parse_entry, world.said.get(question.digest, []) if about else []))
    asked = [question for question in collector.asked if question.kind == "identity"]
    assert asked == [Question("identity", OWNER.id), Question("identity", FRIEND.id)]


def test_without_the_publisher_those_whom_the_policy_names_come_first() -> None:
    world = World.chain()
    strangers_publish(world, A)
    asked = world.collect(policy=BOUND, publisher=None)
    assert asked[:3] == [B, C, D] and len(asked) == collecting.MAX_ANCESTORS


WORDS = st.tuples(st.integers(0, 7), st.sampled_from([OWNER, STRANGER, FRIEND]), st.sampled_from(["real", "s", "f"]))
POLICIES: Sequence[Policy] = (Policy(), BOUND, Policy(publishers=frozenset({FRIEND.id})))


@given(
    st.lists(st.tuples(WORDS, st.lists(st.tuples(st.integers(0, 7), st.sampled_from(["real", "s"])), max_size=3))),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 40)), max_size=30),
    st.sampled_from(POLICIES),
)
@settings(max_examples=examples(150), deadline=None)
def test_the_claimed_lineage_of_what_is_collected_is_that_of_everything_that_was_said(
    publications: list[tuple[tuple[int, Identity, str], list[tuple[int, str]]]],
    derivations: list[tuple[int, int]],
    policy: Policy,
) -> None:
    """However many parents are named beside it: the claimed lineage has at most eight artifacts."""
    artifacts, others = invented("artifact", 8), invented("of a derivation", 33)
    root, parents = artifacts[0], ((f"real/{at}", artifacts[at]) for at in (1, 2))
    world = World()
    world.say(root, OWNER.entry.line, published(OWNER, "real/root@v1", root, tuple(parents)))
    for (at, by, namespace), named in publications:
        if at:
            of = tuple({artifacts[parent]: (f"{ns}/{parent}", artifacts[parent]) for parent, ns in named}.values())
            world.say(artifacts[at], by.entry.line, published(by, f"{namespace}/{at}@v1", artifacts[at], of))
    for child, parent in ((child, parent) for child, parent in derivations if child != parent):
        world.say(artifacts[child], STRANGER.entry.line, derived(artifacts[child], [*artifacts, *others][parent]))
    for other in others:
        strangers_derive(world, other)
    world.collect(root, policy)
    every = dict.fromkeys(line for lines in world.said.values() for line in lines)
    assert graph(world.kept, policy, root) == graph(every, policy, root)


def test_a_world_is_answered_in_one_order() -> None:
    """The order in which an answer has the statements of one author and of others makes no difference to the chain."""
    found: list[Mapping[Digest, None]] = []
    for reverse in (False, True):
        world = World.chain()
        strangers_publish(world, B, "real")
        world.said = {about: lines[::-1] if reverse else lines for about, lines in world.said.items()}
        found.append(dict.fromkeys(world.collect()))
    assert [*found[0]] == [*found[1]]
