"""Attestations on disk: exported for other tools, carried beside an artifact, and judged by pinned keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from comity.addons.attestations import files
from comity.addons.attestations.envelopes import AttestationKey, ForeignEnvelope
from comity.addons.attestations.files import judge_folder, pinned_keys
from comity.addons.attestations.predicates import ForeignStatement, SlsaProvenance, TestResult, VerificationSummary
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.statements import Parent
from comity_cli.main import command
from comity_client.client import Client
from comity_client.home import Home
from comity_client.publishers import Publisher
from support.attesting import SUMMARY, bundle, encoded, envelope, payload
from support.case import case
from support.foreign_keys import private_key, public_pem
from support.sigstore_site import Site
from support.world import identity

SWISS_AI = identity("Swiss AI", "CH")
GOOD = case(lineage=(Parent("quantized", "inst/base@v1", Digest("e" * 64)),))
LABEL = "Security desk"


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    made = Client(Home.default())
    made.new_publisher(LABEL, "ES", "node-es.example/log")
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return GOOD.write(tmp_path / "copy")


def comity(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, ["attestation", *map(str, arguments)], standalone_mode=False)


def code(ran: Result) -> str:
    assert isinstance(ran.exception, ComityError), ran.output
    return ran.exception.code


def export(folder: Path, kind: str, *more: str | Path) -> tuple[Result, Path]:
    out = folder.parent / f"{kind}.json"
    policy = () if kind == "slsa" else ("--policy", folder.parent / "policy.toml")
    return comity("export", folder, "--as", kind, "--out", out, *policy, *more), out


@pytest.mark.parametrize("key", ["ed25519", "p256"])
@pytest.mark.parametrize(("kind", "predicate"), [("vsa", VerificationSummary), ("test-result", TestResult)])
def test_an_export_is_verified_by_the_key_beside_it(
    api: Client, folder: Path, key: str, kind: str, predicate: type
) -> None:
    ran, out = export(folder, kind, "--sign-as", LABEL, "--key", key)
    assert ran.exit_code == 0, ran.output
    pinned = AttestationKey.parse(out.with_name(f"{out.name}.pub").read_bytes())
    read = ForeignEnvelope.parse(out.read_bytes())
    assert pinned.verifies(read.signatures[0].signature, read.signed) and read.names(pinned)
    assert isinstance(ForeignStatement.parse(read.payload).predicate, predicate)


def test_a_summary_is_dated_by_the_policy_and_names_the_verifiers_identity(api: Client, folder: Path) -> None:
    _, out = export(folder, "vsa", "--sign-as", LABEL)
    said = ForeignStatement.parse(ForeignEnvelope.parse(out.read_bytes()).payload).predicate
    assert isinstance(said, VerificationSummary) and said.passed
    assert (said.time, said.verifier) == ("2026-11-24T00:00:00Z", f"urn:comity:identity:{api.publisher(LABEL).id}")


def test_a_refusal_is_exported_with_the_status_of_verify(api: Client, folder: Path) -> None:
    (folder / "LICENSE").write_bytes(b"other")
    ran, out = export(folder, "vsa", "--sign-as", LABEL)
    said = ForeignStatement.parse(ForeignEnvelope.parse(out.read_bytes()).payload).predicate
    assert isinstance(said, VerificationSummary) and (said.passed, said.levels) == (False, ("FAILED",))
    assert ran.return_value == 3


def test_only_the_publisher_exports_provenance(api: Client, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, _ = export(folder, "slsa", "--sign-as", LABEL)
    assert code(ran) == "NOT-ITS-PUBLISHER"
    publisher = api.publisher(LABEL)
    other = case(publisher=SWISS_AI, lineage=(Parent("quantized", "inst/base@v1", Digest("e" * 64)),))
    made = other.write(folder.parent / "own")
    monkeypatch.setattr(Publisher, "id", property(lambda _: SWISS_AI.id))
    exported = files.export_lineage(made, publisher, "ed25519")
    said = ForeignStatement.parse(ForeignEnvelope.parse(exported.envelope).payload)
    assert isinstance(said.predicate, SlsaProvenance)
    assert [each.sha256 for each in said.predicate.dependencies] == ["e" * 64]
    assert said.subjects[0].sha256 == other.artifact and len(said.subjects) == 1 + len(other.files)


def test_a_carried_attestation_is_judged_by_pinned_keys(api: Client, folder: Path, tmp_path: Path) -> None:
    key = private_key("p256")
    file, pem = tmp_path / "their.json", tmp_path / "their.pub"
    file.write_bytes(encoded(envelope(key, payload(SUMMARY, GOOD.artifact))))
    pem.write_bytes(public_pem(key))
    assert comity("add", file, folder).exit_code == 0
    assert "present, not verified: no pinned key" in comity("ls", folder).output
    assert comity("pin", pem, "--name", "builder", "--yes").exit_code == 0
    found = json.loads(comity("ls", folder, "--json").output)["attestations"]
    assert [(each["state"], each["about"]) for each in found] == [("verified", "this artifact")]
    assert "builder" in found[0]["signer"] and comity("keys").output.count("builder") == 1
    assert api.verify(folder, policy=api.policy(folder.parent / "policy.toml")).accepted
    ran = CliRunner().invoke(command, ["verify", str(folder), "--policy", str(folder.parent / "policy.toml")])
    assert "1 attestation of other tools beside it: no row depends on them" in ran.output
    assert comity("unpin", "builder").exit_code == 0
    assert code(comity("unpin", "builder")) == "ATTESTATION-NAME"


def test_side_evidence_changes_no_byte_of_a_report(api: Client, folder: Path, tmp_path: Path) -> None:
    policy = api.policy(folder.parent / "policy.toml")
    before = api.verify(folder, policy=policy)
    for number in range(3):
        file = tmp_path / f"{number}.json"
        file.write_bytes(encoded(bundle(private_key(), payload(SUMMARY, GOOD.artifact))))
        comity("add", file, folder)
    (folder / ".comity" / "claims.jsonl").write_bytes(json.dumps(bundle(private_key(), b"{}")).encode() + b"\n")
    assert api.verify(folder, policy=policy) == before
    assert len(judge_folder(folder, ()).verdicts) == 4


def test_the_bundles_of_a_claims_file_as_openssf_proposes_are_judged(api: Client, folder: Path) -> None:
    key = private_key("p256")
    lines = [json.dumps(bundle(key, payload(SUMMARY, digest))).encode() for digest in (GOOD.artifact, "0" * 64)]
    (folder / "claims.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    found = judge_folder(folder, (AttestationKey.parse(public_pem(key)),))
    assert [(each.state, each.about) for each in found.verdicts] == [("verified", "this artifact"), ("verified", "")]


def test_an_unreadable_attestation_or_one_about_other_bytes_is_not_carried(
    api: Client, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "x.json"
    for data in (encoded(envelope(private_key(), payload(SUMMARY, "0" * 64))), b"{}", encoded({"payload": 1})):
        file.write_bytes(data)
        assert code(comity("add", file, folder)) == "ATTESTATION"
    assert not (folder / ".comity" / "attestations").exists()
    file.write_bytes(encoded(envelope(private_key(), payload(SUMMARY, GOOD.artifact))))
    assert code(comity("add", file, tmp_path)) == "NO-PACK"


def test_an_attestation_with_a_wrong_signature_for_its_key_gives_status_3(
    api: Client, folder: Path, tmp_path: Path
) -> None:
    pinned, pem = private_key(), tmp_path / "key.pub"
    pem.write_bytes(public_pem(pinned))
    pinned_keys(api).pin(pem, "lab")
    hint = AttestationKey.parse(public_pem(pinned)).id
    file = tmp_path / "x.json"
    file.write_bytes(encoded(envelope(private_key(), payload(SUMMARY, GOOD.artifact), hint)))
    comity("add", file, folder)
    ran = comity("ls", folder)
    assert ran.return_value == 3 and "its signature is not of that key" in ran.output


def test_a_name_or_a_key_is_pinned_once(api: Client, tmp_path: Path) -> None:
    store, files = pinned_keys(api), [tmp_path / "a.pub", tmp_path / "b.pub"]
    for file in files:
        file.write_bytes(public_pem(private_key()))
    assert store.pin(files[0], "lab") == store.pin(files[0], "lab")
    for file, name in ((files[1], "lab"), (files[0], "other"), (files[1], "../x"), (files[1], "")):
        with pytest.raises(ComityError) as refused:
            store.pin(file, name)
        assert refused.value.code == "ATTESTATION-NAME"


def test_no_number_of_attestations_is_judged_without_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = folder / ".comity" / "attestations"
    target.mkdir()
    for number in range(5):
        (target / f"{number}.json").write_bytes(b"{%d" % number)
    (target / "link.json").symlink_to("nowhere")
    monkeypatch.setattr(files, "MAX_ATTESTATIONS", 3)
    found = judge_folder(folder, ())
    assert (len(found.verdicts), found.left_out) == (3, 2)
    assert {each.state for each in found.verdicts} == {"unreadable"}


def test_keyless_bundles_of_any_statement_are_verified_offline(folder: Path) -> None:
    """The real Sigstore package with a Sigstore of the test's own."""
    site = Site()
    (folder / "claims.jsonl").write_bytes(b" ".join(site.bundle(files=GOOD.files).split(b"\n")) + b"\n")
    named = files.keyless_signer("release@lab.example", "https://accounts.example", site.trusted_root)
    others = files.keyless_signer("other@lab.example", "https://accounts.example", site.trusted_root)
    about = "the hashes of its files, without their names (OpenSSF root)"
    for keyless, state in ((named, "verified"), (others, "claimed"), (None, "claimed")):
        (verdict,) = judge_folder(folder, (), keyless).verdicts
        assert (verdict.state, verdict.about) == (state, about)
