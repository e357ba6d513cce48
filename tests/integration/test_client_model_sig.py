"""Artifacts published with a `model.sig`, and how others verify them: by the public API and the command line."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from comity.content.secrets import write_keys
from comity.trust.encoding import sha256
from comity.trust.errors import Conflict, Malformed, Unavailable
from comity.trust.evidence import MODEL_SIG
from comity.trust.keys import PrivateKey
from comity.trust.model_signing.bundle import ModelKey
from comity.trust.model_signing.judging import ModelSigningRule
from comity.trust.policy import Policy
from comity_cli.main import command
from comity_client.client import Client
from comity_client.publish import PublishReceipt
from comity_client.publishers import Publisher
from comity_client.pull.model_sig import own_key, public_file, read_model_key
from support.fakes import FakeFederation
from support.weights import as_tensor

FILES = {
    "README.md": b"# Tiny\n",
    "config.json": b"{}\n",
    "empty.txt": b"",
    "weights.bin": as_tensor(os.urandom(100_000)),
}


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    with FakeFederation().running(tmp_path_factory.mktemp("s")) as running:
        yield running


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for path, data in FILES.items():
        (tmp_path / "source").mkdir(exist_ok=True)
        (tmp_path / "source" / path).write_bytes(data)
    return tmp_path / "source"


def publish(client: Client, source: Path, publisher: Publisher, *, version: str = "v1") -> PublishReceipt:
    return client.publish(
        source,
        f"lab-{publisher.id[:8]}/tiny@{version}",
        publisher=publisher,
        licence="MIT",
        model_key=own_key(publisher),
    )


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words], standalone_mode=False)


def believing(client: Client, publisher: Publisher, *, require: bool = False) -> Policy:
    key = ModelKey.parse((publisher.folder / "model-sig.pub").read_bytes())
    return replace(client.policy(), model_signing=ModelSigningRule(keys=(key,), require=require))


@pytest.mark.parametrize("by_index", [False, True], ids=["nodes", "index"])
def test_files_that_are_identified_are_judged_with_the_model_sig_among_them(
    tmp_path: Path, client: Client, source: Path, publisher: Publisher, by_index: bool
) -> None:
    receipt = publish(client, source, publisher)
    client.pull(receipt.title, to=tmp_path / "model")
    client.fetch_indexes(["node-ch.example"])  # the home node, where the manifest was sent
    policy = believing(client, publisher, require=True)
    (known,) = client.identify([tmp_path / "model"], policy=policy, by_index=by_index).artifacts.values()
    assert known.problem == "" and known.verdict is not None and known.verdict.accepted
    assert "model.sig by key" in known.verdict.row("signatures").summary
    (tmp_path / "model" / MODEL_SIG).unlink()
    (known,) = client.identify([tmp_path / "model"], policy=policy, by_index=by_index).artifacts.values()
    assert "the policy requires a model.sig; there is none" in known.problem


def test_a_publication_has_its_model_sig_among_its_files(
    tmp_path: Path, client: Client, source: Path, publisher: Publisher
) -> None:
    receipt = publish(client, source, publisher)
    pulled = client.pull(receipt.title, to=tmp_path / "model")
    assert receipt.files == pulled.files == len(FILES) + 1
    assert (tmp_path / "model" / MODEL_SIG).read_bytes() == (source / MODEL_SIG).read_bytes()
    row = client.verify(tmp_path / "model", policy=believing(client, publisher, require=True)).row("signatures")
    assert row.state == "pass"
    assert row.summary.endswith(f"; model.sig by key {str(receipt.model_key)[:16]} (ecdsa-p256), 4 files")


def test_a_pull_can_require_a_model_sig(tmp_path: Path, client: Client, source: Path, publisher: Publisher) -> None:
    receipt = publish(client, source, publisher)
    stranger = ModelSigningRule(keys=(ModelKey.of_raw(PrivateKey.generate("ecdsa-p256").public),), require=True)
    with pytest.raises(Unavailable, match=r"model\.sig by an unlisted key"):
        client.pull(receipt.title, to=tmp_path / "model", policy=replace(client.policy(), model_signing=stranger))
    assert not (tmp_path / "model" / MODEL_SIG).exists()
    policy = believing(client, publisher, require=True)
    pulled = client.pull(receipt.title, to=tmp_path / "model", policy=policy)
    assert "model.sig by key" in pulled.verdict.row("signatures").summary
    again = client.pull(receipt.title, to=tmp_path / "model", policy=policy)
    assert "model.sig by key" in again.verdict.row("signatures").summary


def test_an_artifact_without_a_model_sig_is_refused_before_a_byte_is_fetched(
    tmp_path: Path, client: Client, source: Path, publisher: Publisher
) -> None:
    own_key(publisher)
    receipt = client.publish(source, f"lab-{publisher.id[:8]}/plain@v1", publisher=publisher, licence="MIT")
    with pytest.raises(Unavailable, match=r"the policy requires a model\.sig; there is none"):
        client.pull(receipt.title, to=tmp_path / "model", policy=believing(client, publisher, require=True))
    assert not (tmp_path / "model").exists()


def test_publishing_again_signs_nothing_new_and_logs_nothing_twice(
    client: Client, source: Path, publisher: Publisher
) -> None:
    first, again = publish(client, source, publisher), publish(client, source, publisher)
    assert (first.artifact, first.logged[0].index) == (again.artifact, again.logged[0].index)


def test_the_publishers_older_model_sig_is_replaced_and_anothers_is_kept(
    client: Client, source: Path, publisher: Publisher
) -> None:
    before = publish(client, source, publisher).artifact
    (source / "config.json").write_bytes(b'{"changed":1}\n')
    assert publish(client, source, publisher, version="v2").artifact != before
    (source / MODEL_SIG).write_bytes(theirs := b"somebody else's")
    with pytest.raises(Conflict) as caught:
        publish(client, source, publisher, version="v3")
    assert caught.value.code == "MODEL-SIG-EXISTS"
    assert (source / MODEL_SIG).read_bytes() == theirs


def test_a_signing_key_is_private_made_once_and_never_shown(client: Client, source: Path, publisher: Publisher) -> None:
    assert public_file(publisher) is None
    assert "no key yet" in run("publisher", "show", "Lab One").stdout
    key = own_key(publisher)
    assert own_key(publisher) == key or own_key(publisher).public == key.public
    assert stat.S_IMODE((publisher.folder / "model-sig.pem").stat().st_mode) == 0o600
    (publisher.folder / "model-sig.pub").unlink()
    shown = json.loads(CliRunner().invoke(command, ["--json", "publisher", "show", "Lab One"]).stdout)
    public = ModelKey.of_raw(key.public)
    assert shown["model_sig"] == {
        "file": str(publisher.folder / "model-sig.pub"),
        "pem": public.pem.decode(),
        "hint": sha256(public.pem),
    }
    assert "PRIVATE" not in run("publisher", "show", "Lab One").stdout


def test_the_command_line_writes_a_model_sig_and_names_its_key(
    tmp_path: Path, client: Client, source: Path, publisher: Publisher
) -> None:
    (source / ".gitattributes").write_text("*.bin filter=lfs\n")
    words = ("publish", source, "--as", f"lab-{publisher.id[:8]}/cli@v1", "--licence", "mit", "--model-sig")
    result = run(*words)
    assert result.exception is None
    hint = ModelKey.of_raw(own_key(publisher).public).hint
    assert f"model.sig    by key {hint[:16]}: comity publisher show 'Lab One'" in result.output
    assert "model.sig does not cover, as with other tools of the format: .gitattributes" in result.output


def test_a_given_key_signs(tmp_path: Path, client: Client, source: Path, publisher: Publisher) -> None:
    write_keys(tmp_path / "key.pem", [PrivateKey.generate("ecdsa-p384")])
    words = ("publish", source, "--as", f"lab-{publisher.id[:8]}/own@v1", "--licence", "mit")
    assert run(*words, "--model-sig-key", tmp_path / "key.pem").exception is None
    assert public_file(publisher) is None
    (tmp_path / "key.pem").chmod(0o644)
    assert "KEY-PERMISSIONS" in str(getattr(run(*words, "--model-sig-key", tmp_path / "key.pem").exception, "code", ""))


@pytest.mark.parametrize("algorithms", [("ed25519",), ("ed25519", "ecdsa-p256")])
def test_keys_that_sign_no_models_are_refused(tmp_path: Path, algorithms: tuple[str, ...]) -> None:
    write_keys(tmp_path / "key.pem", [PrivateKey.generate(algorithm) for algorithm in algorithms])
    with pytest.raises(Malformed, match="not a model-signing key"):
        read_model_key(tmp_path / "key.pem")
