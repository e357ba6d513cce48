"""`comity storage-initializer`: what is in the volume of a pod after it, and what it refuses before it asks a node."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from comity.rules.signing import sign_content
from comity.trust.encoding import printable, sha256
from comity.trust.errors import Malformed, PolicyNotMet, Unavailable
from comity.trust.statements import Advisory
from comity_cli.commands.storage_initializer import command
from comity_cli.main import main
from comity_client.client import Client
from support.fakes import FakeFederation, Release, release
from support.run_command import printed, refused, run, said

FILES = {"config.json": b"{}", "weights/README.md": b"# Tiny\n"}
NAME = "comity://swiss-ai/tiny@v1"


@pytest.fixture(name="federation", scope="module")
def _federation() -> Iterator[FakeFederation]:
    with FakeFederation(("CH", "SG", "ES")).running() as running:
        yield running


@dataclass
class Site:
    """A federation with one model, and a folder for the files of a pod."""

    federation: FakeFederation
    model: Release
    folder: Path

    @property
    def volume(self) -> Path:
        return self.folder / "models"

    def policy(self, text: str = "[publishers]\n", *, bound: bool = True) -> tuple[object, ...]:
        """The options: a policy that pins the federation, whose charter binds the namespace to its publisher or not."""
        (self.folder / "pinned.json").write_bytes(self.federation.file() if bound else self.federation.file({}))
        (self.folder / "policy.toml").write_text(f'[[pin]]\nfile = "pinned.json"\n{text}')
        return "--policy", self.folder / "policy.toml"

    def placed(self) -> dict[str, bytes]:
        """The files in the volume, without the evidence."""
        found = [path for path in self.volume.rglob("*") if path.is_file() and ".comity" not in path.parts]
        return {path.relative_to(self.volume).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(name="site")
def _site(federation: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    model = release(tmp_path / "source", FILES, by=federation.publisher)
    if not federation.nodes[0].log.lines[2:]:
        federation.publish(model)
    return Site(federation, model, tmp_path)


def test_a_model_is_in_its_volume_and_nothing_else_was_written(site: Site) -> None:
    document = printed(command, *site.policy(), NAME, site.volume)
    (model,) = document["models"]
    assert (model["title"], model["exit_status"]) == ("swiss-ai/tiny@v1", 0)
    assert site.placed() == FILES
    assert not (site.folder / "home").exists(), "no pin, no memory of a user"
    assert "swiss-ai/tiny@v1: 2 files" in said(command, *site.policy(), NAME, site.volume), "a second start"


def test_a_start_without_nodes_warns_of_what_the_evidence_in_the_volume_proves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    with FakeFederation(("CH", "SG", "ES")).running() as federation:
        site = Site(federation, release(tmp_path / "source", FILES, by=federation.publisher), tmp_path)
        federation.publish(site.model)
        seat = federation.nodes[0].node.seat
        malware = Advisory(seat.inception.author, site.model.published.artifact, "malware", "high", "it phones home")
        federation.nodes[0].log.append(sign_content(malware, seat.signer).line)
        warning = f"! malware (high) by identity {seat.id[:12]}: it phones home"
        words = (*site.policy(), NAME, site.volume)
        assert warning in said(command, *words)
        for fake in federation.nodes:
            federation.kill(fake.node.record.name)
        again = said(command, *words)
        assert "no node answered" in again and warning in again


def test_each_pair_has_its_own_folder(site: Site) -> None:
    digest = f"comity://sha256:{site.model.published.artifact}"
    pairs = (NAME, site.folder / "a", digest, site.folder / "b")
    found = printed(command, *site.policy(), *pairs)["models"]
    assert [Path(each["folder"]).name for each in found] == ["a", "b"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((NAME,), "needs a PATH"),
        ((NAME, __file__), "is not a folder"),
        ((NAME, "/m", NAME), "needs a PATH"),
        ((NAME, "/m", NAME, "/m/adapter"), "two models need two folders"),
        ((NAME, "/m/../n/a", NAME, "/n"), "two models need two folders"),
        ((NAME, "/m", NAME, "/m"), "two models need two folders"),
    ],
)
def test_pairs_that_are_none_are_a_usage_error(site: Site, words: tuple[str, ...], why: str) -> None:
    result = run(command, *site.policy(), *words)
    assert result.exit_code == 2 and why in str(result.exception)


def test_a_policy_without_a_federation_is_a_usage_error(site: Site) -> None:
    (site.folder / "empty.toml").write_text("[publishers]\n")
    result = run(command, "--policy", site.folder / "empty.toml", f"comity://sha256:{'0' * 64}", site.volume)
    assert result.exit_code == 2 and "pins no federation" in str(result.exception)


def test_an_abbreviated_digest_is_no_reference_of_a_pod(site: Site) -> None:
    error = refused(command, *site.policy(), f"comity://sha256:{site.model.published.artifact[:12]}", site.volume)
    assert isinstance(error, Malformed) and not site.volume.exists()


def test_a_name_that_only_its_claimant_says_is_its_own_is_refused(site: Site) -> None:
    options = site.policy(bound=False)
    error = refused(command, *options, NAME, site.volume)
    assert (type(error), error.code) == (PolicyNotMet, "NAME-NOT-BOUND") and not site.volume.exists()
    digest = f"comity://sha256:{site.model.published.artifact}"
    assert run(command, *options, digest, site.folder / "other").exit_code == 0
    accepted = site.policy(f'[publishers]\naccept = ["{site.federation.publisher.id}"]\n', bound=False)
    assert run(command, *accepted, NAME, site.volume).exit_code == 0


def test_a_policy_that_is_not_met_leaves_no_file(site: Site) -> None:
    options = site.policy('[licences]\naccept = ["mit"]\n[rows]\nrequire = ["licence"]\n')
    error = refused(command, *options, NAME, site.volume)
    assert error.exit_status == 4 and "licence" in error.why
    assert site.placed() == {}


@contextmanager
def false_bytes(federation: FakeFederation, path: str) -> Iterator[None]:
    """In the block, every node gives other bytes for this file."""
    false = sha256(FILES[path])
    for fake in federation.nodes:
        fake.lies_about.add(false)
    try:
        yield
    finally:
        for fake in federation.nodes:
            fake.lies_about.discard(false)


def test_false_bytes_at_every_node_leave_no_file_and_the_next_start_goes_on(site: Site) -> None:
    with false_bytes(site.federation, "config.json"):
        error = refused(command, *site.policy(), NAME, site.volume)
        assert error.exit_status == 3 and "wrong bytes" in error.why
        assert site.placed() == {}
    with false_bytes(site.federation, "weights/README.md"):  # which is verified and here: nobody is asked for it
        assert run(command, *site.policy(), NAME, site.volume).exit_code == 0
    assert site.placed() == FILES


def test_a_volume_may_have_an_empty_folder_but_no_file_of_something_else(site: Site) -> None:
    (site.volume / "lost+found").mkdir(parents=True)
    assert run(command, *site.policy(), NAME, site.volume).exit_code == 0
    (site.volume / "other").write_bytes(b"")
    assert refused(command, *site.policy(), NAME, site.volume).code == "FOLDER-NOT-EMPTY"


@pytest.mark.parametrize("said", ["node-xx.example: wrong bytes; " * 200, "\x1b[1m" * 2_000, "漢" * 2_000])
def test_the_reason_fits_into_the_message_of_a_pod_and_is_whole_in_the_log(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str
) -> None:
    """A pod shows the last 2,048 bytes of the log."""

    def pull(*_: object, **__: object) -> None:
        raise Unavailable("no source delivers it", why=said, hint=said)

    monkeypatch.setattr(Client, "pull", pull)
    with pytest.raises(SystemExit) as ended:
        main(["storage-initializer", *map(str, site.policy()), NAME, str(site.volume)])
    log = capsys.readouterr().err
    message = log.encode()[-2_048:].decode(errors="ignore")
    assert ended.value.code == 5 and message.splitlines()[-3].startswith("error: no source delivers it")
    assert printable(said).strip() in log


def test_the_end_of_the_pod_interrupts_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Client, "pull", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(click.Abort):
        command.main([*map(str, site.policy()), NAME, str(site.volume)], standalone_mode=False)
    assert signal.getsignal(signal.SIGTERM) is before
