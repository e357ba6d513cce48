"""Keyless `model.sig` files, by the real Sigstore package and a private Sigstore of the test; no network, no clock."""

from __future__ import annotations

import importlib.util
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from comity.trust.encoding import b64decode, b64encode
from comity.trust.errors import Unavailable, Untrusted
from comity.trust.evidence import MODEL_SIG
from comity.trust.model_signing.judging import KeylessIdentity, ModelSigningRule
from comity.trust.policy import Policy
from comity.trust.verify import verify
from comity.verifier import collect_evidence, main
from comity_client.client import Client
from comity_client.home import Home
from comity_client.pull.model_sig import keyless_for, verify_keyless
from support.model_sig import FILES, changed, flipped, folder
from support.sigstore_site import Site

LAB = KeylessIdentity("release@lab.example", "https://accounts.example")
SITE, RIVAL = Site(), Site()
SIGNED = SITE.bundle()
RULE = ModelSigningRule(identities=(LAB,), sigstore_root=SITE.trusted_root)
POLICY = Policy(model_signing=RULE, require=("artifact", "bytes", "signatures"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_the_identity_of_a_keyless_signature_is_returned(tmp_path: Path) -> None:
    assert verify_keyless(SIGNED, (KeylessIdentity("other@lab.example", LAB.issuer), LAB), SITE.trusted_root) == LAB


@pytest.mark.parametrize(
    "identity",
    [KeylessIdentity("other@lab.example", LAB.issuer), KeylessIdentity(LAB.identity, "https://other.example")],
)
def test_another_person_or_another_issuer_does_not_match_the_policy(identity: KeylessIdentity) -> None:
    with pytest.raises(Untrusted, match="the signer is not listed by the policy"):
        verify_keyless(SIGNED, (identity,), SITE.trusted_root)


def entry(change: Callable[[Any], None]) -> bytes:
    return changed(SIGNED, lambda document: change(document["verificationMaterial"]["tlogEntries"][0]))


def other_payload(document: Any) -> None:
    envelope = document["dsseEnvelope"]
    envelope["payload"] = b64encode(b64decode(envelope["payload"]).replace(b'"tiny"', b'"huge"'))


@pytest.mark.parametrize(
    "data",
    [
        RIVAL.bundle(),
        flipped(SIGNED),
        changed(SIGNED, other_payload),
        entry(lambda e: e.update(integratedTime=str(int(e["integratedTime"]) + 86_400))),
        entry(lambda e: e["inclusionProof"].update(hashes=e["inclusionProof"]["hashes"][::-1])),
        entry(lambda e: e["inclusionProof"].pop("checkpoint")),
        entry(lambda e: e.update(canonicalizedBody=b64encode(b"{}"))),
        changed(SIGNED, lambda d: d["verificationMaterial"].update(tlogEntries=[])),
        changed(SIGNED, lambda d: d["verificationMaterial"]["certificate"].update(rawBytes=b64encode(b"junk"))),
        json.dumps({**json.loads(SIGNED), "dsseEnvelope": json.loads(SITE.bundle())["dsseEnvelope"]}).encode(),
    ],
    ids=[
        *("another root", "signature", "payload", "later than the certificate", "inclusion", "no checkpoint", "body"),
        *("not logged", "no certificate", "another's envelope"),
    ],
)
def test_a_bundle_that_does_not_hold_is_refused(data: bytes) -> None:
    with pytest.raises(Untrusted):
        verify_keyless(data, (LAB,), SITE.trusted_root)


@pytest.mark.parametrize("root", [b"", b"{}", b"junk"])
def test_an_invalid_trusted_root_gives_no_result(root: bytes) -> None:
    with pytest.raises(Unavailable, match="the Sigstore trusted root cannot be used"):
        verify_keyless(SIGNED, (LAB,), root)


def test_a_folder_is_verified_by_the_identity_of_its_signer(tmp_path: Path) -> None:
    place = folder(tmp_path / "m", signature=SIGNED)
    verdict = Client(Home(tmp_path / "home")).verify(place, policy=POLICY)
    assert verdict.accepted
    assert verdict.row("signatures").summary == f"model.sig by {LAB}, 4 files"
    (place / "config.json").write_bytes(b"other")
    assert Client(Home(tmp_path / "home")).verify(place, policy=POLICY).exit_status == 3


def test_without_the_package_a_keyless_signature_is_not_checked_and_never_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "sigstore" else real(name, *more)
    )
    assert keyless_for(POLICY) is None
    verdict = Client(Home(tmp_path / "home")).verify(folder(tmp_path / "m", signature=SIGNED), policy=POLICY)
    assert (verdict.row("signatures").state, verdict.exit_status) == ("not-checked", 5)


def test_the_verifier_alone_names_the_package_that_it_would_need(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trusted_root.json").write_bytes(SITE.trusted_root)
    (tmp_path / "policy.toml").write_text(
        'schema = "comity/policy/v1"\n[model_signing]\nsigstore_root = "trusted_root.json"\n'
        f'[[model_signing.identity]]\nidentity = "{LAB.identity}"\nissuer = "{LAB.issuer}"\n'
        '[rows]\nrequire = ["artifact", "bytes", "signatures"]\n'
    )
    place = folder(tmp_path / "m", signature=SIGNED)
    assert main([str(place), "--policy", str(tmp_path / "policy.toml")]) == 5
    assert "needs the extra [sigstore], which is not available here" in capsys.readouterr().out


def test_the_package_is_loaded_only_if_the_policy_names_an_identity() -> None:
    assert keyless_for(Policy()) is None
    assert keyless_for(POLICY) is verify_keyless


def test_files_are_compared_with_the_signed_list_in_any_case(tmp_path: Path) -> None:
    place = folder(tmp_path / "m", {**FILES, ".gitattributes": b""}, signature=SIGNED)
    verdict = verify(collect_evidence(place), POLICY, keyless=verify_keyless)
    assert ".gitattributes: not signed" in verdict.row("bytes").summary
    assert (place / MODEL_SIG).exists()
