"""A pull while no node can be reached: the answer is what was pulled before, and the output says so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from comity.rules.signing import sign_content
from comity.trust.errors import Unavailable
from comity.trust.policy import Policy
from comity.trust.statements import Advisory
from comity_cli.main import main
from comity_client.client import Client
from comity_client.home import Home
from support.fakes import FakeFederation, Release, release
from support.weights import as_tensor
from support.world import NOW, identity

FILES = {"README.md": b"# Tiny\n", "model.safetensors": as_tensor(bytes(range(256)) * 64)}
OWNER = identity("Swiss AI", "CH")


@dataclass
class Pulled:
    client: Client
    federation: FakeFederation
    release: Release
    folder: Path

    def close(self) -> None:
        for fake in self.federation.nodes:
            self.federation.kill(fake.node.record.name)


@pytest.fixture
def pulled(tmp_path: Path, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch) -> Pulled:
    """swiss-ai/tiny@v1 in the cache; its nodes still answer."""
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    made = release(tmp_path / "source", FILES, by=OWNER)
    for line in (OWNER.entry.line, made.entry.line):
        federation.nodes[0].log.append(line)
    for fake in federation.nodes:
        fake.take(made)
    client = Client(Home(tmp_path / "home"))
    client.pin(federation.file({}))
    return Pulled(client, federation, made, client.pull("swiss-ai/tiny@v1").folder)


def ends(*words: str) -> object:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return ended.value.code


def test_a_version_in_the_cache_is_the_answer_without_nodes(pulled: Pulled) -> None:
    artifact = pulled.release.published.artifact
    assert pulled.client.pull("swiss-ai/tiny@v1").cache is None, "nodes answer"
    pulled.close()
    digests = (artifact, artifact[:9])
    for reference in ("swiss-ai/tiny@v1", *(f"{name}sha256:{d}" for name in ("", "swiss-ai/tiny@") for d in digests)):
        found = pulled.client.pull(reference)
        assert (found.artifact, found.folder, found.files) == (artifact, pulled.folder, len(FILES))
        assert found.verdict.exit_status == 0
        assert found.cache is not None and found.cache.cosigned_at == NOW
        assert all(fake.node.record.name in found.cache.why for fake in pulled.federation.nodes)


def test_a_stranger_who_publishes_the_same_bytes_changes_no_answer(pulled: Pulled, tmp_path: Path) -> None:
    """A stranger can make identities until one has an id that sorts before that of the publisher."""
    stranger = min((identity(f"Stranger {number}", "CH") for number in range(24)), key=lambda who: who.id)
    assert stranger.id < OWNER.id
    made = release(tmp_path / "source", FILES, by=stranger, name="elsewhere/tiny@v1", spdx="CC-BY-NC-4.0")
    for line in (stranger.entry.line, made.entry.line):
        pulled.federation.nodes[0].log.append(line)
    again = pulled.client.pull("swiss-ai/tiny@v1").verdict
    assert (again.name, again.row("licence").summary.rpartition(" ")[2]) == ("swiss-ai/tiny@v1", "Apache-2.0")
    assert pulled.client.verify("swiss-ai/tiny@v1").name == "swiss-ai/tiny@v1"
    pulled.close()
    found = pulled.client.pull("swiss-ai/tiny@v1")
    assert found.cache is not None and found.verdict.name == "swiss-ai/tiny@v1"


def test_the_command_names_the_source_of_the_answer(pulled: Pulled, capsys: pytest.CaptureFixture[str]) -> None:
    pulled.close()
    assert ends("pull", "swiss-ai/tiny@v1") == 0
    said = capsys.readouterr()
    assert "no node answered: this rests on the copy that was pulled before" in said.err
    assert "last cosigned on 2026-11-18" in said.out
    assert "later corrections, advisories and withdrawals" in said.out
    assert ends("pull", "swiss-ai/tiny@v1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["cache"]["cosigned_at"] == NOW


def warn_of(pulled: Pulled) -> None:
    """Three warnings: by the publisher, by a member, and by a node of another member."""
    artifact, (home, other, *_) = pulled.release.published.artifact, pulled.federation.nodes
    seat, node = home.node.seat, other.node
    for author, kind, text, signer in (
        (OWNER.inception.author, "vulnerability", "a way in", OWNER.signer),
        (seat.inception.author, "malware", "it phones home", seat.signer),
        (node.record.node, "malware", "it deletes files", node.online),
    ):
        home.log.append(sign_content(Advisory(author, artifact, kind, "high", text), signer).line)


def warnings(said: str) -> list[str]:
    return sorted(line for line in said.splitlines() if line.startswith(("! malware", "! vulnerability")))


WITHOUT_PINS = f'[publishers]\naccept = ["{OWNER.id}"]\n[rows]\nrequire = ["artifact", "bytes", "signatures"]\n'


@pytest.mark.parametrize("policy", ["", WITHOUT_PINS], ids=["default", "without pins"])
def test_a_pull_without_nodes_warns_of_what_its_evidence_proves(
    pulled: Pulled, tmp_path: Path, capsys: pytest.CaptureFixture[str], policy: str
) -> None:
    (tmp_path / "policy.toml").write_text(policy)
    words = ("pull", "swiss-ai/tiny@v1", *(("--policy", str(tmp_path / "policy.toml")) if policy else ()))
    warn_of(pulled)
    assert ends(*words) == 0
    with_nodes = warnings(capsys.readouterr().err)
    assert len(with_nodes) == 3 and "! vulnerability (high) by its publisher: a way in" in with_nodes
    pulled.close()
    assert ends(*words) == 0
    said = capsys.readouterr().err
    assert "no node answered" in said and warnings(said) == with_nodes


def test_a_kit_is_pulled_with_each_warning_once(
    pulled: Pulled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kits"))
    warn_of(pulled)
    assert ends("pull", "swiss-ai/tiny@v1") == 0
    once = warnings(capsys.readouterr().err)
    assert ends("kit", "run", "swiss-ai/tiny@v1") != 0, "it is no kit"
    assert warnings(capsys.readouterr().err) == once


def test_nodes_that_answer_without_the_name_are_not_reported_as_silent(
    pulled: Pulled, capsys: pytest.CaptureFixture[str]
) -> None:
    for fake in pulled.federation.nodes:
        for log in fake.logs_held.values():
            log.lines[:] = [OWNER.entry.line if line == pulled.release.entry.line else line for line in log.lines]
    assert ends("pull", "swiss-ai/tiny@v1") == 0
    said = capsys.readouterr()
    assert "no node that answered knows it: this rests on the copy" in said.err


def test_a_copy_that_is_damaged_or_in_part_is_no_answer(pulled: Pulled, tmp_path: Path) -> None:
    pulled.client.pull("swiss-ai/tiny@v1", to=tmp_path / "part", include=["README.md"])
    pulled.close()
    with pytest.raises(Unavailable):
        pulled.client.pull("swiss-ai/tiny@v1", to=tmp_path / "part")
    blob = (pulled.folder / "README.md").resolve()
    blob.chmod(0o644)
    blob.write_bytes(b"# Tidy\n")
    with pytest.raises(Unavailable):
        pulled.client.pull("swiss-ai/tiny@v1")


def test_a_reference_that_the_cache_does_not_have_fails_as_before(pulled: Pulled, tmp_path: Path) -> None:
    refs = pulled.folder.parent.parent / "refs"
    (refs / "v2").write_bytes((refs / "v1").read_bytes())
    pulled.close()
    names = ("swiss-ai/tiny", "swiss-ai/tiny@v2", "swiss-ai/tiny@v3", "swiss-ai/other@v1")
    for reference in (*names, f"sha256:{'0' * 64}"):
        with pytest.raises(Unavailable):
            pulled.client.pull(reference)
    with pytest.raises(Unavailable):
        pulled.client.pull("swiss-ai/tiny@v1", to=tmp_path / "absent")


def test_a_copy_of_another_publisher_than_the_name_has_here_is_no_answer(pulled: Pulled) -> None:
    pulled.close()
    rival = identity("Rival", "SG").id
    pulled.client.bind("swiss-ai", rival)
    with pytest.raises(Unavailable):
        pulled.client.pull("swiss-ai/tiny@v1")
    pulled.client.unbind("swiss-ai")
    pulled.client.bind("swiss-ai/tiny@v1", "0" * 64)
    with pytest.raises(Unavailable):
        pulled.client.pull("swiss-ai/tiny@v1")
    pulled.client.unbind("swiss-ai/tiny@v1")


def test_an_artifact_in_the_cache_is_shown_without_nodes(pulled: Pulled, capsys: pytest.CaptureFixture[str]) -> None:
    with_nodes = pulled.client.show("swiss-ai/tiny@v1")
    pulled.close()
    for reference in ("swiss-ai/tiny@v1", f"sha256:{pulled.release.published.artifact}"):
        alone = pulled.client.show(reference)
        assert alone.cache is not None and alone.cache.cosigned_at == NOW
        assert (alone.title, alone.artifact, alone.manifest) == (
            with_nodes.title,
            with_nodes.artifact,
            with_nodes.manifest,
        )
        assert alone.current == with_nodes.current
        assert {(said.predicate, said.by) for said in alone.said} <= {
            (said.predicate, said.by) for said in with_nodes.said
        }
    assert ends("show", "swiss-ai/tiny@v1") == 0
    printed = capsys.readouterr()
    assert "no node answered: this rests on the copy that was pulled before" in printed.err
    assert "Swiss AI" in printed.out and "last cosigned on 2026-11-18" in printed.out
    assert ends("show", "swiss-ai/tiny@v1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["cache"]["answered"] is False


def test_an_artifact_is_shown_without_nodes_with_the_warnings_of_members_and_nodes(pulled: Pulled) -> None:
    warn_of(pulled)
    pulled.client.pull("swiss-ai/tiny@v1")
    with_nodes = pulled.client.show("swiss-ai/tiny@v1").advisories
    assert len(with_nodes) == 3
    pulled.close()
    assert set(pulled.client.show("swiss-ai/tiny@v1").advisories) == set(with_nodes)
    without_pins = Policy((), publishers=frozenset({OWNER.id}))
    assert set(pulled.client.show("swiss-ai/tiny@v1", policy=without_pins).advisories) == set(with_nodes)


@pytest.mark.parametrize("reference", ["swiss-ai/tiny", "swiss-ai/tiny@v2"])
def test_only_an_exact_version_that_was_pulled_is_shown_without_nodes(pulled: Pulled, reference: str) -> None:
    pulled.close()
    with pytest.raises(Unavailable):
        pulled.client.show(reference)


def test_a_name_that_is_only_claimed_is_shown_with_the_command_that_binds_it(
    pulled: Pulled, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"comity trust bind swiss-ai {OWNER.id[:16]}"
    for words in (("show", "swiss-ai/tiny@v1"), ("pull", "swiss-ai/tiny@v1")):
        assert ends(*words) == 0
        assert command in capsys.readouterr().out
    assert ends("trust", "bind", "swiss-ai", OWNER.id) == 0
    capsys.readouterr()
    assert ends("pull", "swiss-ai/tiny@v1") == 0
    assert "comity trust bind" not in capsys.readouterr().out
