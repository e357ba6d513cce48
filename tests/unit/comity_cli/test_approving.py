"""Three officers approve one model by carried files, end to end through the commands, without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.trust.evidence import PACK
from comity.verifier import main as verifier
from comity_cli.main import command
from comity_cli.output import Output
from comity_client.client import Client
from comity_client.evidence.approvals import CarriedApprovals
from comity_client.home import Home
from support.approvals import AS_OF, DAY
from support.case import Case, case

GOOD: Case = case()
NAMES = ("Anna", "Ben", "Carla")
UNTIL = "2027-03-31"
WARD = "only in the ward\n"


class Officers:
    """A folder with the copy, the owner's policy that names three officers, and the home of each officer."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.copy, self.policy = folder, GOOD.write(folder), folder / "policy.toml"
        self.ids = {name: self.home(name).new_publisher(name, "CH", "").id for name in NAMES}
        text = '[approvals]\nscope = "hospital-bern"\nat_least = 2\nfour_eyes = true\nconditions = true\n'
        text += "[approvals.officers]\n" + "".join(f'{name} = "{who}"\n' for name, who in self.ids.items())
        self.policy.write_text(GOOD.policy_text + text, "utf-8")
        self.ward = folder / "ward.txt"
        self.ward.write_text(WARD, "utf-8")

    def home(self, name: str) -> Client:
        return Client(Home(self.folder / name))

    def run(self, name: str, *arguments: str | Path, as_json: bool = False) -> Any:
        env = {"COMITY_HOME": str(self.folder / name)}
        ran = CliRunner(env=env).invoke(
            command, list(map(str, arguments)), obj=Output(as_json=as_json), standalone_mode=False
        )
        if isinstance(ran.exception, ComityError):
            raise ran.exception
        assert ran.exception is None, ran.exception
        return ran

    def approve(self, name: str, *more: str | Path) -> Any:
        given = ("--scope", "hospital-bern", "--until", UNTIL, "--from", "2026-11-01", "--conditions", self.ward)
        return self.run(name, "approve", self.copy, *given, "--yes", *more)

    def verify(self, *more: str | Path) -> int:
        return int(self.run("Anna", "verify", self.copy, "--policy", self.policy, *more).return_value)

    def verdict(self) -> Any:
        return json.loads(self.run("Anna", "verify", self.copy, "--policy", self.policy, as_json=True).output)


@pytest.fixture
def officers(tmp_path: Path) -> Officers:
    return Officers(tmp_path)


def test_one_of_two_is_refused_and_two_of_two_pass_by_carried_files(officers: Officers) -> None:
    assert officers.verify() == 4
    officers.approve("Anna")
    assert officers.verify() == 4
    there = officers.folder / "ben.intoto.jsonl"
    second = GOOD.write(officers.folder / "elsewhere")
    ran = officers.run(
        "Ben", "approve", second, "--scope", "hospital-bern", "--until", UNTIL, "--from", "2026-11-01",
        "--conditions", officers.ward, "--out", there, "--yes",
    )  # fmt: skip
    assert f"comity approvals add {there} DIR" in ran.output
    officers.run("Anna", "approvals", "add", there, officers.copy)
    assert officers.verify() == 0
    assert verifier([str(officers.copy), "--policy", str(officers.policy)]) == 0
    row = next(row for row in officers.verdict()["rows"] if row["row"] == "approvals")
    assert row["summary"] == "2 of 2 required for hospital-bern: Anna, Ben; until 2027-03-31T23:59:59Z"


def test_the_next_steps_after_a_refusal_can_be_pasted(officers: Officers) -> None:
    shown = officers.run("Anna", "verify", officers.copy, "--policy", officers.policy).output
    steps = [line.removeprefix("Next: ") for line in shown.splitlines() if line.startswith("Next: ")]
    assert steps == [
        f"comity approvals ls {officers.copy} --policy {officers.policy}",
        f"comity policy explain {officers.policy}",
    ]
    assert officers.run("Anna", *steps[0].split()[1:]).exit_code == 0
    assert officers.run("Anna", *steps[1].split()[1:]).exit_code == 0


def test_an_ended_one_is_refused_from_the_date_of_the_policy_on(officers: Officers) -> None:
    officers.approve("Anna")
    officers.approve("Ben")
    end = ("approvals", "end", officers.copy, "--scope", "hospital-bern", "--yes")
    officers.run("Ben", *end, "--from", "2026-11-25")
    assert officers.verify() == 0, "the policy is of the 24th"
    text = officers.policy.read_text("utf-8")
    officers.policy.write_text(text.replace("as_of = 2026-11-24", "as_of = 2026-11-25"), "utf-8")
    assert officers.verify() == 4
    with pytest.raises(NotFound) as nothing:
        officers.run("Carla", *end)
    assert nothing.value.code == "NO-APPROVAL"
    officers.approve("Carla")
    assert officers.verify() == 0


def test_the_filed_report_shows_approvals_with_basis_and_digest(officers: Officers) -> None:
    officers.approve("Anna")
    officers.approve("Ben")
    report, page = officers.folder / "evidence.json", officers.folder / "evidence.html"
    assert officers.verify("--report", report, "--html", page) == 0
    row = next(row for row in json.loads(report.read_bytes())["rows"] if row["row"] == "approvals")
    facts = {(fact["basis"], fact["evidence"]) for fact in row["facts"]}
    lines = {sha256(line) for line in (officers.copy / PACK / "statements.jsonl").read_bytes().splitlines()}
    assert {evidence for basis, evidence in facts if basis == "verified here"} <= lines | {sha256(WARD.encode())}
    assert ("stale or absent", None) in facts, "Carla has not approved"
    assert sha256(WARD.encode()) in {evidence for _, evidence in facts}
    shown = officers.run("Anna", "report", "show", report, "--facts").output
    for text in (shown, page.read_text("utf-8")):
        assert "Anna approved it for hospital-bern" in " ".join(text.split())
    assert "Who approved its use?" in page.read_text("utf-8")


def test_a_list_names_approvals_that_expire_soon(officers: Officers) -> None:
    officers.approve("Anna")
    officers.run(
        "Ben", "approve", officers.copy, "--scope", "hospital-bern", "--until", "2026-12-10", "--from", "2026-11-01",
        "--yes",
    )  # fmt: skip
    listing = ("approvals", "ls", officers.copy, "--policy", officers.policy, "--at", "2026-11-24")
    whole = json.loads(officers.run("Anna", *listing, as_json=True).output)["approvals"]
    assert [(each["officer"], each["state"]) for each in whole] == [("Ben", "in force"), ("Anna", "in force")]
    assert whole[1]["conditions"] == {"name": "ward.txt", "sha256": sha256(WARD.encode())}
    soon = json.loads(officers.run("Anna", *listing, "--runs-out", "30d", as_json=True).output)["approvals"]
    assert [each["officer"] for each in soon] == ["Ben"]
    late = ("approvals", "ls", officers.copy, "--policy", officers.policy, "--at", "2026-12-11")
    assert [each["state"] for each in json.loads(officers.run("Anna", *late, as_json=True).output)["approvals"]] == [
        "ran out",
        "in force",
    ]


def test_a_text_that_no_approval_names_is_not_added(officers: Officers) -> None:
    out = officers.folder / "anna.intoto.jsonl"
    officers.approve("Anna", "--out", out)
    other = officers.folder / "other.txt"
    other.write_text("in every ward\n", "utf-8")
    with pytest.raises(Malformed) as refused:
        officers.run("Anna", "approvals", "add", out, officers.copy, "--conditions", other)
    assert refused.value.code == "CONDITIONS"


def test_adding_twice_adds_nothing_and_changes_no_line(officers: Officers) -> None:
    before = (officers.copy / PACK / "statements.jsonl").read_bytes()
    out = officers.folder / "anna.intoto.jsonl"
    officers.approve("Anna", "--out", out)
    once = (officers.copy / PACK / "statements.jsonl").read_bytes()
    assert once.startswith(before)
    assert officers.run("Anna", "approvals", "add", out, officers.copy).output.startswith("0 new lines")
    assert (officers.copy / PACK / "statements.jsonl").read_bytes() == once


def test_a_changed_folder_is_not_approved(officers: Officers) -> None:
    (officers.copy / "config.json").write_bytes(b"{}")
    with pytest.raises(ComityError):
        officers.approve("Anna")


def test_the_policy_is_explained_in_plain_words(officers: Officers) -> None:
    text = officers.run("Anna", "policy", "explain", officers.policy).output
    assert "At least 2 of these must approve the artifact for the scope hospital-bern: Anna, Ben, Carla." in text
    assert "does not count" in text


@pytest.mark.parametrize("data", [b"", b"\n", b"{}\n", GOOD.publication.line + b"\n", b"x\n" * 5_000])
def test_an_invalid_file_of_approvals_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        CarriedApprovals.parse(data)


def test_the_time_of_the_case_is_that_of_its_policy() -> None:
    assert GOOD.policy.freshness is not None
    assert GOOD.policy.freshness.as_of == AS_OF
    assert AS_OF % DAY == 0
    assert GOOD.artifact != Digest("")
