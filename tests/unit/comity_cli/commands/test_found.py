"""`comity found`: the genesis that all founders sign, the consents, and the file that everybody pins."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.federation_file import read_federation
from comity.trust.charter.document import MAX_BYTES, Body
from comity_cli.commands.found import command
from support.federation import NodeHome, make_home
from support.run_command import printed, refused, run, said
from support.world import identity


@pytest.fixture(scope="module", name="homes")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> list[NodeHome]:
    folder = tmp_path_factory.mktemp("founders")
    return [make_home(folder / str(number), number) for number in range(4)]


def cards(homes: list[NodeHome]) -> list[Path]:
    return [home.directory / "node-card.json" for home in homes]


@pytest.fixture(name="genesis")
def _genesis(tmp_path: Path, homes: list[NodeHome]) -> Path:
    path = tmp_path / "genesis.json"
    said(command, "draft", *cards(homes[:2]), "--out", path)
    return path


def test_the_same_cards_give_the_same_bytes(tmp_path: Path, homes: list[NodeHome]) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    said(command, "draft", *cards(homes), "--out", first)
    said(command, "draft", *reversed(cards(homes)), "--out", second)
    assert first.read_bytes() == second.read_bytes()
    assert len(Body.parse(first.read_bytes()).members) == 4


def test_a_charter_that_one_lost_key_stops_is_a_warning(tmp_path: Path, homes: list[NodeHome]) -> None:
    for count, warned in ((2, True), (3, True), (4, False)):
        text = said(command, "draft", *cards(homes[:count]), "--out", tmp_path / f"{count}.json")
        assert (f"every change of this charter needs all {count} members" in text) == warned


def test_a_namespace_is_bound_to_a_publisher(tmp_path: Path, homes: list[NodeHome]) -> None:
    owner, path = identity("Owner").id, tmp_path / "genesis.json"
    said(command, "draft", *cards(homes[:2]), "--namespace", f"swiss-ai={owner}", "--out", path)
    assert dict(Body.parse(path.read_bytes()).namespaces) == {"swiss-ai": owner}
    for wrong in ("swiss-ai", "swiss-ai=", "swiss-ai=51aa", f"No Name={owner}"):
        refused(command, "draft", *cards(homes[:2]), "--namespace", wrong, "--out", tmp_path / "wrong.json")
    assert not (tmp_path / "wrong.json").exists()


def test_nothing_is_signed_without_consent(tmp_path: Path, genesis: Path, homes: list[NodeHome]) -> None:
    target = tmp_path / "consent.line"
    words = ("consent", genesis, "--node", homes[0].directory, "--out", target)
    assert run(command, *words, answer="n\n").exit_code != 0 and not target.exists()
    assert run(command, *words, answer="y\n").exit_code == 0 and target.read_bytes().endswith(b"\n")


def test_a_stranger_cannot_consent(tmp_path: Path, genesis: Path, homes: list[NodeHome]) -> None:
    refused(command, "consent", genesis, "--node", homes[3].directory, "--out", tmp_path / "x.line", "--yes")
    assert not (tmp_path / "x.line").exists()


def test_a_federation_needs_the_consent_of_every_member(tmp_path: Path, genesis: Path, homes: list[NodeHome]) -> None:
    lines = [tmp_path / f"{number}.line" for number in range(2)]
    for home, line in zip(homes, lines, strict=False):
        said(command, "consent", genesis, "--node", home.directory, "--out", line, "--yes")
    target = tmp_path / "federation.json"
    missing = refused(command, "seal", genesis, lines[0], *cards(homes[:2]), "--out", target)
    assert "Example Institute 1" in str(missing) and not target.exists()
    refused(command, "seal", genesis, *lines, cards(homes)[0], "--out", target)
    assert "founded" in said(command, "seal", genesis, *lines, *cards(homes[:2]), "--out", target)
    assert read_federation(target).body == Body.parse(genesis.read_bytes())


def test_each_founder_types_one_command_and_is_told_what_to_send_to_whom(
    tmp_path: Path, homes: list[NodeHome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    three, state = homes[:3], tmp_path / "founding.json"
    text = said(command, "--node", three[0].directory, "--with", *cards(three)[1:], "--yes")
    assert "signed by 1 of 3" in text and "missing Example Institute" in text
    assert "comity found --node HOME --with founding.json" in text
    assert "signed by 1 of 3" in said(command, "--node", three[0].directory), "it resumes, and signs nothing twice"
    declined = run(command, "--node", three[1].directory, "--with", state, answer="n\n")
    assert declined.exit_code != 0 and "signed by 1 of 3" in said(command, "--node", three[0].directory)
    document = printed(command, "--node", three[1].directory, "--with", state, "--yes")
    assert [each["consented"] for each in document["members"]].count(True) == 2 and document["federation"] is None
    try:
        text = said(command, "--node", three[2].directory, "--yes")
        assert "founded: all 3 members signed" in text
        assert "comity serve --node HOME --federation founding.json" in text
        assert len(read_federation(three[2].directory / "federation.json").body.members) == 3
    finally:
        (three[2].directory / "federation.json").unlink(missing_ok=True)


def test_a_founding_names_its_files(tmp_path: Path, homes: list[NodeHome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    usage = run(command, "--node", homes[0].directory)
    assert usage.exit_code == 2 and "--with CARD" in str(usage.exception)
    assert run(command, "nothing").exit_code == 2
    assert not (tmp_path / "founding.json").exists()
    (tmp_path / "founding.json").write_text("a note of mine")
    other = run(command, "--node", homes[0].directory, "--with", cards(homes)[1], "--yes")
    assert other.exit_code == 2 and (tmp_path / "founding.json").read_text() == "a note of mine"


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 10_000, b" " * (MAX_BYTES + 1)])
def test_a_file_that_is_no_charter_is_refused(tmp_path: Path, homes: list[NodeHome], data: bytes) -> None:
    path = tmp_path / "genesis.json"
    path.write_bytes(data)
    refused(command, "consent", path, "--node", homes[0].directory, "--out", tmp_path / "x.line", "--yes")
