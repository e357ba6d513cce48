"""Shares by law: artifacts, bytes and pulls; a claim is called one; what is not known has its share."""

from __future__ import annotations

import pytest
from comity.rules import descent_shares as module
from comity.rules.descent import NOWHERE, DescentCount, LineageRoot
from comity.rules.descent_shares import (
    CHARTER,
    STATED,
    DescentFolder,
    DescentShares,
    KnownLaws,
    parse_laws,
    percent,
)
from comity.trust.errors import Malformed

LAWS = b'[laws]\n"hf:google" = "US"\n"hf:Mistralai" = "FR"\n'
ALICE, BOB, STRANGER = "a" * 64, "b" * 64, "c" * 64
KNOWN = KnownLaws({ALICE: "CH"}, parse_laws(LAWS), {ALICE: "Institute"})


def count(
    *roots: LineageRoot, artifacts: int = 1, size: int = 10, pulls: int = 0, of_members: bool = True
) -> DescentCount:
    return DescentCount(roots, of_members, artifacts, size, 0, pulls, 0)


def folded(*counts: DescentCount) -> DescentShares:
    folder = DescentFolder(KNOWN)
    for each in counts:
        folder.add((each,))
    return folder.shares("node-ch", 3, 13)


def test_shares_are_by_law_with_its_source_and_how_it_is_known() -> None:
    found = folded(
        count(LineageRoot("hf:google", "mirrored"), artifacts=2, size=30, pulls=5),
        count(LineageRoot("hf:google", "claimed")),
        count(LineageRoot(ALICE, "own")),
        count(NOWHERE),
        count(LineageRoot(STRANGER, "claimed")),
    )
    laws = {(share.law.code, share.lineage_known): share for share in found.laws}
    us, ch, nowhere, nobody = laws["US", True], laws["CH", True], laws["", False], laws["", True]
    assert (us.law.source, ch.law.source, nobody.law.source) == (STATED, CHARTER, "unknown")
    assert (us.amounts.artifacts, us.amounts.size, us.amounts.pulls, us.alone) == (3, 40, 5, 3)
    assert dict(us.by_basis) == {"mirrored": 2, "claimed": 1}
    assert (nowhere.amounts.artifacts, nobody.amounts.artifacts, ch.known_by("own")) == (1, 1, 1)
    assert (found.total.artifacts, found.unread, found.weeks) == (6, 3, 13)
    assert [share.law.code for share in found.laws] == ["US", "CH", "", ""]
    assert [(share.author, share.name) for share in found.authors][:2] == [("hf:google", ""), (ALICE, "Institute")]


def test_an_artifact_with_several_roots_is_under_each_law_once_with_the_best_basis() -> None:
    found = folded(
        count(LineageRoot("hf:google", "claimed"), LineageRoot("hf:mistralai", "signed"), LineageRoot(ALICE, "claimed"))
    )
    assert {share.law.code: (share.amounts.artifacts, share.alone) for share in found.laws} == {
        "US": (1, 0),
        "FR": (1, 0),
        "CH": (1, 0),
    }
    two = KnownLaws({}, {"hf:x": "US", "hf:y": "US"}, {})
    folder = DescentFolder(two)
    folder.add((count(LineageRoot("hf:x", "claimed"), LineageRoot("hf:y", "signed")),))
    (share,) = folder.shares("n", 0, 13).laws
    assert (share.amounts.artifacts, share.alone, dict(share.by_basis)) == (1, 1, {"signed": 1})


def test_what_only_strangers_say_is_counted_apart() -> None:
    found = folded(count(LineageRoot(STRANGER, "own"), artifacts=9, of_members=False), count(LineageRoot(ALICE, "own")))
    assert (found.apart.artifacts, found.total.artifacts, len(found.laws), len(found.authors)) == (9, 1, 1, 1)


def test_who_asks_for_everybody_gets_strangers_in_the_shares_and_packages_are_always_counted() -> None:
    stranger = DescentCount((LineageRoot(STRANGER, "own"),), False, 9, 90, 0, 0, 2)
    for everybody, expected in ((False, (0, 9)), (True, (9, 0))):
        folder = DescentFolder(KNOWN, everybody=everybody)
        folder.add((stranger,))
        found = folder.shares("node", 0, 13)
        assert (found.total.artifacts, found.apart.artifacts, found.requiring) == (*expected, 2)


def test_further_authors_are_counted_under_their_law_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_AUTHORS", 2)
    found = folded(*(count(LineageRoot(f"hf:{number}", "mirrored")) for number in range(5)))
    assert (len(found.authors), found.authors_cut, found.laws[0].amounts.artifacts) == (2, True, 5)


def test_a_node_whose_counts_do_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ARTIFACTS", 3)
    with pytest.raises(Malformed, match="do not end"):
        folded(count(LineageRoot(ALICE, "own"), artifacts=4))


def test_a_file_of_laws_is_read_whatever_the_case_and_refused_with_a_reason() -> None:
    assert parse_laws(LAWS) == {"hf:google": "US", "hf:mistralai": "FR"}
    for wrong in (b"", b"[laws]\nx = 1", b"[laws]\nx = 'usa!'", b"[other]", b"\xff", b"[laws]\n[more]", b"[laws"):
        with pytest.raises(Malformed) as failure:
            parse_laws(wrong)
        assert failure.value.code == "LAWS-FILE"
    with pytest.raises(Malformed):
        parse_laws(b"#" * (module.MAX_LAWS_BYTES + 1))


def test_percents_of_nothing_and_of_little_are_honest() -> None:
    assert [percent(*each) for each in ((0, 0), (0, 9), (1, 1000), (1, 3), (3, 3))] == [
        "-",
        "0 %",
        "<1 %",
        "33 %",
        "100 %",
    ]
