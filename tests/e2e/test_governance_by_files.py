"""The members of a federation change its charter by carried files only: each command is a process of its own,
`--offline`.

No process listens here, and no two machines share a folder: each reads its copy of a USB stick, and writes into a
folder of its own that is copied onto the stick afterwards.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.officers import Document, Officer, together

pytestmark = pytest.mark.slow

CODES = ("CH", "ES", "KR", "SG")


@dataclass(frozen=True)
class OfflineOfficer(Officer):
    """An officer with a stick, and a folder for the files that go onto it."""

    stick: Path = Path()

    @property
    def name(self) -> str:
        return f"Institute {self.home.name}"

    def sign(self, *arguments: str | Path) -> Document:
        """A command that signs, with the files of the stick."""
        return self.act(*arguments, *self._carried(), "--out", self.pins / "out")

    def look(self, *arguments: str | Path) -> Document:
        return self.comity(*arguments, *self._carried())

    def _carried(self) -> tuple[str | Path, ...]:
        (self.stick / "lines").mkdir(parents=True, exist_ok=True)
        return "--offline", "--from", self.stick


@dataclass(frozen=True)
class OfflineMembers:
    """Members that exchange carried files only."""

    root: Path
    staff: tuple[OfflineOfficer, ...]

    @property
    def federation(self) -> Path:
        return self.root / "federation.json"

    def carry(self, *more: OfflineOfficer) -> None:
        """Carry the stick to every member, twice."""
        everybody = (*self.staff, *more)
        for source in everybody:
            for target in everybody:
                if (source.pins / "out").is_dir():
                    shutil.copytree(source.pins / "out", target.stick, dirs_exist_ok=True)

    def all_sign(self, staff: Sequence[OfflineOfficer], *arguments: str) -> list[Document]:
        signed = together(lambda one: one.sign(*arguments), staff)
        self.carry()
        return signed

    def decide(self, voters: Sequence[OfflineOfficer], draft: str, *options: str) -> int:
        self.carry()
        for _ in ("intent", "ratify"):
            self.all_sign(voters, "proposal", "approve", draft[:12], *options)
        return int(voters[0].look("proposal", "ls")["epoch"])


def each_officer(root: Path, code: str, *shape: str) -> OfflineOfficer:
    made = OfflineOfficer(root / code, root / f"at-{code}", stick=root / f"at-{code}" / "stick")
    made.comity("init", "--jurisdiction", code, "--org", made.name, "--name", f"node-{code.lower()}", *shape,
                "--dir", made.home)  # fmt: skip
    return made


@pytest.fixture(scope="module", name="founded")
def _founded(tmp_path_factory: pytest.TempPathFactory) -> OfflineMembers:
    """Four members, founded by files; the last one decides by two of three keys."""
    root = tmp_path_factory.mktemp("offline")
    shape = {"SG": ("--governance-keys", "3")}
    staff = tuple(each_officer(root, code, *shape.get(code, ())) for code in CODES)
    genesis, federation = root / "genesis.json", root / "federation.json"
    found(staff, genesis, federation)
    together(lambda one: one.comity("trust", "pin", federation, "--yes"), staff)
    return OfflineMembers(root, staff)


def found(staff: Sequence[OfflineOfficer], genesis: Path, federation: Path, *draft: str | Path) -> Document:
    """Draft, or the body in `draft` instead; consent; seal."""
    cards = [one.card for one in staff]
    drafted = staff[0].comity(*(draft or ("found", "draft")), *cards, "--out", genesis)
    lines = [one.pins / f"{genesis.stem}.line" for one in staff]
    for one, line in zip(staff, lines, strict=True):
        one.pins.mkdir(exist_ok=True)
        one.act("found", "consent", genesis, "--out", line)
    staff[0].comity("found", "seal", genesis, *lines, *cards, "--out", federation)
    return drafted


@pytest.fixture(name="offline")
def _offline_members(tmp_path: Path, founded: OfflineMembers) -> OfflineMembers:
    """The founders; each test has copies of its own."""
    root = tmp_path / "offline"
    shutil.copytree(founded.root, root)
    staff = (OfflineOfficer(root / c, root / f"at-{c}", stick=root / f"at-{c}" / "stick") for c in CODES)
    return OfflineMembers(root, tuple(staff))


def test_a_fifth_member_joins_changes_its_key_asks_to_leave_and_is_left_out(offline: OfflineMembers) -> None:
    first, second, third, _ = offline.staff
    fifth = each_officer(offline.root, "BR")
    fifth.comity("trust", "pin", offline.federation, "--yes")
    draft = first.sign("proposal", "new", "admit", fifth.card, "--text", "they mirror us")["subject"]
    offline.carry(fifth)
    fifth.sign("proposal", "consent", draft[:12])
    offline.carry(fifth)
    assert offline.decide((first, second, third), draft) == 1
    offline.carry(fifth)
    assert [seat["name"] for seat in fifth.look("member", "ls")["members"]].count("Institute BR") == 1

    fifth.sign("keys", "rotate")
    (key,) = fifth.look("keys", "show", "--dir", fifth.home)["keys"]
    offline.carry(fifth)
    draft = second.sign("proposal", "new", "rekey", "Institute BR")["subject"]
    offline.carry(fifth)
    voters = (first, second, third, fifth)  # four of five, and the new key is one of them
    for _ in ("intent", "ratify"):
        together(lambda one: one.sign("proposal", "approve", draft[:12]), voters)
        offline.carry(fifth)
    shown = first.look("member", "show", "Institute BR")
    assert (first.look("proposal", "ls")["epoch"], shown["keys"]) == (2, [key["id"]])

    fifth.sign("leave", "--text", "our mandate ends")
    offline.carry(fifth)
    assert [seat["name"] for seat in third.look("member", "ls")["members"] if seat["asks_to_leave"]] == ["Institute BR"]
    draft = third.sign("proposal", "new", "remove", "Institute BR")["subject"]
    offline.carry(fifth)
    for _ in ("intent", "ratify"):
        together(lambda one: one.sign("proposal", "approve", draft[:12]), voters)
        offline.carry(fifth)
    assert len(first.look("member", "ls")["members"]) == 4


def test_two_machines_of_one_member_share_nothing_but_the_carried_file(offline: OfflineMembers, tmp_path: Path) -> None:
    first, second, third, several = offline.staff
    draft = first.sign("proposal", "new", "policy", "min_copies=2")["subject"]
    offline.carry()
    keys, other = several.home / "offline", Officer(tmp_path / "vault", tmp_path / "vault" / "pins")
    other.home.mkdir()
    for suffix in ("pem", "votes"):  # the second key is on another machine
        shutil.move(keys / f"governance-2.{suffix}", other.home / f"governance-2.{suffix}")
    (keys / "governance-3.pem").unlink()

    for what in ("INTENT", "RATIFY"):
        half = several.sign("proposal", "approve", draft[:12])
        assert (half["schema"], half["complete"]) == ("comity.dev/ceremony/v1", False)
        carried = other.home / "carried.json"
        shutil.move(half["file"], carried)
        shown = other.run("keys", "sign", carried, "--key", other.home / "governance-2.pem", answer="n\n")
        assert (shown.returncode, what in shown.stdout) == (130, True)
        full = other.comity("keys", "sign", carried, "--key", other.home / "governance-2.pem", "--yes")
        assert (full["complete"], full["missing"]) == (True, [])
        several.comity("keys", "sign", carried, "--from", several.stick, "--out", several.pins / "out")
        offline.all_sign((second, third), "proposal", "approve", draft[:12])
    assert first.look("proposal", "ls")["epoch"] == 1


def test_a_split_vote_is_decided_in_the_second_round_and_the_losing_draft_is_rebased(offline: OfflineMembers) -> None:
    voters = offline.staff[:3]
    ours, theirs = (
        one.sign("proposal", "new", "namespace", f"{name}={'5' * 64}")["subject"]
        for one, name in zip(voters, ("ours", "theirs"), strict=False)
    )
    offline.carry()
    wanted: dict[Officer, str] = {voters[0]: ours, voters[1]: theirs, voters[2]: theirs}
    together(lambda one: one.sign("proposal", "approve", wanted[one][:12]), voters)
    offline.carry()
    (leading,) = {turn["body"] for turn in voters[0].look("proposal", "ls")["next"] if turn["round"] == 2}
    assert offline.decide(voters, leading, "--stalled") == 1
    lost = ours if leading == theirs else theirs
    again = voters[0].sign("proposal", "rebase", lost[:12])
    assert offline.decide(voters, again["subject"]) == 2


def test_two_carried_lines_prove_that_a_member_voted_twice(offline: OfflineMembers, tmp_path: Path) -> None:
    first, second, liar, _ = offline.staff
    drafts = [
        one.sign("proposal", "new", "policy", f"min_copies={n}")["subject"] for n, one in ((1, first), (2, second))
    ]
    offline.carry()
    copied = OfflineOfficer(tmp_path / liar.home.name, tmp_path / "desk", stick=tmp_path / "desk" / "stick")
    shutil.copytree(liar.home, copied.home, ignore=shutil.ignore_patterns("*.votes"))
    shutil.copytree(liar.pins, copied.pins)
    liar.sign("proposal", "approve", drafts[0][:12])
    assert "vote state is lost" in copied.sign("proposal", "approve", drafts[1][:12])["why"]
    forget(copied)
    copied.sign("proposal", "approve", drafts[1][:12])
    offline.carry(copied)
    for one in (first, second):
        assert [lie["kind"] for lie in one.look("proposal", "ls")["lies"]] == ["intents"]
        assert "CONFLICTING VOTES" in " ".join(one.run("member", "ls", "--offline", "--from", one.stick).stdout.split())


def forget(copied: OfflineOfficer) -> None:
    """Make a vote file that says that this key never signed anything: no command of Comity does this."""
    (key,) = copied.look("keys", "show", "--dir", copied.home)["keys"]
    votes = Path(key["path"]).with_suffix(".votes")
    votes.write_text(json.dumps({"key": key["id"], "schema": "comity/votes/v1"}, separators=(",", ":")) + "\n")
    votes.chmod(0o600)


def test_a_federation_is_founded_again_by_files_and_each_owner_opts_in(offline: OfflineMembers) -> None:
    left = offline.staff[:2]
    genesis, successor = offline.root / "genesis-2.json", offline.root / "successor.json"
    drafted = found(left, genesis, successor, "refound", "--offline")
    assert drafted["predecessor"] == left[0].look("proposal", "ls")["body"]
    left[0].comity("trust", "pin", successor, "--yes")
    assert len({pin["federation"] for pin in left[0].comity("trust", "show")["pins"]}) == 2
    assert len(left[1].comity("trust", "show")["pins"]) == 1
