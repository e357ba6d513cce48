"""Folders with a `model.sig` on the disk, by `comity.verifier`; and the policy files that name accepted signers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from comity.trust.errors import Malformed
from comity.trust.evidence import MODEL_SIG
from comity.trust.policy import Policy
from comity.trust.policy_file import parse_policy
from comity.verifier import collect_evidence, main
from support.model_sig import (
    FILES,
    PUBLIC,
    Authority,
    changed,
    flipped,
    folder,
    policy_toml,
    signed,
)
from support.tools import needs


def write_policy(root: Path, text: str) -> str:
    (root / "lab.pub").write_bytes(PUBLIC.pem)
    (root / "policy.toml").write_text(text)
    return str(root / "policy.toml")


def judged(root: Path, place: Path, text: str = "") -> int:
    return main([str(place), "--policy", write_policy(root, text or policy_toml())])


def test_a_folder_is_verified_with_a_policy_that_lists_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = folder(tmp_path / "m")
    assert judged(tmp_path, place) == 0
    assert f"model.sig by key {PUBLIC.hint[:16]} (ecdsa-p256), 4 files" in capsys.readouterr().out
    (place / "config.json").write_bytes(b"other")
    assert judged(tmp_path, place) == 3


@pytest.mark.parametrize("change", [flipped, lambda data: changed(data, lambda d: d.update(extra=1)), lambda _: b""])
def test_a_folder_whose_signature_does_not_hold_is_refused(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    assert judged(tmp_path, folder(tmp_path / "m", signature=change(signed()))) == 3


def in_cache(root: Path) -> Path:
    """The folder as a Hub cache has it: a snapshot of links to blobs."""
    blobs, snapshot = root / "blobs", root / "snapshots" / ("a" * 40)
    blobs.mkdir(parents=True)
    for number, (name, data) in enumerate({**FILES, MODEL_SIG: signed()}.items()):
        (blobs / str(number)).write_bytes(data)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blobs / str(number), (snapshot / name).parent))
    return snapshot


def test_a_hub_cache_of_links_is_verified_in_place(tmp_path: Path) -> None:
    snapshot = in_cache(tmp_path / "models--a--b")
    assert judged(tmp_path, snapshot) == 0
    (tmp_path / "models--a--b" / "blobs" / "0").write_bytes(b"other")
    assert judged(tmp_path, snapshot) == 3


def test_a_link_out_of_the_cache_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = in_cache(tmp_path / "models--a--b")
    (tmp_path / "outside").write_bytes(FILES["config.json"])
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(tmp_path / "outside")
    assert judged(tmp_path, snapshot) == 3
    assert "config.json: a link out of the folder" in capsys.readouterr().out


def read(text: str, files: Mapping[str, bytes] | None = None) -> Policy:
    given = {"lab.pub": PUBLIC.pem, "roots.pem": Authority.root().pem, "root.json": b"{}", **(files or {})}
    return parse_policy(f'schema = "comity/policy/v1"\n[model_signing]\n{text}'.encode(), given.__getitem__)


def test_the_policy_table_is_read_whole() -> None:
    rule = read(
        'keys = ["lab.pub"]\ncertificates = ["roots.pem"]\nsigstore_root = "root.json"\nunsigned = ["a/", "b"]\n'
        'require = true\n[[model_signing.identity]]\nidentity = "a@b"\nissuer = "https://c"\n'
    ).model_signing
    assert (rule.keys, len(rule.roots), rule.sigstore_root) == ((PUBLIC,), 1, b"{}")
    assert [str(each) for each in rule.identities] == ["a@b (https://c)"]
    assert (rule.unsigned, rule.require) == (("a/", "b"), True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("require = true", "'require' cannot be met"),
        ('sigstore_root = "root.json"', "'identity' and 'sigstore_root' must be given together"),
        (
            '[[model_signing.identity]]\nidentity = "a@b"\nissuer = "c"',
            "'identity' and 'sigstore_root' must be given together",
        ),
        (
            'sigstore_root = "root.json"\n[[model_signing.identity]]\nidentity = "a@b"',
            "'identity' needs 'issuer'",
        ),
        ('unsigned = ["../up"]', "not a path inside the model's folder"),
        ('keys = ["root.json"]', "'keys': not a public key"),
        ('certificates = ["root.json"]', "'certificates': not certificates"),
        ('key = ["lab.pub"]', "did you mean 'keys'?"),
    ],
)
def test_an_invalid_policy_table_is_refused(text: str, why: str) -> None:
    with pytest.raises(Malformed) as caught:
        read(text)
    assert why in str(caught.value)


@pytest.mark.parametrize("moment", ["1970-01-02 00:00:00", "2040-01-02 00:00:00"])
def test_no_clock_decides_about_a_certificate(tmp_path: Path, moment: str) -> None:
    faketime = needs("faketime", unlock="apt-get install faketime")
    root = Authority.root()
    place = folder(tmp_path / "m", signature=root.below().leaf(years=(2024, 2027)).sign())
    (tmp_path / "root.pem").write_bytes(root.pem)
    policy = write_policy(tmp_path, policy_toml('certificates = ["root.pem"]\n[time]\nas_of = 2026-06-01T00:00:00Z'))
    command = [faketime, moment, sys.executable, "-m", "comity.verifier", str(place), "--policy", policy]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_examine_reads_no_signature_that_is_a_link_out(tmp_path: Path) -> None:
    place = folder(tmp_path / "m")
    (place / MODEL_SIG).rename(tmp_path / "aside")
    (place / MODEL_SIG).symlink_to(tmp_path / "aside")
    assert collect_evidence(place).model_sig is None


def test_the_policy_in_the_documentation_is_one_that_the_verifier_reads() -> None:
    page = (Path(__file__).parents[2] / "docs" / "model-signing.md").read_text("utf-8")
    text = page.partition("```policy\n")[2].partition("```")[0]
    policy = parse_policy(text.encode(), {"lab.pub": PUBLIC.pem, "roots.pem": Authority.root().pem}.__getitem__)
    assert policy.model_signing.keys == (PUBLIC,)
