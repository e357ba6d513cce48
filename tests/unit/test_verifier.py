"""Reading an artifact's folder and its pack from disk: hostile trees, Hub caches, what is printed."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from comity import verifier
from comity.trust.errors import Malformed, NotFound, Unavailable
from comity.verifier import collect_evidence, main
from support.case import FILES, case
from support.folder import Folder

GOOD = case()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(GOOD.write(tmp_path), GOOD)


def judged(folder: Folder, *options: str) -> int:
    return main([str(folder.path), "--policy", str(folder.path.parent / "policy.toml"), *options])


def test_a_written_pack_reads_back(folder: Folder) -> None:
    read = collect_evidence(folder.path)
    assert read.files == GOOD.evidence.files
    assert (read.manifest, read.pieces, read.claims, read.objects) == (
        GOOD.manifest,
        GOOD.pieces,
        GOOD.claims,
        GOOD.objects,
    )
    assert set(read.proofs) == set(GOOD.proofs)


def test_the_progress_of_hashing_is_reported_in_bytes(folder: Folder) -> None:
    told: list[int] = []
    collect_evidence(folder.path, workers=3, on_hashed=told.append)
    assert sum(told) == sum(map(len, FILES.values()))


def test_an_interruption_waits_for_no_large_file(folder: Folder) -> None:
    large = 4 * 1024 * 1024 * 1024
    with (folder.path / "large.bin").open("wb") as file:
        file.truncate(large)
    told, numbers = list[int](), itertools.count()

    def interrupted(count: int) -> None:
        told.append(count)
        if next(numbers) == 20:  # two threads report
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            collect_evidence(folder.path, on_hashed=interrupted)
    finally:
        signal.signal(signal.SIGINT, before)
    assert sum(told) < large


def test_a_folder_without_a_pack_is_evidence_of_nothing(tmp_path: Path, folder: Folder) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    assert main([str(bare), "--policy", str(tmp_path / "policy.toml")]) == 5


def test_no_folder_is_nothing_to_judge(tmp_path: Path, folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere"), "--policy", str(tmp_path / "policy.toml")]) == 5
    assert capsys.readouterr().err.startswith("error: no folder")
    with pytest.raises(NotFound):
        collect_evidence(folder.path / "LICENSE")


def test_a_hub_cache_is_verified_through_its_links(tmp_path: Path) -> None:
    plain_folder = GOOD.write(tmp_path)
    repository = tmp_path / "models--swiss-ai--tiny"
    snapshot = repository / "snapshots" / ("a" * 40)
    (repository / "blobs").mkdir(parents=True)
    for number, path in enumerate(FILES):
        (plain_folder / path).rename(repository / "blobs" / str(number))
        (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
        up = "../" * (path.count("/") + 2)
        (snapshot / path).symlink_to(f"{up}blobs/{number}")
    (plain_folder / ".comity").rename(snapshot / ".comity")
    assert main([str(snapshot), "--policy", str(tmp_path / "policy.toml")]) == 0
    (snapshot / "LICENSE").unlink()
    (snapshot / "LICENSE").symlink_to(tmp_path / "policy.toml")
    assert main([str(snapshot), "--policy", str(tmp_path / "policy.toml")]) == 3


@pytest.mark.parametrize(
    ("where", "target"),
    [
        ("model", "../../blobs/LICENSE"),
        ("snapshots/" + "a" * 40, "../../blobs/LICENSE"),
        ("models--a--b/snapshots/main", "../../blobs/LICENSE"),
        ("models--a--b/snapshots/" + "a" * 40, "/blobs/LICENSE"),
        ("models--a--b/snapshots/" + "a" * 40, "../../blobs/below/LICENSE"),
        ("models--a--b/snapshots/" + "a" * 40, "../../../models--a--b/blobs/LICENSE"),
        ("models--a--b/snapshots/" + "a" * 40, "../../blobs/another-link"),
        ("models--a--b/snapshots/" + "a" * 40, "../../blobs/.."),
    ],
)
def test_a_link_that_no_hub_client_makes_is_never_followed(tmp_path: Path, where: str, target: str) -> None:
    plain_folder = GOOD.write(tmp_path)
    place = tmp_path / "x" / where
    blobs = place.parent.parent / "blobs"
    (blobs / "below").mkdir(parents=True)
    (blobs / "LICENSE").write_bytes(FILES["LICENSE"])
    (blobs / "below" / "LICENSE").write_bytes(FILES["LICENSE"])
    (blobs / "another-link").symlink_to("LICENSE")
    place.parent.mkdir(parents=True, exist_ok=True)
    plain_folder.rename(place)
    (place / "LICENSE").unlink()
    (place / "LICENSE").symlink_to(f"{blobs.parent}{target}" if target.startswith("/") else target)
    (found,) = (file for file in collect_evidence(place).files or () if file.path == "LICENSE")
    assert (found.kind, found.sha256) == ("link", None)
    assert main([str(place), "--policy", str(tmp_path / "policy.toml")]) == 3


@pytest.mark.parametrize("target", ["LICENSE", "/dev/zero", "nowhere", "tokenizer", ".."])
def test_links_are_found_and_never_followed(folder: Folder, target: str) -> None:
    (folder.path / "link").symlink_to(target)
    (found,) = (file for file in collect_evidence(folder.path).files or () if file.path == "link")
    assert (found.kind, found.sha256) == ("link", None)
    assert judged(folder) == 3


def test_a_pack_behind_a_link_is_a_file_too_many(folder: Folder) -> None:
    (folder.path / ".comity").rename(folder.path.parent / "pack")
    (folder.path / ".comity").symlink_to("../pack")
    assert judged(folder) == 3


def test_a_pack_deeper_down_is_not_the_pack(folder: Folder) -> None:
    (folder.path / "tokenizer" / ".comity").mkdir()
    (folder.path / "tokenizer" / ".comity" / "evil.py").touch()
    assert judged(folder) == 3


def test_a_tree_deeper_than_the_stack_is_walked(folder: Folder) -> None:
    here = os.open(folder.path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("evil.py", os.O_CREAT, dir_fd=here))
    os.close(here)
    try:
        assert judged(folder) == 3
    finally:
        subprocess.run(["rm", "-rf", folder.path / "d"], check=True)  # shutil would overrun the stack


def test_an_unreadable_file_is_missing_evidence(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, name: str, on_hashed: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(verifier, "hash_and_inspect", refuse)
    assert judged(folder) == 5
    assert "cannot read" in capsys.readouterr().err


def test_a_folder_that_cannot_be_listed_is_not_skipped(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def refuse(path: Path) -> Iterator[os.DirEntry[str]]:
        if path == folder.path / "tokenizer":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(Unavailable, match="cannot read"):
        collect_evidence(folder.path)


def test_more_files_than_a_manifest_lists_are_refused(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "MAX_FILES", 1)
    with pytest.raises(Malformed, match="too many files"):
        collect_evidence(folder.path)


def test_a_file_name_cannot_control_the_terminal(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    (folder.path / "x\n  PASS   2 bytes\x1b[2J\u202e").touch()
    (folder.path / os.fsdecode(b"\xff")).touch()
    assert judged(folder) == 3
    out = capsys.readouterr().out
    assert "PASS   2 bytes" not in "\n".join(line for line in out.splitlines() if line.startswith("  PASS"))
    assert out.isascii() or "\x1b" not in out


def test_json_is_one_document_with_all_rows(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert judged(folder, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(json.dumps(GOOD.verdict().to_json()))
    assert document["schema"] == "comity.dev/verdict/v1"


def test_a_terminal_without_unicode_is_served(folder: Folder) -> None:
    folder.flip(".comity/pieces.json")
    command = [
        sys.executable,
        "-m",
        "comity.verifier",
        str(folder.path),
        "--policy",
        str(folder.path / "../policy.toml"),
    ]
    done = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u2026" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["folder"], ["folder", "--policy"], ["--help"]])
def test_a_usage_error_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == (0 if "--help" in arguments else 2)
