"""`comity attestation`: keys that are pinned, verdicts and their exit status, and options that do not go together."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.addons.attestations.command import FAILED_STATUS, command
from comity.addons.attestations.envelopes import AttestationKey
from comity.trust.errors import Conflict, Malformed
from support.attesting import SUMMARY, encoded, envelope, payload
from support.case import case
from support.foreign_keys import private_key, public_pem
from support.run_command import printed, refused, run, said

GOOD = case()


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    return GOOD.write(tmp_path)


@pytest.fixture(name="key")
def _key(folder: Path) -> Path:
    path = folder.parent / "builder.pub"
    path.write_bytes(public_pem(private_key()))
    return path


def test_no_key_is_pinned_at_first(folder: Path) -> None:
    assert said(command, "keys").startswith("No key is pinned")
    assert printed(command, "keys")["keys"] == []


def test_a_key_is_pinned_with_consent_and_unpinned(key: Path) -> None:
    assert run(command, "pin", key, "--name", "builder", answer="n\n").exit_code != 0
    assert printed(command, "keys")["keys"] == []
    pinned = printed(command, "pin", key, "--name", "builder", "--yes")
    assert printed(command, "keys")["keys"] == [{name: pinned[name] for name in ("name", "algorithm", "id")}]
    assert f"builder {pinned['algorithm']} {pinned['id'][:16]}" in said(command, "keys")
    key.write_bytes(public_pem(private_key()))
    refused(command, "pin", key, "--name", "builder", "--yes")  # another key of that name
    assert printed(command, "unpin", "builder")["id"] is None
    assert printed(command, "keys")["keys"] == []
    refused(command, "unpin", "builder")


@pytest.mark.parametrize("data", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_a_file_without_a_key_is_refused(key: Path, data: bytes) -> None:
    key.write_bytes(data)
    assert isinstance(refused(command, "pin", key, "--name", "x", "--yes"), (Malformed, Conflict))
    assert printed(command, "keys")["keys"] == []


def test_no_attestation_is_said(folder: Path) -> None:
    assert said(command, "ls", folder) == "No attestation of another tool is here."
    document = printed(command, "ls", folder)
    assert (document["artifact"], document["attestations"], document["left_out"]) == (GOOD.artifact, [], 0)


def test_each_state_has_its_sign_and_a_failure_its_status(folder: Path, key: Path) -> None:
    pinned = private_key()
    key.write_bytes(public_pem(pinned))
    file = folder.parent / "their.json"

    def judged(status: int = 0) -> tuple[list[str], str]:
        document = printed(command, "ls", folder, status=status)
        return [each["state"] for each in document["attestations"]], " ".join(run(command, "ls", folder).output.split())

    file.write_bytes(encoded(envelope(pinned, payload(SUMMARY, GOOD.artifact))))
    assert "about this artifact" in said(command, "add", file, folder)
    states, text = judged()
    assert states == ["claimed"] and text.startswith("? ")
    said(command, "pin", key, "--name", "builder", "--yes")
    states, text = judged()
    assert states == ["verified"] and text.startswith("✓ ") and "builder" in text
    wrong = envelope(private_key(), payload(SUMMARY, GOOD.artifact), AttestationKey.parse(public_pem(pinned)).id)
    file.write_bytes(encoded(wrong))
    said(command, "add", file, folder)
    states, text = judged(FAILED_STATUS)
    assert sorted(states) == ["failed", "verified"] and "✗ " in text


@pytest.mark.parametrize(
    "words",
    [
        ("--identity", "ci@lab.example"),
        ("--issuer", "https://accounts.example"),
        ("--identity", "ci@lab.example", "--issuer", "https://accounts.example"),
    ],
)
def test_options_of_keyless_signatures_belong_together(folder: Path, words: tuple[str, ...]) -> None:
    assert run(command, "ls", folder, *words).exit_code == 2


@pytest.mark.parametrize(
    ("kind", "policy"), [("vsa", False), ("test-result", False), ("slsa", True), ("eval-result", True)]
)
def test_a_form_has_a_policy_or_none(folder: Path, kind: str, policy: bool) -> None:
    words = ("--policy", folder.parent / "policy.toml") if policy else ()
    out = folder.parent / "out.json"
    assert run(command, "export", folder, "--as", kind, "--sign-as", "x", "--out", out, *words).exit_code == 2
    assert not out.exists()


def test_a_signer_that_is_unknown_exports_nothing(folder: Path) -> None:
    out = folder.parent / "out.json"
    refused(
        command, "export", folder, "--as", "vsa", "--sign-as", "nobody", "--policy", folder.parent / "policy.toml",
        "--out", out,
    )  # fmt: skip
    assert not out.exists()
