"""`comity verify`: the report, its page and its signature beside the verdict, and combinations that are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.trust.errors import Untrusted
from comity_cli.commands.adopt import command as adopt
from comity_cli.commands.verify import command
from comity_client.client import Client
from comity_client.home import Home
from comity_client.reports import read_signed
from comity_client.signature_files import signature_path
from support.case import case, nodes
from support.fakes import FakeFederation, release
from support.run_command import printed, refused, run, said

GOOD = case()


@pytest.fixture(name="root")
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    GOOD.write(tmp_path)
    return tmp_path


def words(root: Path, *more: object) -> tuple[object, ...]:
    return (root / "model", "--policy", root / "policy.toml", *more)


def test_a_verdict_alone_writes_nothing(root: Path) -> None:
    before = sorted(root.rglob("*"))
    document = printed(command, *words(root))
    assert "report" not in document and document["artifact"] == GOOD.artifact
    assert sorted(root.rglob("*")) == before


def test_a_report_is_the_same_bytes_for_the_same_evidence(root: Path) -> None:
    first, second, page = root / "1.json", root / "2.json", root / "page.html"
    document = printed(command, *words(root, "--report", first, "--html", page))
    assert (document["report"], document["html"], document["signature"], document["logged"]) == (
        str(first), str(page), None, [],
    )  # fmt: skip
    assert run(command, *words(root, "--report", second)).exit_code == 0
    assert first.read_bytes() == second.read_bytes() and "<html" in page.read_text()
    assert not signature_path(first).exists()


def test_a_refusal_is_reported_and_signed_too(root: Path) -> None:
    Client(Home(root / "home")).new_publisher("Desk", "CH", "")
    case(cosigners=nodes()[1:3]).demanding("at_least = 2", "at_least = 3").write(root)
    report = root / "report.json"
    document = printed(command, *words(root, "--report", report, "--sign-as", "Desk"), status=4)
    assert document["signature"] == str(signature_path(report))
    signed = read_signed(report)
    assert signed is not None
    said = json.loads(report.read_bytes())
    assert (said["accepted"], said["exit_status"]) == (False, 4)


def test_a_changed_report_is_not_the_one_that_was_signed(root: Path) -> None:
    Client(Home(root / "home")).new_publisher("Desk", "CH", "")
    report = root / "report.json"
    result = run(command, *words(root, "--report", report, "--sign-as", "Desk"))
    assert result.exit_code == 0 and "signed by Desk" in result.output
    report.write_bytes(report.read_bytes().replace(b"tiny", b"tino"))
    with pytest.raises(Untrusted, match="report refused"):
        read_signed(report)


def test_without_a_manifest_nothing_is_signed(root: Path) -> None:
    Client(Home(root / "home")).new_publisher("Desk", "CH", "")
    (root / "model" / ".comity" / "manifest.json").unlink()
    report = root / "report.json"
    result = run(command, *words(root, "--report", report, "--sign-as", "Desk"))
    assert result.exit_code == 5 and report.exists() and not signature_path(report).exists()
    assert "not signed: without a manifest there is no artifact to sign for" in " ".join(result.output.split())


@pytest.mark.parametrize(
    "more",
    [
        ("--sign-as", "Desk"),
        ("--node", "node-ch"),
        ("--report", "model/report.json"),
        ("--html", "model/deep/page.html"),
        ("--report", "model/../model/report.json"),
    ],
)
def test_wrong_combinations_are_refused_before_a_file_is_hashed(root: Path, more: tuple[str, ...]) -> None:
    option, value = more
    before = sorted(root.rglob("*"))
    result = run(command, *words(root, option, root / value if "/" in value else value))
    assert result.exit_code == 2 and sorted(root.rglob("*")) == before


def test_a_signature_needs_a_policy_and_a_signer_that_exists(root: Path) -> None:
    assert run(command, root / "model", "--report", root / "r.json", "--sign-as", "Desk").exit_code == 2
    refused(command, *words(root, "--report", root / "r.json", "--sign-as", "Desk"))
    assert not (root / "r.json").exists()


def test_without_pins_the_next_steps_are_said(root: Path) -> None:
    result = run(command, root / "model")
    text = " ".join(result.output.split())
    assert result.exit_code == 4 and "no federation is pinned here" in text and "comity trust pin FILE" in text
    Client(Home(root / "home")).pin(root / "federation.json")
    assert "no federation is pinned here" not in run(command, root / "model").output


@pytest.fixture(scope="module", name="running")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    with FakeFederation(("CH", "SG", "ES")).running() as running:
        files = {"config.json": b"{}", "README.md": b"# Tiny\n"}
        running.publish(release(tmp_path_factory.mktemp("bare") / "model", files, by=running.publisher))
        yield running


@pytest.fixture
def bare(running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a published artifact, without evidence, of a user who pinned the federation."""
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    Client(Home(tmp_path / "home")).pin(running.file())
    (tmp_path / "model").mkdir()
    for name, data in {"config.json": b"{}", "README.md": b"# Tiny\n"}.items():
        (tmp_path / "model" / name).write_bytes(data)
    return tmp_path / "model"


def test_a_folder_without_evidence_is_identified_and_verified(bare: Path) -> None:
    text = said(command, bare)
    assert "identified by its files; evidence fetched now from 3 of 3 nodes" in text
    assert "swiss-ai/tiny@v1" in text and "ACCEPTED" in text
    assert printed(command, bare)["accepted"] is True
    assert sorted(path.name for path in bare.iterdir()) == ["README.md", "config.json"]


def test_what_a_folder_without_evidence_lacks_is_said(bare: Path) -> None:
    offline = run(command, bare, "--offline")
    assert offline.exit_code == 5 and f"comity adopt {bare}" in offline.output
    (bare / "README.md").unlink()
    partial = run(command, bare)
    assert partial.exit_code == 8 and "missing: README.md" in partial.output
    (bare / "config.json").write_bytes(b"[1]")
    unknown = run(command, bare)
    assert unknown.exit_code == 5 and "no node knows any of its 1 files" in unknown.output
    assert f"comity identify {bare}" in unknown.output


def test_once_it_is_adopted_a_folder_is_verified_without_a_network(bare: Path) -> None:
    text = said(adopt, bare)
    assert "none was changed or copied" in text and f"comity verify {bare}" in text
    verified = said(command, bare, "--offline")
    assert "ACCEPTED" in verified and "identified by its files" not in verified


def test_files_go_into_a_cache_as_the_user_says(bare: Path, tmp_path: Path) -> None:
    assert run(adopt, bare, "--hard-links").exit_code == 2
    document = printed(adopt, bare, "--hub-cache", tmp_path / "cache", "--hard-links")
    assert Path(document["cache"]).is_relative_to(tmp_path / "cache") and not document["cloned"]
    assert "a loader does not" in run(adopt, bare, "--hub-cache", tmp_path / "cache", "--hard-links").output
