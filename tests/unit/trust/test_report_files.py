"""Report files: written by `verify`, signed, checked offline, and for which signers they count."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from comity.trust.errors import ComityError, Malformed, PolicyNotMet, Untrusted
from comity.trust.policy import ROWS
from comity.trust.report import VerdictReport
from comity.verifier import main as verifier
from comity_cli.main import command
from comity_client.client import Client
from comity_client.home import Home
from comity_client.publishers import change_keys
from comity_client.reports import read_signed
from comity_client.signature_files import signature_path
from support.case import case
from support.world import identity

GOOD = case()
LABEL = "Security desk"


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    made = Client(Home.default())
    made.new_publisher(LABEL, "ES", "node-es.example/log")
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return GOOD.write(tmp_path / "copy")


def comity(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(each) for each in arguments])


def run(folder: Path, *more: str | Path) -> Result:
    return comity("verify", folder, "--policy", folder.parent / "policy.toml", *more)


@pytest.fixture
def report(api: Client, folder: Path) -> Path:
    file = folder.parent / "r.json"
    ran = run(folder, "--report", file, "--html", folder.parent / "r.html", "--sign-as", LABEL)
    assert ran.exception is None, ran.output
    return file


def test_a_report_is_signed_and_checked_by_others(api: Client, report: Path) -> None:
    checked = api.check_report(report)
    assert checked.known_as == f"your own identity {LABEL}"
    assert checked.signed.verified.passed
    assert checked.signed.report == VerdictReport.parse(report.read_bytes())
    assert LABEL in (report.parent / "r.html").read_text("utf-8")
    assert signature_path(report).name == "r.json.intoto.jsonl"


def test_a_report_has_no_time_and_both_programs_write_the_same_bytes(report: Path, folder: Path) -> None:
    again, other = folder.parent / "again.json", folder.parent / "other.json"
    run(folder, "--report", again)
    verifier([str(folder), "--policy", str(folder.parent / "policy.toml"), "--report", str(other)])
    assert report.read_bytes() == again.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: data.replace(b'"state":"unknown"', b'"state":"pass"', 1), "another report"),
        (lambda data: data.replace(b'"exit_status":0', b'"exit_status":00'), "not JSON"),
        (lambda data: data + b"\n", "canonical"),
    ],
)
def test_a_report_that_was_changed_is_refused(
    api: Client, report: Path, change: Callable[[bytes], bytes], why: str
) -> None:
    report.write_bytes(change(report.read_bytes()))
    with pytest.raises(ComityError, match=why) as caught:
        api.check_report(report)
    assert caught.value.exit_status == 3


def test_a_signature_of_an_unknown_identity_does_not_count(api: Client, report: Path, tmp_path: Path) -> None:
    elsewhere = Client(Home(tmp_path / "other"))
    signer = api.publisher(LABEL)
    with pytest.raises(PolicyNotMet) as caught:
        elsewhere.check_report(report)
    assert caught.value.code == "REPORT-SIGNER"
    assert elsewhere.check_report(report, by=signer.id[:16]).known_as == "the signer that you named"
    with pytest.raises(PolicyNotMet):
        elsewhere.check_report(report, by=identity("Somebody else").id)
    with pytest.raises(Malformed):
        elsewhere.check_report(report, by=signer.id[:8])
    elsewhere.bind("ministry", signer.id)
    assert elsewhere.check_report(report).known_as == "bound by you to ministry"


def test_keys_that_a_pinned_rotation_retired_sign_no_report(api: Client, report: Path) -> None:
    changed = change_keys(api.publisher(LABEL))
    api.pin_rotation(changed.id, changed.rotation or "")
    with pytest.raises(PolicyNotMet, match="rotation"):
        api.check_report(report)


@pytest.mark.parametrize("keep", [lambda lines: lines[1:], lambda lines: lines[:-1], lambda lines: [*lines, lines[-1]]])
def test_a_signature_without_its_signer_or_its_statement_is_refused(
    report: Path, keep: Callable[[list[bytes]], list[bytes]]
) -> None:
    path = signature_path(report)
    path.write_bytes(b"\n".join(keep(path.read_bytes().splitlines())) + b"\n")
    with pytest.raises((Malformed, Untrusted)):
        read_signed(report)


def test_an_officer_signs_a_refusal_too(api: Client, folder: Path) -> None:
    (folder / "config.json").write_bytes(b"{}")
    file = folder.parent / "refused.json"
    ran = run(folder, "--report", file, "--sign-as", LABEL)
    assert "NOT ACCEPTED (exit 3)" in ran.output
    signed = read_signed(file)
    assert not signed.verified.passed
    assert signed.report.verdict.exit_status == 3
    assert "FAILED, exit status 3" in comity("report", "check", file).output


def test_a_folder_without_a_manifest_is_reported_and_not_signed(api: Client, folder: Path) -> None:
    (folder / ".comity" / "manifest.json").unlink()
    file = folder.parent / "none.json"
    ran = run(folder, "--report", file, "--sign-as", LABEL)
    assert "NOT ACCEPTED (exit 5)" in ran.output
    assert "not signed" in ran.output
    assert VerdictReport.parse(file.read_bytes()).verdict.artifact is None
    assert not signature_path(file).exists()


@pytest.mark.parametrize(
    "more",
    [
        ["--sign-as", LABEL],
        ["--report", "r.json", "--log", "node-ch"],
        ["--report", "MODEL/r.json"],
        ["--html", "MODEL/deep/r.html"],
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_is_hashed(
    api: Client, folder: Path, more: list[str]
) -> None:
    ran = run(folder, *(each.replace("MODEL", str(folder)) for each in more))
    assert ran.exit_code == 2
    assert "Usage" in ran.output
    assert not list(folder.rglob("r.*"))


def test_json_has_all_paths(api: Client, folder: Path) -> None:
    file = folder.parent / "r.json"
    ran = run(folder, "--report", file, "--sign-as", LABEL, "--json")
    document = json.loads(ran.stdout)
    assert (document["report"], document["signature"]) == (str(file), str(signature_path(file)))
    assert (document["html"], document["logged"]) == (None, [])
    page = folder.parent / "r.html"
    checked = json.loads(comity("report", "check", file, "--html", page, "--json").stdout)
    assert checked["html"] == str(page)
    assert LABEL in page.read_text("utf-8")
    assert (checked["result"], checked["exit_status"]) == ("PASSED", 0)


def test_a_report_reads_back_with_a_note_that_it_was_not_checked(report: Path) -> None:
    ran = comity("report", "show", report, "--html", report.parent / "again.html")
    assert "ACCEPTED" in ran.output
    assert "not checked" in ran.output
    assert (report.parent / "again.html").read_text("utf-8").startswith("<!DOCTYPE html>")


def test_a_verdict_can_be_shown_as_text_on_a_page(api: Client, folder: Path) -> None:
    accepted = run(folder).output
    (folder / "config.json").write_bytes(b"{}")
    refused = run(folder).output
    for output in (accepted, refused):
        assert len(output.splitlines()) <= 30
        assert all(f"  {name} " in output for name in ROWS)
    assert "ACCEPTED: every row that your policy requires passes" in accepted
    assert "bytes: config.json" in refused.split("NOT ACCEPTED (exit 3)")[1]
    assert "Do not use these files" in refused
    assert "comity pull swiss-ai/tiny@v1 --out ELSEWHERE" in refused
    assert not {line.split()[0] for line in accepted.splitlines()[1:17]} - {"PASS", "FAIL", "UNKN", "----"}
