"""The readers of docs/examples for kits and drill reports, in Go and JavaScript: what they verify and refuse."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comity.rules.continuity.drill_report import summarise_drill
from comity.rules.kits.description import KIT_FILE, LOCK_FILE
from comity.rules.signing import sign_content
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import format_time, sha256
from comity_client.continuity.drill_files import proof_path
from comity_client.signature_files import signature_path
from support.case import nodes
from support.drill_reports import OFFICER, STARTED, a_drill_report, cosigned_checkpoint, write_drill
from support.kits import WHEEL_FILE, a_kit
from support.tools import needs
from support.waiting import PATIENCE
from support.world import Log, found, identity

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
REPORT = replace(a_drill_report(), before=cosigned_checkpoint(STARTED - 60))
DAY = 86_400

pytestmark = pytest.mark.slow

Reader = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(name="reader", params=["go", "javascript"], scope="module")
def _reader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Runs the reader of `kit` or `drill` with arguments; options are written as the reader takes them."""
    commands: Mapping[str, Sequence[str]]
    if request.param == "javascript":
        node, dashes = needs("node", unlock="apt-get install nodejs"), "--"
        commands = {kind: (node, str(EXAMPLES / "javascript" / f"{kind}.mjs")) for kind in ("kit", "drill")}
    else:
        go, dashes = needs("go", unlock="apt-get install golang-go"), "-"
        built = tmp_path_factory.mktemp("go") / "reader"
        environ = {**os.environ, "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
        subprocess.run([go, "build", "-o", str(built), "."], cwd=EXAMPLES / "go", env=environ, check=True)
        commands = {kind: (str(built), kind) for kind in ("kit", "drill")}

    def run(kind: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        named = [word for name, value in options.items() for word in (dashes + name, str(value))]
        command = [*commands[kind], *named, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)

    return run


@pytest.mark.parametrize("name", ["kit", "drill"])
def test_a_reader_has_at_most_60_lines(name: str) -> None:
    lines = (EXAMPLES / "javascript" / f"{name}.mjs").read_text("utf-8").splitlines()
    assert len(lines) <= 60 and max(map(len, lines)) <= 120


def refused(ran: subprocess.CompletedProcess[str], why: str) -> None:
    assert (ran.returncode, why in ran.stderr) == (3, True), ran.stdout + ran.stderr


# --- kits


def write_kit(folder: Path, changed: Mapping[str, bytes] | None = None) -> str:
    """Write a kit whose description fits its files, some of them `changed`; the digest of its artifact."""
    files = {part.path: part.path.encode() for part in a_kit().parts}
    files[LOCK_FILE] = f"# locked\nengine==1.0 \\\n    --hash=sha256:{sha256(files[WHEEL_FILE])}\n".encode()
    files |= changed or {}
    parts = (replace(part, sha256=sha256(files[part.path]), size=len(files[part.path])) for part in a_kit().parts)
    files[KIT_FILE] = a_kit(parts=tuple(parts)).encode()
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / ".comity").mkdir(exist_ok=True)
    (folder / ".comity" / "evidence").write_text("no part")
    return artifact_of(folder)


def artifact_of(folder: Path) -> str:
    """The digest of the artifact that the files of a folder are, whatever they are."""
    paths = [path for path in folder.rglob("*") if path.is_file() and ".comity" not in path.parts]
    data = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return Manifest.of(FileEntry(path, len(each), sha256(each)) for path, each in data.items()).digest


def test_a_kit_is_checked_against_its_artifact(tmp_path: Path, reader: Reader) -> None:
    artifact = write_kit(tmp_path)
    ran = reader("kit", tmp_path, artifact)
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert (said["kit"], said["service"], said["parts"], said["wheels"]) == ("tiny-chat", "chat", 7, 1)
    assert said["weights_of"] == [sha256(b"model")] and "that it installs, starts and answers" in said["not_checked"]
    refused(reader("kit", tmp_path, "0" * 64), "not those of the artifact")
    (tmp_path / "engine" / "serve.py").write_text("changed")
    refused(reader("kit", tmp_path, artifact), "not those of the artifact")
    refused(reader("kit", tmp_path, artifact_of(tmp_path)), "are not the files of the folder")
    write_kit(tmp_path)
    (tmp_path / "engine" / "more.py").write_text("hidden")
    refused(reader("kit", tmp_path, artifact_of(tmp_path)), "are not the files of the folder")
    (tmp_path / "engine" / "more.py").unlink()
    (tmp_path / KIT_FILE).write_bytes((tmp_path / KIT_FILE).read_bytes() + b"\n")
    refused(reader("kit", tmp_path, artifact_of(tmp_path)), "not a canonical comity/kit/v1")
    (tmp_path / "link").symlink_to("/etc/passwd")
    refused(reader("kit", tmp_path, artifact), "neither a file nor a folder")
    assert reader("kit", tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("lock", "why"),
    [
        (b"", "exactly the wheels"),
        (f"engine==1.0 --hash=sha256:{'0' * 64}\n".encode(), "exactly the wheels"),
        (f"--index-url https://example.org\nengine==1.0 --hash=sha256:{'0' * 64}\n".encode(), "no version with hashes"),
        (f"engine @ https://example.org/e.whl --hash=sha256:{'0' * 64}\n".encode(), "no version with hashes"),
        (b"engine==1.0\n", "no version with hashes"),
    ],
)
def test_a_lock_that_reaches_elsewhere_is_refused(tmp_path: Path, reader: Reader, lock: bytes, why: str) -> None:
    refused(reader("kit", tmp_path, write_kit(tmp_path, {LOCK_FILE: lock})), why)


# --- drill reports


def checked(reader: Reader, report: Path, **other: object) -> subprocess.CompletedProcess[str]:
    federation, plan = found(nodes()), report.with_name("plan.toml")
    report.with_name("federation.json").write_bytes(federation.encode())
    plan.write_bytes(b"plan")
    options: dict[str, Any] = {
        "federation": report.with_name("federation.json"),
        "body": federation.body.digest,
        "signer": OFFICER.id,
        "plan": plan,
        "artifact": REPORT.kit_artifact,
    }
    return reader("drill", report, **options | other)


def test_a_drill_report_is_checked_with_its_times(tmp_path: Path, reader: Reader) -> None:
    ran = checked(reader, write_drill(tmp_path, REPORT, logged_at=REPORT.ended + 9))
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert (said["service"], said["kit"], said["passed"]) == ("chat", "org/chat@v1", True)
    assert (said["answered"], said["quality"], said["logged"]) == (REPORT.answered, REPORT.quality, True)
    times = [said["begun_after"].replace(".000Z", "Z"), said["logged_by"].replace(".000Z", "Z")]
    assert times == [format_time(STARTED - 60), format_time(REPORT.ended + 9)]
    alone = json.loads(checked(reader, write_drill(tmp_path, replace(REPORT, before=""))).stdout)
    assert (alone["begun_after"], alone["logged_by"], alone["logged"]) == (None, None, False)


def test_a_forged_report_is_refused(tmp_path: Path, reader: Reader) -> None:
    path = write_drill(tmp_path, REPORT)
    path.write_bytes(replace(REPORT, isolation="none").encode())
    refused(checked(reader, path), "another report was signed")
    write_drill(tmp_path, REPORT)
    path.write_bytes(path.read_bytes() + b"\n")
    refused(checked(reader, path), "not a drill report")
    other = identity("Somebody else")
    refused(checked(reader, write_drill(tmp_path, REPORT, by=other)), "no log has the inception")
    entry = sign_content(summarise_drill(REPORT, OFFICER.id, REPORT.ended), other.signer)
    write_drill(tmp_path, REPORT)
    signature_path(path).write_bytes(OFFICER.entry.line + b"\n" + entry.line + b"\n")
    refused(checked(reader, path), "did not sign it")


@pytest.mark.parametrize(
    ("summary", "why"),
    [
        ({"answered": 1}, "summary differs"),
        ({"passed": False}, "summary differs"),
        ({"artifact": sha256(b"other")}, "about another kit"),
        ({"time": REPORT.ended - 1}, "signed before the drill ended"),
    ],
)
def test_a_signed_summary_that_is_not_of_the_report_is_refused(
    tmp_path: Path, reader: Reader, summary: dict[str, Any], why: str
) -> None:
    path = write_drill(tmp_path, REPORT)
    said = replace(summarise_drill(REPORT, OFFICER.id, REPORT.ended + 1), **summary)
    entry = sign_content(said, OFFICER.signer)
    signature_path(path).write_bytes(OFFICER.entry.line + b"\n" + entry.line + b"\n")
    refused(checked(reader, path), why)


def test_a_replayed_report_of_another_plan_or_kit_is_refused(tmp_path: Path, reader: Reader) -> None:
    path = write_drill(tmp_path, REPORT)
    other = tmp_path / "other.toml"
    other.write_bytes(b"another plan")
    refused(checked(reader, path, plan=other), "of another plan")
    refused(checked(reader, path, artifact=sha256(b"other")), "of another kit")


def test_a_back_dated_report_is_refused(tmp_path: Path, reader: Reader) -> None:
    early = replace(REPORT, started=STARTED - DAY, ended=REPORT.ended - DAY)
    refused(checked(reader, write_drill(tmp_path, early)), "back-dated: it has a checkpoint")
    old = replace(early, before=cosigned_checkpoint(STARTED - DAY - 60))
    late = write_drill(tmp_path, old, logged_at=REPORT.ended + 60)
    refused(checked(reader, late), "back-dated: it was logged more than a day after")
    ahead = write_drill(tmp_path, REPORT, logged_at=REPORT.ended - 3_600)
    refused(checked(reader, ahead), "ended after it was logged")


def test_a_proof_from_any_place_of_a_log_is_followed(tmp_path: Path, reader: Reader) -> None:
    path = write_drill(tmp_path, REPORT)
    line, (writer, *others) = signature_path(path).read_bytes().splitlines()[-1], nodes()
    for before, after in ((0, 6), (3, 3), (4, 0), (5, 7)):
        log = Log(writer.origin, writer.log)
        for number in range(before):
            log.append(b"before %d" % number)
        log.append(line)
        for number in range(after):
            log.append(b"after %d" % number)
        proof_path(path).write_bytes(log.proof(line, others, REPORT.ended).data)
        ran = checked(reader, path)
        assert (ran.returncode, json.loads(ran.stdout)["logged"]) == (0, True), ran.stderr
    moved = proof_path(path).read_bytes().replace(b"index 5\n", b"index 4\n")
    proof_path(path).write_bytes(moved)
    refused(checked(reader, path), "does not lead to its checkpoint")


def test_a_forged_checkpoint_or_proof_is_refused(tmp_path: Path, reader: Reader) -> None:
    forged = replace(REPORT, before=REPORT.before.replace("\n0\n", "\n7\n", 1))
    refused(checked(reader, write_drill(tmp_path, forged)), "not signed by its log")
    path = write_drill(tmp_path, REPORT, logged_at=REPORT.ended)
    proof = proof_path(path).read_bytes()
    write_drill(tmp_path, replace(REPORT, fallback=2))
    proof_path(path).write_bytes(proof)
    refused(checked(reader, path), "does not lead to its checkpoint")
