"""`comity approve`: what is shown before it is signed, for which days, and who may sign."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from comity_cli.commands.approve import command
from comity_client.client import Client
from comity_client.home import Home
from support.case import case
from support.run_command import printed, refused, run, said

GOOD = case()


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An artifact with its pack; the user is one officer, Anna."""
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    Client(Home(tmp_path / "home")).new_publisher("Anna", "CH", "")
    return GOOD.write(tmp_path)


def words(folder: Path, *more: object, until: str = "2027-03-31") -> tuple[object, ...]:
    return (folder, "--scope", "hospital-bern", "--until", until, "--from", "2026-11-01", *more)


def claims(folder: Path) -> list[bytes]:
    return (folder / ".comity" / "statements.jsonl").read_bytes().splitlines()


def test_an_approval_of_a_folder_is_added_to_its_pack(folder: Path) -> None:
    before = claims(folder)
    document = printed(command, *words(folder, "--yes"))
    assert (document["artifact"], document["folder"], document["file"], document["logged"]) == (
        GOOD.artifact, str(folder), None, [],
    )  # fmt: skip
    assert len(document["statements"]) == 1 and set(before) < set(claims(folder))


def test_all_that_is_signed_is_shown_before_the_question(folder: Path, tmp_path: Path) -> None:
    ward = tmp_path / "ward.txt"
    ward.write_text("only in the ward\n")
    before = claims(folder)
    declined = run(command, *words(folder, "--conditions", ward), answer="n\n")
    text = " ".join(declined.output.split())
    assert declined.exit_code != 0 and claims(folder) == before
    shown = text[: text.index("Sign this?")]
    for part in ("Anna approves", "for hospital-bern", f"sha256:{GOOD.artifact}", "under ward.txt"):
        assert part in shown
    assert "from 2026-11-01T00:00:00Z until 2027-03-31T23:59:59Z" in shown


@pytest.mark.parametrize(
    ("until", "end"),
    [("2027-03-31", "2027-03-31T23:59:59Z"), ("2027-03-31T12:00:00Z", "2027-03-31T12:00:00Z")],
)
def test_a_day_ends_with_its_last_second_and_a_time_at_once(folder: Path, until: str, end: str) -> None:
    assert f"until {end}" in said(command, *words(folder, "--yes", until=until))


def test_the_first_day_is_today_if_none_is_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_795_000_000.0)
    text = said(command, folder, "--scope", "hospital-bern", "--until", "2026-11-18", "--yes")
    assert "from 2026-11-18T00:00:00Z until 2026-11-18T23:59:59Z" in text


@pytest.mark.parametrize("until", ["2026-10-31", "2026-11-01T00:00:00Z", "tomorrow", "", "2027-13-01"])
def test_a_span_that_is_none_is_refused(folder: Path, until: str) -> None:
    before = claims(folder)
    result = run(command, *words(folder, "--yes", until=until))
    assert result.exit_code != 0 and claims(folder) == before


def test_a_file_to_carry_is_named_with_the_next_step(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "anna.intoto.jsonl"
    text = said(command, *words(folder, "--out", out, "--yes"))
    assert f"comity approvals add {out} DIR" in text and set(out.read_bytes().splitlines()) <= set(claims(folder))
    assert "approvals add" not in said(command, *words(folder, "--yes"))


def test_the_signer_is_named_where_there_are_several_or_none(folder: Path, tmp_path: Path) -> None:
    assert run(command, *words(folder, "--key", folder / "LICENSE", "--yes")).exit_code == 2  # of no member
    Client(Home(tmp_path / "home")).new_publisher("Ben", "CH", "")
    refused(command, *words(folder, "--yes"))
    assert "Ben approves" in said(command, *words(folder, "--publisher", "Ben", "--yes"))


def test_changed_bytes_are_not_approved(folder: Path) -> None:
    (folder / "LICENSE").write_bytes(b"changed")
    before = claims(folder)
    assert run(command, *words(folder, "--yes")).exit_code != 0 and claims(folder) == before


def test_a_question_needs_somebody_to_answer(folder: Path) -> None:
    assert run(command, *words(folder, "--json")).exit_code == 2
