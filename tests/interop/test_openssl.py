"""Our ML-DSA-44 cosignatures verified by the `openssl` of this machine, over a message that this test builds itself."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import Checkpoint, cosign
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.seeded import seeded_key
from support.tools import missing, needs

NAME, ORIGIN, SIZE, TIME = b"node-b.example/cosigner", b"node-a.example/log", 300, 1_795_162_000
UNLOCK = "install OpenSSL 3.5 or newer"


@pytest.fixture(scope="module")
def openssl() -> str:
    program = needs("openssl", unlock=UNLOCK)
    version = subprocess.run([program, "version"], capture_output=True, text=True, check=True).stdout
    number = re.match(r"OpenSSL (\d+)\.(\d+)", version)
    if not number or (int(number[1]), int(number[2])) < (3, 5):
        missing(f"{version.strip()} knows no ML-DSA; unlock: {UNLOCK}")
    return program


@pytest.mark.parametrize("tamper", [False, True])
def test_openssl_verifies_a_cosignature_over_the_message_of_the_specification(
    tmp_path: Path, openssl: str, tamper: bool
) -> None:
    key = seeded_key("ml-dsa-44", "openssl")
    top = leaf_hash(b"")
    line = cosign(Checkpoint(ORIGIN.decode(), SIZE, top), NAME.decode(), key, TIME)
    head = b"subtree/v1\n\0" + bytes([len(NAME)]) + NAME + TIME.to_bytes(8, "big")
    tail = bytes([len(ORIGIN)]) + ORIGIN + (0).to_bytes(8, "big") + (SIZE + tamper).to_bytes(8, "big") + top
    (tmp_path / "message").write_bytes(head + tail)
    (tmp_path / "signature").write_bytes(line.signature[8:])
    public = MLDSA44PublicKey.from_public_bytes(key.public.raw)
    (tmp_path / "key.pem").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    options = ["-verify", "-rawin", "-pubin", "-inkey", "key.pem", "-in", "message", "-sigfile", "signature"]
    result = subprocess.run([openssl, "pkeyutl", *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode == 0) is not tamper, result.stderr
    assert ("Verified Successfully" in result.stdout) is not tamper
