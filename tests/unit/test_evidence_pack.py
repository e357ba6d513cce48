"""Reading an evidence pack: lines that no log holds, junk in any amount, files of other kinds, limits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from comity import evidence_pack
from comity.trust.encoding import sha256
from comity.verifier import collect_evidence, main
from support.case import case
from support.folder import Folder

GOOD = case()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(GOOD.write(tmp_path), GOOD)


def judged(folder: Folder) -> int:
    return main([str(folder.path), "--policy", str(folder.path.parent / "policy.toml")])


def test_a_claim_line_that_no_log_would_hold_is_a_note(folder: Folder) -> None:
    claims = folder.pack("statements.jsonl")
    claims.write_bytes(b"x" * 200_000 + b"\n" + claims.read_bytes() + b"y" * 3_000_000)
    read = collect_evidence(folder.path)
    assert read.claims[:-2] == GOOD.claims
    assert max(map(len, read.claims)) < 70_000
    assert judged(folder) == 0


def test_a_pack_of_an_older_version_is_read(folder: Folder) -> None:
    folder.pack("statements.jsonl").rename(folder.pack("claims.jsonl"))
    assert collect_evidence(folder.path).claims == GOOD.claims
    assert judged(folder) == 0


def test_a_statement_under_both_names_counts_once(folder: Folder) -> None:
    claims = folder.pack("statements.jsonl").read_bytes()
    folder.pack("claims.jsonl").write_bytes(claims)
    assert collect_evidence(folder.path).claims == GOOD.claims


def test_bundles_in_the_form_that_openssf_proposes_are_no_statements(folder: Folder) -> None:
    bundle = (
        b'{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{},"verificationMaterial":{}}'
    )
    folder.pack("claims.jsonl").write_bytes(bundle + b"\n")
    read = collect_evidence(folder.path)
    assert (read.claims, read.left_out) == (GOOD.claims, ())
    assert judged(folder) == 0


@pytest.mark.parametrize("first", [True, False])
def test_no_number_of_junk_lines_hides_the_claims(
    folder: Folder, capsys: pytest.CaptureFixture[str], first: bool
) -> None:
    claims = folder.pack("statements.jsonl")
    junk = b"".join(b'{"n":%d}\n' % number for number in range(10_001)) + b"{}\n" * 10_001
    claims.write_bytes(junk + claims.read_bytes() if first else claims.read_bytes() + junk)
    assert collect_evidence(folder.path).claims == GOOD.claims
    assert judged(folder) == 0
    assert "20002 lines of statements.jsonl are not statements" in capsys.readouterr().out


def test_no_number_of_junk_files_hides_proofs_and_objects(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    proofs, objects = (str(folder.pack(name)) for name in ("proofs", "objects"))
    for number in range(10_001):
        os.mknod(f"{proofs}/{number:064x}.0000000000000000.tlog-proof")
        os.mknod(f"{objects}/{number:064x}")
    read = collect_evidence(folder.path)
    assert (set(read.proofs), read.objects) == (set(GOOD.proofs), GOOD.objects)
    assert judged(folder) == 0
    assert "10001 files in proofs" in capsys.readouterr().out


def test_objects_that_no_claim_names_do_not_count(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        data = b"%d" % number * 100_000
        (folder.pack("objects") / sha256(data)).write_bytes(data)
    monkeypatch.setattr(evidence_pack, "MAX_READ", folder.pack("statements.jsonl").stat().st_size)
    assert collect_evidence(folder.path).objects == GOOD.objects


def test_a_proof_that_cannot_be_read_hides_no_other(folder: Folder) -> None:
    loop = folder.pack("proofs") / f"{GOOD.proofs[0].line}.ffffffffffffffff.tlog-proof"
    loop.touch(mode=0o000)
    assert judged(folder) == 0


def test_junk_beside_proofs_and_objects_is_passed_over(folder: Folder) -> None:
    for where in ("proofs", "objects"):
        (folder.pack(where) / "a folder").mkdir()
        (folder.pack(where) / "a link").symlink_to("nowhere")
        os.mkfifo(folder.pack(where) / "a pipe.tlog-proof")
        (folder.pack(where) / ("0" * 64)).write_bytes(b"not what its name says")
        (folder.pack(where) / "README").write_bytes(b"hello")
    huge = folder.pack("proofs") / f"{GOOD.proofs[-1].line}.huge.tlog-proof"
    huge.write_bytes(b"x" * 2_000_000)
    assert dict(collect_evidence(folder.path).objects) == GOOD.objects
    assert judged(folder) == 0


def test_a_pipe_in_the_packs_place_does_not_block(folder: Folder) -> None:
    for name in ("statements.jsonl", "pieces.json", "manifest.json"):
        folder.pack(name).unlink()
        os.mkfifo(folder.pack(name))
    assert judged(folder) == 5


@pytest.mark.parametrize(
    ("limit", "most", "where"),
    [("MAX_PACK_NAMES", 1, "proofs"), ("MAX_READ", 1, "statements.jsonl"), ("MAX_READ", 200_000, "proofs")],
)
def test_evidence_beyond_the_reading_limits_is_missing_and_no_failure(
    folder: Folder,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    most: int,
    where: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number in range(10):
        name = f"{GOOD.proofs[0].line}.{number:016x}.tlog-proof"
        (folder.pack("proofs") / name).write_bytes(b"x" * 100_000)
    monkeypatch.setattr(evidence_pack, limit, most)
    assert judged(folder) == 5
    refusal = capsys.readouterr().err
    assert "too much evidence to read" in refusal
    assert f"in {where} of" in refusal


def test_a_manifest_beyond_its_bound_is_refused(folder: Folder) -> None:
    with folder.pack("manifest.json").open("wb") as file:
        file.truncate(64 * 1024 * 1024 + 1)
    assert judged(folder) == 3
