"""`comity approvals`: listed with their state at a time, ended by their officer alone, carried between packs."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity_cli.commands.approvals import command
from comity_cli.commands.approve import command as approve
from comity_client.client import Client
from comity_client.home import Home
from support.case import case
from support.run_command import printed, refused, run, said

GOOD = case()


class Scene:
    """An artifact that Anna approved until the end of March; Ben is another officer."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder, self.policy = root, GOOD.write(root), root / "policy.toml"
        api = Client(Home(root / "home"))
        officers = "".join(f'{name} = "{api.new_publisher(name, "CH", "").id}"\n' for name in ("Anna", "Ben"))
        text = f'[approvals]\nscope = "bern"\nat_least = 1\n[approvals.officers]\n{officers}'
        self.policy.write_text(GOOD.policy_text + text)
        self.approve("Anna")

    def approve(self, who: str, *more: object) -> None:
        dates = ("--from", "2026-11-01", "--until", "2027-03-31")
        said(approve, self.folder, "--scope", "bern", *dates, "--publisher", who, "--yes", *more)

    def states(self, at: str, *more: object) -> list[tuple[str, str]]:
        found = printed(command, "ls", self.folder, "--policy", self.policy, "--at", at, *more)["approvals"]
        return [(each["officer"], each["state"]) for each in found]


@pytest.fixture(name="scene")
def _scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    return Scene(tmp_path)


@pytest.mark.parametrize(
    ("at", "in_force"),
    [
        ("2026-10-31T23:59:59Z", False),
        ("2026-11-01", True),
        ("2027-03-31T23:59:59Z", True),
        ("2027-04-01", False),
    ],
)
def test_an_approval_is_in_force_from_its_first_to_its_last_second(scene: Scene, at: str, in_force: bool) -> None:
    ((officer, state),) = scene.states(at)
    assert officer == "Anna" and (state == "in force") == in_force


def test_an_approval_is_shown_with_all_that_it_says(scene: Scene) -> None:
    (item,) = printed(command, "ls", scene.folder, "--policy", scene.policy, "--at", "2027-01-01")["approvals"]
    assert (item["artifact"], item["scope"], item["from"], item["until"]) == (
        GOOD.artifact, "bern", "2026-11-01T00:00:00Z", "2027-03-31T23:59:59Z",
    )  # fmt: skip
    assert item["ended_from"] is None and item["conditions"] is None
    text = said(command, "ls", scene.folder, "--policy", scene.policy, "--at", "2027-01-01")
    assert text.startswith("At 2027-01-01T00:00:00Z:") and "Anna" in text and "in force" in text
    assert "by the clock of this machine" in said(command, "ls", scene.folder, "--policy", scene.policy)


@pytest.mark.parametrize(("days", "found"), [("90d", 1), ("89d", 0), ("0d", 0)])
def test_those_that_run_out_are_listed_to_the_day(scene: Scene, days: str, found: int) -> None:
    assert len(scene.states("2026-12-31T23:59:59Z", "--runs-out", days)) == found
    assert scene.states("2027-04-01", "--runs-out", days) == []  # it has run out


@pytest.mark.parametrize("days", ["30", "d", "-1d", "1w", "123456d", "30d "])
def test_days_are_a_number_and_a_letter(scene: Scene, days: str) -> None:
    assert run(command, "ls", scene.folder, "--policy", scene.policy, "--runs-out", days).exit_code == 2


def test_none_is_said_of_a_folder(scene: Scene, tmp_path: Path) -> None:
    other = GOOD.write(tmp_path / "other")
    text = said(command, "ls", other, "--policy", scene.policy)
    assert text.endswith("None here.") and printed(command, "ls", other, "--policy", scene.policy)["approvals"] == []


def test_a_policy_without_officers_is_refused(scene: Scene, tmp_path: Path) -> None:
    scene.policy.write_text(GOOD.policy_text)
    assert refused(command, "ls", scene.folder, "--policy", scene.policy).code == "NO-OFFICERS"


def end(scene: Scene, who: str, *more: object) -> tuple[object, ...]:
    return ("end", scene.folder, "--scope", "bern", "--from", "2027-01-15", "--publisher", who, *more)


def test_an_officer_ends_its_own_approval(scene: Scene) -> None:
    declined = run(command, *end(scene, "Anna"), answer="n\n")
    assert declined.exit_code != 0 and "ends the approval" in declined.output
    assert scene.states("2027-02-01") == [("Anna", "in force")]
    assert refused(command, *end(scene, "Ben", "--yes")).code == "NO-APPROVAL"
    said(command, *end(scene, "Anna", "--yes"))
    assert scene.states("2027-01-14") == [("Anna", "in force")]
    ((_, state),) = scene.states("2027-01-15")
    assert state != "in force"


def test_carried_approvals_are_added_once(scene: Scene, tmp_path: Path) -> None:
    file, other = tmp_path / "ben.jsonl", GOOD.write(tmp_path / "other")
    scene.approve("Ben", "--out", file)
    document = printed(command, "add", file, other)
    assert document["folder"] == str(other) and document["lines"] > 0
    assert printed(command, "add", file, other)["lines"] == 0
    assert "their signatures were not checked" in said(command, "add", file, other)
    found = printed(command, "ls", other, "--policy", scene.policy, "--at", "2027-01-01")["approvals"]
    assert [each["officer"] for each in found] == ["Ben"]


@pytest.mark.parametrize("data", [b"no lines", b"{}\n", b"\xff\n"])
def test_a_file_without_approvals_is_refused(scene: Scene, tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "x.jsonl"
    file.write_bytes(data)
    before = (scene.folder / ".comity" / "statements.jsonl").read_bytes()
    refused(command, "add", file, scene.folder)
    assert (scene.folder / ".comity" / "statements.jsonl").read_bytes() == before
