"""`comity descent`: by law, artifacts, bytes and pulls; a claim is called one; what is not known has its share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.rules.descent import NOWHERE, DescentCount, LineageRoot
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from comity.wire.descent import DescentPage
from comity_cli.commands import impact as impact_module
from comity_cli.commands.descent import command, percent
from comity_cli.commands.impact import command as impact
from comity_client import descent as module
from comity_client.client import Client
from comity_client.dependents import VENDORS
from comity_client.descent import CHARTER, STATED, DescentFolder, DescentShares, KnownLaws, parse_laws
from comity_client.home import Home
from support.fakes import FakeFederation
from support.run_command import printed, refused, run, said

LAWS = b'[laws]\n"hf:google" = "US"\n"hf:Mistralai" = "FR"\n'
ALICE, BOB, STRANGER = "a" * 64, "b" * 64, "c" * 64
KNOWN = KnownLaws({ALICE: "CH"}, parse_laws(LAWS), {ALICE: "Institute"})


def count(
    *roots: LineageRoot, artifacts: int = 1, size: int = 10, pulls: int = 0, of_members: bool = True
) -> DescentCount:
    return DescentCount(roots, of_members, artifacts, size, 0, pulls, 0)


def folded(*counts: DescentCount) -> DescentShares:
    folder = DescentFolder(KNOWN)
    for number, each in enumerate(counts, 1):
        folder.add(DescentPage(3, (each,), number, 13))
    return folder.shares("node-ch")


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
    folder.add(DescentPage(0, (count(LineageRoot("hf:x", "claimed"), LineageRoot("hf:y", "signed")),), 0, 13))
    (share,) = folder.shares("n").laws
    assert (share.amounts.artifacts, share.alone, dict(share.by_basis)) == (1, 1, {"signed": 1})


def test_what_only_strangers_say_is_counted_apart() -> None:
    found = folded(count(LineageRoot(STRANGER, "own"), artifacts=9, of_members=False), count(LineageRoot(ALICE, "own")))
    assert (found.apart.artifacts, found.total.artifacts, len(found.laws), len(found.authors)) == (9, 1, 1, 1)


def test_who_asks_for_everybody_gets_strangers_in_the_shares_and_packages_are_always_counted() -> None:
    stranger = DescentCount((LineageRoot(STRANGER, "own"),), False, 9, 90, 0, 0, 2)
    for everybody, expected in ((False, (0, 9)), (True, (9, 0))):
        folder = DescentFolder(KNOWN, everybody=everybody)
        folder.add(DescentPage(0, (stranger,), 0, 13))
        found = folder.shares("node")
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


@pytest.fixture(scope="module", name="running")
def _running() -> Iterator[FakeFederation]:
    federation = FakeFederation(("CH", "SG"))
    with federation.running() as running:
        artifact = sha256(b"needs packages")
        counts = (
            DescentCount((LineageRoot("hf:google", "mirrored"),), True, 2, 2_000_000_000, 0, 7, 1),
            DescentCount((LineageRoot(running.publisher.id, "own"),), True, 1, 10, 0, 0, 0),
            DescentCount((NOWHERE,), True, 1, 10, 1, 0, 0),
        )
        for node in running.nodes:
            node.descent_pages = {
                0: DescentPage(0, counts[:2], 5, 13, (artifact,)),
                5: DescentPage(0, counts[2:], 0, 13),
            }
        yield running


@pytest.fixture(name="laws")
def _laws(running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    Client(Home(tmp_path / "home")).pin(running.file())
    (tmp_path / "laws.toml").write_bytes(LAWS)
    return str(tmp_path / "laws.toml")


def test_the_command_prints_a_table_of_80_columns_and_says_what_is_missing(laws: str) -> None:
    text = said(command)
    assert "law not known" in text and "ancestors not known" in text and "--laws FILE" in text
    assert "1 artifact names packages that it does not contain" in text and "size of 1 artifact is not known" in text
    stated = run(command, "--laws", laws).output
    table = [line for line in stated.splitlines() if "%" in line]
    assert "US (stated)" in stated and len(table) == 5 and max(map(len, table)) <= 80, stated
    document = printed(command, "--laws", laws)
    assert (document["total"]["artifacts"], document["requiring_packages"]) == (4, 1)
    (us,) = (each for each in document["laws"] if each["law"] == "US")
    assert (us["law_from"], us["amounts"], us["mirrored"]) == (
        "stated",
        {"artifacts": 2, "bytes": 2_000_000_000, "pulls": 7},
        2,
    )


def test_a_member_a_node_or_an_id_is_asked_about_and_nobody_else(laws: str, running: FakeFederation) -> None:
    record = running.nodes[0].node.record
    for option, name in (("--held-by", record.name), ("--published-by", record.member), ("--held-by", "f" * 64)):
        assert printed(command, option, name)["total"]["artifacts"] == 4
    refused(command, "--held-by", "Nobody")


def test_impact_of_parties_without_copies_says_what_needs_them(laws: str) -> None:
    assert "1 artifact on package-index" in said(impact, "package-index")
    assert "Nothing depends on update-channel" in said(impact, "update-channel")
    for vendor in VENDORS:
        assert f"hardware-root:{vendor}" in said(impact, f"hardware-root:{vendor}")
    (item,) = printed(impact, "package-index")["parties"]
    assert (item["kind"], item["dependents"], item["gone"]) == ("package-index", 1, 0)
    refused(impact, "hardware-root:other")
    assert impact_module._further_party("reach:US") is None
