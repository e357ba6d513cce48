"""Governance keys in a token: SoftHSM makes the classical half of a signature."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.content.secrets import write_keys
from comity.trust.errors import Malformed, NotFound, Refused, Unavailable
from comity.trust.keys import PrivateKey
from comity.trust.statement import sign_payload
from comity_client.signing.pkcs11 import open_token_key
from support.softhsm import Token, token

CURVES = {"ecdsa-p256": "secp256r1", "ecdsa-p384": "secp384r1", "ed25519": "1.3.101.112"}


@pytest.fixture(name="hsm")
def _hsm() -> Token:
    return token()


def describe(folder: Path, hsm: Token, key: str, *, pin: str | None = None, **more: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "pin").write_text((pin or hsm.pin) + "\n")
    (folder / "pin").chmod(0o600)
    values = {"schema": "comity/token-key/v1", "module": hsm.module, "token": hsm.label, "key": key}
    values |= {"pin_file": "pin", "votes": "governance.votes", **more}
    path = folder / "governance.toml"
    path.write_text("".join(f'{name} = "{value}"\n' for name, value in values.items()))
    return path


@pytest.mark.parametrize("alg", CURVES)
def test_a_token_signs_with_each_curve_of_its_keys(tmp_path: Path, hsm: Token, alg: str) -> None:
    hsm.make(f"curve-{alg}", CURVES[alg])
    signer, votes = open_token_key(describe(tmp_path, hsm, f"curve-{alg}"))
    assert [half.alg for half in signer.public.halves] == [alg]
    assert not signer.public.post_quantum
    assert sign_payload(b"{}", signer).verified_by(signer.public)
    assert votes == tmp_path / "governance.votes"


def test_the_post_quantum_half_is_in_a_file_and_both_halves_must_sign(tmp_path: Path, hsm: Token) -> None:
    hsm.make("hybrid", CURVES["ecdsa-p384"])
    write_keys(tmp_path / "pq.pem", [PrivateKey.generate("ml-dsa-65")])
    signer, _ = open_token_key(describe(tmp_path, hsm, "hybrid", second="pq.pem"))
    assert [half.alg for half in signer.public.halves] == ["ecdsa-p384", "ml-dsa-65"]
    envelope = sign_payload(b"{}", signer)
    assert len(envelope.signatures) == 2
    assert envelope.verified_by(signer.public)


def test_two_sessions_one_after_the_other_find_the_same_key(tmp_path: Path, hsm: Token) -> None:
    hsm.make("same", CURVES["ecdsa-p256"])
    path = describe(tmp_path, hsm, "same")
    assert open_token_key(path)[0].public == open_token_key(path)[0].public


def test_a_wrong_pin_is_refused_with_a_warning_about_the_lock(tmp_path: Path, hsm: Token) -> None:
    with pytest.raises(Refused, match="may lock") as refused:
        open_token_key(describe(tmp_path, hsm, "any", pin="111111"))
    assert refused.value.code == "TOKEN-PIN"


def test_a_pin_that_others_can_read_is_refused(tmp_path: Path, hsm: Token) -> None:
    path = describe(tmp_path, hsm, "any")
    (tmp_path / "pin").chmod(0o644)
    with pytest.raises(Refused) as refused:
        open_token_key(path)
    assert refused.value.code == "SECRET-EXPOSED"


def test_a_token_or_key_that_is_not_there_is_not_found(tmp_path: Path, hsm: Token) -> None:
    with pytest.raises(NotFound, match="no key pair 'nobody'"):
        open_token_key(describe(tmp_path, hsm, "nobody"))
    with pytest.raises(NotFound, match="no token 'another'"):
        open_token_key(describe(tmp_path, hsm, "any", token="another"))


def test_a_library_that_cannot_be_loaded_is_unavailable(tmp_path: Path, hsm: Token) -> None:
    with pytest.raises(Unavailable) as unavailable:
        open_token_key(describe(tmp_path, hsm, "any", module=str(tmp_path / "none.so")))
    assert unavailable.value.code == "TOKEN"


@pytest.mark.parametrize("broken", ["", "schema = 1", 'schema = "comity/token-key/v1"\n', "\xff"])
def test_a_file_that_describes_no_key_is_malformed(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "governance.toml"
    path.write_bytes(broken.encode("latin-1"))
    with pytest.raises(Malformed) as malformed:
        open_token_key(path)
    assert malformed.value.code == "TOKEN-FILE"
