"""Images that a publisher signs with its artifacts, or later: by the command line, at nodes that keep the statement."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from comity.rules.image_signature import ImageSigned, classical_half
from comity.rules.image_summary import ImageVerified
from comity.rules.model_pack import pack_image
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Refused
from comity.trust.evidence import Verdict
from comity.trust.report import VerdictReport
from comity.trust.statement import parse_entry
from comity_cli.main import command
from comity_client.client import Client
from comity_client.evidence.proofs import fetch_object
from comity_client.publish import image_digest, image_key
from comity_client.publishers import Publisher
from support.fakes import FakeFederation


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    with FakeFederation().running(tmp_path_factory.mktemp("s")) as running:
        yield running


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.json").write_text("{}\n")
    return tmp_path / "source"


def run(*words: object) -> dict[str, Any]:
    result = CliRunner().invoke(command, ["--json", *(str(word) for word in words)])
    assert result.exception is None or result.exit_code == 0, (result.output, result.exception)
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def refused(*words: object) -> str:
    result = CliRunner().invoke(command, [str(word) for word in words])
    assert isinstance(result.exception, ComityError), result.output
    return result.exception.code


def test_a_publication_can_sign_its_image_and_so_can_its_publisher_later(
    client: Client, source: Path, publisher: Publisher
) -> None:
    name = f"lab-{publisher.id[:8]}/tiny"
    words = ("publish", source, "--licence", "mit", "--as")
    unsigned = run(*words, f"{name}@v1")
    assert unsigned["image"] is None
    (source / "more.txt").write_text("more\n")
    receipt = run(*words, f"{name}@v2", "--sign-oci")
    for each in (receipt, run("publisher", "sign-oci", f"{name}@v1")):
        image, key = each["image"], image_key(publisher)
        assert (image["algorithm"], image["key"]) == (key.alg, key.id)
        assert image["logged"], "where it was logged, proven by a checkpoint"
    manifest = Manifest.parse(client._user.run(lambda session: fetch_object(session, receipt["artifact"])))
    found = pack_image(manifest)
    assert found is not None and receipt["image"]["digest"] == found.manifest.digest == image_digest(manifest, name)


def test_another_publisher_signs_no_image_of_it(client: Client, source: Path, publisher: Publisher) -> None:
    name = f"lab-{publisher.id[:8]}/tiny@v1"
    run("publish", source, "--licence", "mit", "--as", name, "--publisher", "Lab One")
    client.new_publisher("Lab Two", "SG", "node-ch.example/log")
    assert refused("publisher", "sign-oci", name, "--publisher", "Lab Two") == "NOT-PUBLISHER"


def test_the_key_of_an_own_identity_and_of_the_publisher_of_an_artifact_is_the_same(
    client: Client, source: Path, publisher: Publisher, tmp_path: Path
) -> None:
    name = f"lab-{publisher.id[:8]}/tiny@v1"
    run("publish", source, "--licence", "mit", "--as", name)
    own, theirs = run("publisher", "key", "Lab One"), run("publisher", "key", name)
    assert own["pem"] == theirs["pem"] == image_key(publisher).to_pem().decode()
    assert (own["basis"], theirs["publisher"]) == (None, publisher.id)
    assert run("publisher", "key", name, "--out", tmp_path / "pub.pem")["key"] == own["key"]
    assert (tmp_path / "pub.pem").read_text() == own["pem"]
    assert "PRIVATE" not in own["pem"]


def test_the_logged_statement_verifies_by_the_key(
    client: Client, federation: FakeFederation, source: Path, publisher: Publisher
) -> None:
    receipt = run("publish", source, "--licence", "mit", "--as", f"lab-{publisher.id[:8]}/tiny@v1", "--sign-oci")
    (logged,) = receipt["image"]["logged"]
    lines = {sha256(line): line for node in federation.nodes for line in node.log.lines}
    ImageSigned.parse(parse_entry(lines[logged["line"]]).statement).verify(classical_half(publisher.signer().public))


def test_a_verifier_signs_a_summary_about_the_image_of_what_it_accepted(
    client: Client, federation: FakeFederation, source: Path, publisher: Publisher
) -> None:
    name = f"lab-{publisher.id[:8]}/tiny@v1"
    artifact = Digest(run("publish", source, "--licence", "mit", "--as", name)["artifact"])
    verdict = Verdict(artifact, name, rows=(), exit_status=0, policy=sha256(b"policy"), required=(), inputs=())
    report = VerdictReport.of(verdict, "1.0")
    receipt = client.log_report(report, client.sign_report(report, publisher), publisher, sign_image=True)
    assert receipt.image is not None
    lines = {sha256(line): line for node in federation.nodes for line in node.log.lines}
    said = ImageVerified.parse(parse_entry(lines[receipt.image.logged[0].line]).statement)
    said.verify(classical_half(publisher.signer().public))
    assert (said.artifact, said.image, said.by) == (artifact, receipt.image.digest, publisher.id)
    refusal = VerdictReport.of(replace(verdict, exit_status=4), "1.0")
    with pytest.raises(Refused, match="a refusal is not signed"):
        client.log_report(refusal, client.sign_report(refusal, publisher), publisher, sign_image=True)
