"""`comity continuity report`: what is checked of a drill report, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from comity.trust.encoding import sha256
from comity.trust.errors import PolicyNotMet, Untrusted
from comity.trust.exit_statuses import EVIDENCE_MISSING
from comity_cli.commands.continuity_report import check, show
from comity_client.signature_files import signature_path
from support.drill_reports import OFFICER, a_drill_report, a_failed_drill_report, write_drill
from support.run_command import printed, refused, run, said

REPORT = a_drill_report()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    return write_drill(tmp_path, REPORT)


def test_a_report_of_a_named_signer_is_valid(path: Path) -> None:
    text = said(check, path, "--by", OFFICER.id)
    assert "signed by Continuity desk" in text
    assert "the first verified answer after 7 s, the agreed quality after 8 s" in text
    assert "not logged: it may have been made later" in text


def test_the_document_says_what_is_proven_of_the_times(path: Path) -> None:
    document = printed(check, path, "--by", OFFICER.id, "--html", path.with_suffix(".html"))
    assert (document["passed"], document["answered"], document["quality"]) == (True, 7, 8)
    assert (document["begun_after"], document["logged"], document["logged_by"]) == (None, False, None)
    assert "PASSED" in path.with_suffix(".html").read_text("utf-8")


def test_times_that_must_be_proven_and_are_not_are_missing_evidence(path: Path) -> None:
    assert run(check, path, "--by", OFFICER.id, "--proven-times").exit_code == EVIDENCE_MISSING


def test_a_signer_whom_nobody_knows_here_does_not_count(path: Path) -> None:
    error = refused(check, path)
    assert isinstance(error, PolicyNotMet) and error.code == "REPORT-SIGNER"


def test_a_report_about_another_plan_or_kit_is_refused(path: Path) -> None:
    plan = path.with_name("plan.toml")
    plan.write_bytes(b"plan")
    assert "signed by" in said(check, path, "--by", OFFICER.id, "--plan", plan, "--kit", REPORT.kit_artifact)
    plan.write_bytes(b"another plan")
    for words in (("--plan", plan), ("--kit", sha256(b"another kit"))):
        error = refused(check, path, "--by", OFFICER.id, *words)
        assert isinstance(error, Untrusted) and error.code == "DRILL-SUBJECT"


def test_a_signature_that_was_put_beside_another_report_is_refused(path: Path, tmp_path: Path) -> None:
    signature = signature_path(path).read_bytes()
    write_drill(tmp_path, replace(REPORT, plan=sha256(b"another plan")))
    signature_path(path).write_bytes(signature)
    error = refused(check, path, "--by", OFFICER.id)
    assert isinstance(error, Untrusted) and error.code == "DRILL-REPORT"


def test_a_correctly_signed_report_of_a_failed_drill_is_valid(path: Path, tmp_path: Path) -> None:
    write_drill(tmp_path, a_failed_drill_report())
    assert "FAILED at check-failed: the last check of the kit failed: it ended at once" in said(
        check, path, "--by", OFFICER.id
    )


def test_a_report_is_shown_without_a_check(path: Path) -> None:
    signature_path(path).unlink()
    result = run(show, path, "--html", path.with_suffix(".html"))
    assert "signature was not checked" in result.output and "self-test" in result.output
    assert printed(show, path)["report"]["service"] == "chat"
