"""Key files: their modes, and their bounds."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from comity.content import durable
from comity.content.secrets import read_keys, read_signer, write_keys
from comity.trust.errors import Conflict, Malformed, NotFound, OutOfSpace, Refused
from comity.trust.keys import HybridSigner


@pytest.fixture
def signer() -> HybridSigner:
    return HybridSigner.generate()


def test_a_key_file_is_private_and_reads_back(tmp_path: Path, signer: HybridSigner) -> None:
    path = tmp_path / "key.pem"
    write_keys(path, signer.keys)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_signer(path).public == signer.public


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_file_that_others_may_use_is_refused_with_the_command_that_helps(
    tmp_path: Path, signer: HybridSigner, mode: int
) -> None:
    path = tmp_path / "key.pem"
    write_keys(path, signer.keys)
    path.chmod(mode)
    with pytest.raises(Refused) as caught:
        read_keys(path)
    assert caught.value.code == "KEY-PERMISSIONS"
    assert caught.value.hint == f"chmod 600 {path}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away; run as root")
def test_a_key_file_of_another_user_is_refused(tmp_path: Path, signer: HybridSigner) -> None:
    path = tmp_path / "key.pem"
    write_keys(path, signer.keys)
    os.chown(path, 65534, -1)
    with pytest.raises(Refused) as caught:
        read_keys(path)
    assert caught.value.code == "KEY-PERMISSIONS"


def test_a_key_is_never_overwritten(tmp_path: Path, signer: HybridSigner) -> None:
    path = tmp_path / "key.pem"
    write_keys(path, signer.keys)
    with pytest.raises(Conflict):
        write_keys(path, HybridSigner.generate().keys)
    assert read_signer(path).public == signer.public


def test_a_key_that_a_full_disk_did_not_take_leaves_no_file(
    tmp_path: Path, signer: HybridSigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, *, point: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "key.pem"
    with monkeypatch.context() as patched:
        patched.setattr(durable, "fsync", full)
        with pytest.raises(OutOfSpace):
            write_keys(path, signer.keys)
    write_keys(path, signer.keys)
    assert read_signer(path).public == signer.public


def test_a_link_is_not_followed_to_a_key(tmp_path: Path, signer: HybridSigner) -> None:
    write_keys(tmp_path / "key.pem", signer.keys)
    (tmp_path / "link.pem").symlink_to(tmp_path / "key.pem")
    with pytest.raises(Refused):
        read_keys(tmp_path / "link.pem")


@pytest.mark.parametrize("data", [b"", b"secret\n", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_an_invalid_key_file_is_malformed(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(Malformed):
        read_keys(path)


def test_text_beside_a_key_is_refused(tmp_path: Path, signer: HybridSigner) -> None:
    path = tmp_path / "key.pem"
    write_keys(path, signer.keys)
    path.write_bytes(path.read_bytes() + b"# note\n")
    with pytest.raises(Malformed):
        read_keys(path)


def test_a_missing_key_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_keys(tmp_path / "key.pem")


def test_a_missing_key_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as refused:
        read_keys(tmp_path / "key.pem")
    assert "backup" in refused.value.hint and str(tmp_path / "key.pem") in refused.value.hint
