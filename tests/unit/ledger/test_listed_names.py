"""Names in lists: whose publications are listed under a name, and what is said of their owners."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.ledger import intake, stated_kinds
from comity.ledger.ledger import Ledger
from comity.ledger.listed_names import MAX_NAMES, ListedNames, OwnedNames
from comity.node.intake import LineProver
from comity.rules.artifact_kind import KindStated
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, sha256
from comity.trust.names import Name
from comity.trust.statement import Author, Entry, SideObject
from comity.trust.statement_kinds import ARTIFACT_KIND, KNOWN_PREDICATES
from comity.trust.statements import Advisory, Licence, Published
from support.logs import LogKeys
from support.rotations import CLASSICAL, of
from support.world import Identity, identity

FAR, OTHER = LogKeys.generate("far.example/log"), LogKeys.generate("other.example/log")
OWNER, RIVAL = identity("Owner", algs=CLASSICAL), identity("Rival", algs=CLASSICAL)


def published(by: Identity, name: str, version: str = "v1", artifact: int = 0) -> Entry:
    manifest = SideObject(sha256(b"artifact %d" % artifact), 100)
    pieces = SideObject(sha256(b"pieces"), 1)
    name_of = Name.parse(f"{name}@{version}")
    return sign_content(Published(by.id, name_of, manifest.digest, manifest, pieces, Licence("MIT")), by.signer)


def advised(subject: Digest, by: Identity = OWNER) -> Entry:
    return sign_content(Advisory(Author("identity", by.id), subject, "vulnerability", "low", "a text"), by.signer)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path, lambda: 1_000)
    for log in (FAR, OTHER):
        opened.logs.create(log.origin, log.vkey)
    yield opened
    opened.close()


def say(ledger: Ledger, log: LogKeys, *entries: Entry) -> None:
    ledger.logs.advance(
        log.vkey, 0, [entry.line for entry in entries], log.note_over([entry.line for entry in entries])
    )
    LineProver(ledger, lambda who: ()).finish_all()


def owned(ledger: Ledger, *names: str, most: int = 100, **bound: Identity) -> OwnedNames:
    owners = {name.replace("__", "/"): who.id for name, who in bound.items()}
    found = ListedNames(ledger._database).owned(names, owners, most)
    assert found is not None
    return found


def shown(found: OwnedNames) -> dict[str, list[tuple[str, str, Digest]]]:
    return {
        name: [(each.repository, each.version, each.publisher) for each in publications]
        for name, publications in found.publications.items()
    }


def test_the_only_claimant_of_a_name_owns_it(ledger: Ledger) -> None:
    say(ledger, FAR, OWNER.entry, published(OWNER, "Acme/Tiny"), published(OWNER, "Acme/Tiny", "v2", 1))
    found = owned(ledger, "acme/TINY", "acme/none")
    assert shown(found) == {"acme/tiny": [("Acme/Tiny", "v1", OWNER.id), ("Acme/Tiny", "v2", OWNER.id)]}
    (owner,) = found.owners.values()
    assert (owner.identity, owner.inception, owner.rotated, owner.advised) == (OWNER.id, OWNER.entry.line, False, False)
    assert found.mirrored == frozenset()


def test_a_name_with_two_claimants_is_left_out_but_where_one_is_bound(ledger: Ledger) -> None:
    say(ledger, FAR, OWNER.entry, RIVAL.entry, published(OWNER, "acme/a"), published(RIVAL, "acme/a", artifact=1),
        published(RIVAL, "acme/b", artifact=2))  # fmt: skip
    assert list(shown(owned(ledger, "acme/a", "acme/b"))) == ["acme/b"]
    assert shown(owned(ledger, "acme/a", acme__a=RIVAL)) == {"acme/a": [("acme/a", "v1", RIVAL.id)]}
    assert shown(owned(ledger, "acme/b", acme__b=OWNER)) == {}  # bound to one who published nothing under it
    assert list(owned(ledger, "acme/a", acme__a=OWNER).owners) == [OWNER.id]


def test_publications_are_ordered_by_version_log_and_turn(ledger: Ledger) -> None:
    say(ledger, OTHER, OWNER.entry, published(OWNER, "acme/a", "v2", 2), published(OWNER, "acme/a", "v1", 1))
    say(ledger, FAR, OWNER.entry, published(OWNER, "acme/a", "v1", 3))
    found = owned(ledger, "acme/a").publications["acme/a"]
    assert [(each.version, each.log) for each in found] == [("v1", FAR.vkey), ("v1", OTHER.vkey), ("v2", OTHER.vkey)]
    lines = ListedNames(ledger._database).lines([each.position for each in found])
    assert [lines[each.position] for each in found] == [
        published(OWNER, "acme/a", "v1", 3).line,
        published(OWNER, "acme/a", "v1", 1).line,
        published(OWNER, "acme/a", "v2", 2).line,
    ]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_more_publications_than_are_wanted_are_none_at_all(ledger: Ledger, most: int) -> None:
    say(ledger, FAR, OWNER.entry, *(published(OWNER, "acme/a", f"v{number}", number) for number in range(2)))
    found = ListedNames(ledger._database).owned(["acme/a", "acme/b"], {}, most)
    assert (found is None) == (most < 2)


def test_only_so_many_names_are_read(ledger: Ledger) -> None:
    say(ledger, FAR, OWNER.entry, published(OWNER, "acme/a"))
    others = [f"acme/other-{number}" for number in range(MAX_NAMES)]
    assert list(shown(owned(ledger, *others[1:], "acme/a"))) == ["acme/a"]
    assert shown(owned(ledger, *others, "acme/a")) == {}


def test_advisories_and_rotations_are_marked(ledger: Ledger) -> None:
    _, rotation = of(RIVAL).to("Rival second")
    say(ledger, FAR, OWNER.entry, RIVAL.entry, published(OWNER, "acme/a"), published(RIVAL, "acme/b", artifact=1),
        advised(sha256(b"artifact 1"), OWNER), advised(OWNER.id, RIVAL), rotation)  # fmt: skip
    found = owned(ledger, "acme/a", "acme/b")
    assert {name: each[0].advised for name, each in found.publications.items()} == {"acme/a": False, "acme/b": True}
    assert {who: (owner.advised, owner.rotated) for who, owner in found.owners.items()} == {
        OWNER.id: (True, False),
        RIVAL.id: (False, True),
    }


def kind(word: str, by: Identity = OWNER, artifact: int = 0, number: int = 0) -> Entry:
    subject = sha256(b"artifact %d" % artifact)
    return sign_content(KindStated(by.id, Name.parse("acme/a@v1"), subject, word, number), by.signer)


def test_the_kinds_of_artifacts_are_those_that_their_publishers_state(ledger: Ledger) -> None:
    say(ledger, FAR, OWNER.entry, RIVAL.entry, kind("dataset"), kind("prompt", RIVAL), kind("adapter", artifact=1),
        kind("prompt", number=1))  # fmt: skip
    first, second, none = (sha256(b"artifact %d" % number) for number in range(3))
    found = ListedNames(ledger._database).stated_kinds([(first, OWNER.id), (second, OWNER.id), (none, OWNER.id)])
    assert {pair: [each.kind for each in stated] for pair, stated in found.items()} == {
        (first, OWNER.id): ["dataset", "prompt"],
        (second, OWNER.id): ["adapter"],
    }


def test_what_strangers_state_of_a_kind_is_not_read(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stated_kinds, "MAX_STATED", 1)
    say(ledger, FAR, OWNER.entry, RIVAL.entry, *(kind("prompt", RIVAL, number=number) for number in range(5)),
        kind("dataset"))  # fmt: skip
    names, pair = ListedNames(ledger._database), (sha256(b"artifact 0"), OWNER.id)
    assert [each.kind for each in names.stated_kinds([pair])[pair]] == ["dataset"]


def test_a_kind_that_an_older_version_kept_as_unknown_is_known_after_an_update(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "KNOWN_PREDICATES", KNOWN_PREDICATES - {ARTIFACT_KIND})
    say(ledger, FAR, OWNER.entry, kind("dataset"))
    pair = sha256(b"artifact 0"), OWNER.id
    assert [each.kind for each in ListedNames(ledger._database).stated_kinds([pair])[pair]] == ["dataset"]
