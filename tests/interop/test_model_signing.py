"""OpenSSF model signing with its reference tool, in both directions; and the table of the findings of both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.trust.errors import Untrusted
from comity.trust.evidence import MODEL_SIG, PACK
from comity.trust.keys import PrivateKey
from comity.trust.model_signing.bundle import ModelKey
from comity.trust.model_signing.judging import KeylessIdentity
from comity_client.pull.model_sig import verify_keyless
from support import model_sig
from support.client_repository import ODD
from support.model_sig import FILES, KEY, signed
from support.model_sig_table import DOCUMENT, Said, compare, document, reference
from support.model_sig_tampers import BY_KEY, TAMPERS, Tamper, Untouched, job
from support.short_form import cases
from support.sigstore_site import Site

pytestmark = pytest.mark.slow

NAMED: dict[str, bytes] = {
    **FILES,
    **{
        path: path.encode()
        for path in (*ODD, "a-b", "a.b", "a/b", ".gitattributes", "deep/.gitattributes", ".github/workflows/ci.yml")
    },
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Said]]:
    yield compare(tmp_path_factory.mktemp("table"))


def verified_by_reference(folder: Path, key: PrivateKey) -> str:
    (folder.parent / "lab.pub").write_bytes(ModelKey.of_raw(key.public).pem)
    ((worked, said),) = reference([job(BY_KEY.verify, folder.parent, folder)])
    return "" if worked else said


@pytest.mark.parametrize("algorithm", cases(["ecdsa-p256", "ecdsa-p384"], ["ecdsa-p384"]))
def test_the_reference_tool_verifies_signatures_of_comity(tmp_path: Path, algorithm: str) -> None:
    key = PrivateKey.generate(algorithm)
    folder = model_sig.folder(tmp_path / "m", NAMED, signed(NAMED, key))
    assert verified_by_reference(folder, key) == ""
    (folder / "a-b").write_bytes(b"other")
    assert "Hash mismatch for" in verified_by_reference(folder, key)


def test_the_reference_tool_verifies_a_pulled_folder_with_its_evidence_pack(tmp_path: Path) -> None:
    folder = model_sig.folder(tmp_path / "m")
    (folder / PACK / "proofs").mkdir(parents=True)
    (folder / PACK / "proofs" / "some.tlog-proof").write_bytes(b"proof")
    assert verified_by_reference(folder, KEY) == ""


def test_the_reference_api_verifies_it_too_without_a_list_of_ignored_files(tmp_path: Path) -> None:
    folder = model_sig.folder(tmp_path / "m", NAMED)
    (tmp_path / "lab.pub").write_bytes(model_sig.PUBLIC.pem)
    paths = (folder, folder / MODEL_SIG, tmp_path / "lab.pub")
    ((worked, said),) = reference([["api", "verify", "as signed", "", *map(str, paths)]])
    assert worked, said


def test_both_accept_a_keyless_signature_under_one_trusted_root_for_the_same_persons(tmp_path: Path) -> None:
    site, person = Site(), KeylessIdentity("release@lab.example", "https://accounts.example")
    folder = model_sig.folder(tmp_path / "m", signature=site.bundle(person.identity, person.issuer))
    (tmp_path / "trust.json").write_bytes(client_trust(site))
    trust = ("--trust_config", "{}/trust.json", "--identity_provider", person.issuer)
    words = ("verify", "sigstore", *trust, "--identity")
    jobs = [job((*words, who), tmp_path, folder) for who in (person.identity, "other@lab.example")]
    (theirs, said), (others, _) = reference(jobs)
    assert (theirs, others) == (True, False), said
    signature = (folder / MODEL_SIG).read_bytes()
    assert verify_keyless(signature, (person,), site.trusted_root) == person
    with pytest.raises(Untrusted):
        verify_keyless(signature, (KeylessIdentity("other@lab.example", person.issuer),), site.trusted_root)


def client_trust(site: Site) -> bytes:
    """The trusted root in the reference tool's form: with signing services, which are never asked."""
    services = {"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json"}
    document = {
        "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
        "trustedRoot": json.loads(site.trusted_root),
        "signingConfig": services,
    }
    return json.dumps(document).encode()


def test_comity_finds_every_tampering_that_the_format_records(found: list[Said]) -> None:
    for said in found:
        if isinstance(said.what, Untouched):
            assert (said.comity == 0) == (not said.what.finding), said
        else:
            assert (said.comity != 0) == bool(said.what.finding), said
        assert said.what.finding in said.comity_said, said


def test_comity_finds_every_tampering_that_the_reference_tool_finds(found: list[Said]) -> None:
    assert len([said for said in found if isinstance(said.what, Tamper)]) == len(TAMPERS)
    assert [said for said in found if isinstance(said.what, Tamper) and not said.reference and not said.comity] == []


def test_comity_verifies_signatures_of_the_reference_tool(found: list[Said]) -> None:
    accepted = [said.what.signed for said in found if isinstance(said.what, Untouched) and said.comity == 0]
    assert "whole files, SHA-256, a key" in accepted
    assert "whole files, SHA-256, a certificate" in accepted


def test_the_page_shows_the_findings_of_both_tools(found: list[Said]) -> None:
    page = DOCUMENT.read_text("utf-8")
    assert document(page, found) == page, "run: PYTHONPATH=tests python -m support.model_sig_table"
