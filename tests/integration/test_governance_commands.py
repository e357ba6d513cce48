"""The commands about the charter, on one machine without a network: nothing is signed that was not shown and confirmed,
every refusal says what to do next, and `--json` prints one document with a schema.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.federation_file import Federation
from comity.trust.charter.document import Body
from comity.trust.encoding import Digest, syllables
from comity.trust.errors import Conflict
from comity.trust.places import Place
from comity.wire.charter import AskReceipt
from comity_cli.charter.context import CharterContext
from comity_cli.commands import join
from comity_cli.main import main
from comity_client.charter.drafts import draft_admission, draft_policy_change, draft_removal
from comity_client.charter.following import Following, LackedLine
from comity_client.charter.governance import GovernanceClient, OwnLines
from comity_client.charter.joining import JoinAnswer, card_of, extended_federation
from comity_client.charter.proposals import Plan, propose_plan, sign_plan, sign_plan_with_all, vote_plan
from comity_client.charter.state import (
    CharterMaterial,
    CharterState,
    DeliveredLine,
    GatheredVotes,
    federation_charter_state,
)
from comity_client.client import Client
from comity_client.founding import consent_to, draft_genesis, seal_federation
from comity_client.home import Home
from comity_client.node_card import NodeCard
from comity_client.node_home import NewNode, init_node, own_inception
from comity_client.signing.votes import find_keys
from support import command_lines

CODES = ("CH", "ES", "KR", "SG")
NEW = ("proposal", "new", "policy", "min_copies=1")
NO_DRAFT = "0" * 12


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        return dict(json.loads(self.out))

    @property
    def code(self) -> str:
        """The code of the error that was shown to a person."""
        return self.err.partition("[")[2].partition("]")[0]

    @property
    def advice(self) -> str:
        return self.err.partition("  try: ")[2].strip()


Comity = Callable[..., Ran]


@dataclass(frozen=True)
class SigningMachine:
    """One member's home, its pins, and a folder for the files that it carries away."""

    root: Path
    home: Path
    stick: Path

    @property
    def offline(self) -> tuple[str | Path, ...]:
        return "--offline", "--dir", self.home, "--out", self.stick

    def files(self) -> dict[str, bytes]:
        """All files except locks: a command that did nothing leaves them unchanged."""
        paths = (path for path in self.root.rglob("*") if path.is_file() and path.suffix != ".lock")
        return {str(path.relative_to(self.root)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module", name="founded")
def _founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four homes and the federation file of their founding."""
    root = tmp_path_factory.mktemp("founded")
    cards = [
        init_node(
            root / code,
            NewNode(
                jurisdiction=code,
                org=f"Institute {code}",
                node_name=f"node-{code.lower()}",
                mutual="127.0.0.1:7443",
                open_="127.0.0.1:7444",
            ),
        )
        for code in CODES
    ]
    body = draft_genesis(cards)
    federation = seal_federation(body, [consent_to(body, root / code) for code in CODES], cards)
    (root / "federation.json").write_bytes(federation.encode())
    return root


@pytest.fixture(name="machine")
def _machine(tmp_path: Path, founded: Path, monkeypatch: pytest.MonkeyPatch) -> SigningMachine:
    root = tmp_path / "machine"
    shutil.copytree(founded, root)
    monkeypatch.setenv("COMITY_HOME", str(root / "pins"))
    monkeypatch.chdir(tmp_path)
    Client(Home(root / "pins")).pin((root / "federation.json").read_bytes())
    return SigningMachine(root, root / "CH", tmp_path / "stick")


@pytest.fixture(name="comity")
def _comity(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Comity:
    def run(*arguments: str | Path, answer: str = "") -> Ran:
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ran(ended.value.code, said.out, said.err)

    return run


def drafted(comity: Comity, machine: SigningMachine) -> str:
    """A draft on the stick; the first digits of its id."""
    return str(comity(*NEW, *machine.offline, "--yes", "--json").document["subject"])[:12]


def deciding(comity: Comity, machine: SigningMachine) -> dict[str, tuple[str | Path, ...]]:
    """Every command that signs, as it is typed on a machine without a network."""
    draft, offline = drafted(comity, machine), (*machine.offline, "--from", machine.stick)
    return {
        "proposal new": (*NEW, *machine.offline),
        "proposal approve": ("proposal", "approve", draft, *offline),
        "proposal consent": ("proposal", "consent", draft, *offline),
        "proposal withdraw": ("proposal", "withdraw", draft, *offline),
        "leave": ("leave", *machine.offline),
        "keys rotate": ("keys", "rotate", *machine.offline),
        "keys place": ("keys", "place", "--cloud", "Example Cloud", "--reach", "US", *machine.offline),
    }


SIGNING = (
    "proposal new",
    "proposal approve",
    "proposal consent",
    "proposal withdraw",
    "leave",
    "keys rotate",
    "keys place",
)


@pytest.mark.parametrize("name", SIGNING)
def test_a_declined_question_leaves_no_signature_no_vote_and_no_file(
    comity: Comity, machine: SigningMachine, name: str
) -> None:
    command = deciding(comity, machine)[name]
    before = machine.files(), sorted(machine.stick.rglob("*"))
    declined = comity(*command, answer="n\n")
    assert declined.status == 130
    assert (machine.files(), sorted(machine.stick.rglob("*"))) == before
    assert any(word in declined.out for word in ("current charter", "new keys", "is its node")), "no plan on the screen"


@pytest.mark.parametrize("name", SIGNING)
def test_a_machine_signs_nothing_without_yes(comity: Comity, machine: SigningMachine, name: str) -> None:
    command = deciding(comity, machine)[name]
    before = machine.files(), sorted(machine.stick.rglob("*"))
    ran = comity(*command, "--json")
    assert ran.status == 2
    assert "--yes" in ran.document["error"]["what"] and ran.err == ""
    assert (machine.files(), sorted(machine.stick.rglob("*"))) == before


@pytest.mark.parametrize("name", SIGNING)
def test_with_yes_a_command_signs_and_prints_one_document_with_a_schema(
    comity: Comity, machine: SigningMachine, name: str
) -> None:
    command = deciding(comity, machine)[name]
    signed = comity(*command, "--json", "--yes").document
    assert signed["schema"] == "comity.dev/signed/v1"
    assert signed["complete"] and signed["where"] == str(machine.stick)
    assert (machine.stick / "lines" / f"{signed['line']}.line").exists()


def test_commands_that_only_read_print_one_document_with_a_schema(comity: Comity, machine: SigningMachine) -> None:
    draft, known = drafted(comity, machine), ("--offline", "--from", machine.stick, "--json")
    kinds = {
        ("proposal", "ls", *known): "proposals",
        ("proposal", "show", draft, *known): "proposal",
        ("proposal", "export", machine.root / "all", *known): "export",
        ("member", "ls", *known): "members",
        ("member", "show", "Institute KR", *known): "member",
        ("keys", "show", "--dir", machine.home, *known): "keys",
        ("trust", "show", "--json"): "trust",
        ("trust", "diff", machine.root / "federation.json", "--json"): "diff",
    }
    for command, kind in kinds.items():
        ran = comity(*command)
        assert (ran.status, ran.document["schema"]) == (0, f"comity.dev/{kind}/v1"), command


def test_every_output_fits_eighty_columns(
    comity: Comity, machine: SigningMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    draft, known = drafted(comity, machine), ("--offline", "--from", machine.stick)
    shown = [
        comity("proposal", "approve", draft, *machine.offline, "--from", machine.stick, answer="n\n"),
        comity("keys", "rotate", *machine.offline, answer="n\n"),
        comity("proposal", "ls", *known),
        comity("proposal", "show", draft, *known),
        comity("member", "ls", *known),
        comity("member", "show", "Institute KR", *known),
        comity("trust", "show"),
        comity("trust", "diff", machine.root / "federation.json"),
    ]
    lines = [line for ran in shown for line in (ran.out + ran.err).splitlines()]
    ours = [
        line for line in lines if str(machine.root) not in line and "[y/N]" not in line
    ]  # folders here have long names
    assert [line for line in ours if len(line) > 80] == []


def test_every_refusal_says_what_to_do_next(comity: Comity, machine: SigningMachine, tmp_path: Path) -> None:
    draft, offline = drafted(comity, machine), ("--offline", "--from", machine.stick)
    online, foreign = machine.home / "keys" / "online.pem", machine.root / "ES" / "offline" / "governance.pem"
    bare = tmp_path / "bare"
    shutil.copytree(machine.home, bare, ignore=shutil.ignore_patterns("offline"))
    refusals = {
        ("proposal", "approve", draft, *offline, "--dir", tmp_path): "NO-HOME",
        ("proposal", "approve", draft, *offline, "--dir", bare): "NO-KEY",
        ("keys", "show", "--offline", "--dir", tmp_path): "NO-HOME",
        (*NEW, "--offline", "--dir", machine.home): "NO-TARGET",
        ("keys", "rotate", "--offline", "--dir", machine.home): "NO-TARGET",
        ("proposal", "load", machine.stick, "--dir", machine.home): "NO-TARGET",
        ("proposal", "new", "admit", "nobody", *machine.offline): "NO-CARD",
        ("proposal", "approve", NO_DRAFT, *machine.offline): "NO-DRAFT",
        ("proposal", "show", NO_DRAFT, *offline): "NO-DRAFT",
        ("proposal", "rebase", NO_DRAFT, *machine.offline): "NO-DRAFT",
        ("proposal", "approve", draft, *machine.offline, *offline, "--key", online): "NO-SEAT",
        ("member", "ls", "--offline", "--federation", "f" * 8): "WHICH-FEDERATION",
        ("join", machine.root / "federation.json", "--dir", machine.home, "--words", "babad babad"): "OTHER-FEDERATION",
    }
    for command, code in refusals.items():
        ran = comity(*command, answer="y\n")
        assert (ran.code, bool(ran.advice)) == (code, True), (command, ran.err)
        assert ran.status not in (0, 2)
    assert (
        comity("proposal", "approve", draft, *machine.offline, *offline, "--key", foreign, answer="n\n").status == 130
    )


def test_a_line_without_a_destination_is_not_signed(comity: Comity, machine: SigningMachine) -> None:
    before = machine.files()
    for command in (NEW, ("leave",), ("keys", "rotate")):
        assert comity(*command, "--offline", "--dir", machine.home, "--yes").code == "NO-TARGET"
    assert machine.files() == before


def test_an_online_key_casts_no_vote_and_the_reason_is_shown(comity: Comity, machine: SigningMachine) -> None:
    draft, online = drafted(comity, machine), machine.home / "keys" / "online.pem"
    ran = comity("proposal", "approve", draft, *machine.offline, "--from", machine.stick, "--key", online, "--yes")
    assert ran.code == "NO-SEAT"
    assert "this key has no seat" in ran.err


def test_joining_pins_nothing_that_was_not_compared(
    comity: Comity, machine: SigningMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMITY_HOME", str(machine.root / "empty"))
    file, home = machine.root / "federation.json", ("--dir", machine.home)
    assert comity("join", file, *home, answer="n\n").status == 130
    assert comity("join", file, *home, "--json").status == 2
    assert comity("join", file, *home, "--words", "no such words", "--yes").code == "OTHER-FEDERATION"
    assert comity("trust", "show", "--json").document["pins"] == []


def test_a_founder_consents_only_to_a_charter_that_was_shown(
    comity: Comity, machine: SigningMachine, tmp_path: Path
) -> None:
    genesis, line = tmp_path / "genesis.json", tmp_path / "consent.line"
    comity("found", "draft", *(machine.root / code / "node-card.json" for code in CODES), "--out", genesis)
    consent = ("found", "consent", genesis, "--dir", machine.home, "--out", line)
    declined = comity(*consent, answer="n\n")
    assert (declined.status, line.exists()) == (130, False)
    assert "Institute KR" in declined.out
    assert (comity(*consent, "--json").status, line.exists()) == (2, False)
    assert comity(*consent, "--yes").status == 0


def test_the_turn_of_each_member_is_a_command_that_exists(comity: Comity, machine: SigningMachine) -> None:
    draft = drafted(comity, machine)
    for turn in comity("proposal", "show", draft, "--offline", "--from", machine.stick, "--json").document["next"]:
        command_lines.parse([*turn["command"].split()[1:], "--dir", str(machine.home)])


def test_a_second_machine_signs_a_ceremony_file_and_any_machine_submits_it(
    comity: Comity, machine: SigningMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "one machine"))
    where = ("--mutual", "127.0.0.1:7443", "--open", "127.0.0.1:7444", "--dir", machine.root / "FR")
    shape = ("--governance-keys", "3", "--jurisdiction", "FR", "--org", "Three", "--name", "node-fr")
    comity("init", *shape, *where)
    genesis, line = tmp_path / "genesis.json", tmp_path / "consent.line"
    card, keys = machine.root / "FR" / "node-card.json", machine.root / "FR" / "offline"
    comity("found", "draft", card, "--out", genesis)
    comity("found", "consent", genesis, "--dir", machine.root / "FR", "--out", line, "--yes")
    comity("found", "seal", genesis, line, card, "--out", tmp_path / "federation.json")
    comity("trust", "pin", tmp_path / "federation.json", "--yes")
    bound = ("proposal", "new", "namespace", f"tests={'1' * 64}")
    half = comity(*bound, "--offline", "--dir", machine.root / "FR", "--out", machine.stick,
                  "--key", keys / "governance-1.pem", "--yes", "--json").document  # fmt: skip
    assert (half["schema"], half["complete"]) == ("comity.dev/ceremony/v1", False)
    file = Path(half["file"])

    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "the other machine"))
    assert comity("keys", "sign", file).status == 2
    unsigned = file.read_bytes()
    declined = comity("keys", "sign", file, "--key", keys / "governance-2.pem", answer="n\n")
    assert (declined.status, file.read_bytes()) == (130, unsigned)
    assert "no federation is known here" in declined.err
    full = comity("keys", "sign", file, "--key", keys / "governance-2.pem", "--yes", "--json").document
    assert (full["complete"], full["missing"]) == (True, [])
    handed = comity("keys", "sign", file, "--out", machine.stick, "--json").document
    assert (machine.stick / "lines" / f"{handed['line']}.line").exists()


def test_a_member_declares_where_its_machines_are_and_its_card_says_so(comity: Comity, machine: SigningMachine) -> None:
    place = ("keys", "place", "--operator", "Example Hosting", "--cloud", "Example Cloud", "--reach", "US")
    ran = comity(*place, *machine.offline, "--yes")
    assert ran.status == 0, ran.err
    assert "CH, US" in ran.out
    declared = NodeCard.read(machine.home / "node-card.json").record.place
    assert declared == Place("Example Hosting", "Example Cloud", ("CH", "US"))
    assert comity(*place, "--reach", "Narnia", *machine.offline, "--yes").code == "BAD-JURISDICTION"


def test_an_empty_draft_is_refused_with_the_command_that_comes_first(comity: Comity, machine: SigningMachine) -> None:
    for kind in (("rekey", "Institute CH"), ("active", "Institute CH"), ("policy", "min_copies=3")):
        ran = comity("proposal", "new", *kind, *machine.offline, "--yes")
        assert (ran.status, ran.code) == (1, "NO-CHANGE"), ran.err
        assert "comity keys rotate" in ran.advice
    assert not machine.stick.exists()


def test_a_withdrawn_draft_is_shown_as_withdrawn_and_asks_for_no_votes(comity: Comity, machine: SigningMachine) -> None:
    draft, known = drafted(comity, machine), ("--offline", "--from", machine.stick)
    assert "Next" in comity("proposal", "ls", *known).out
    other = ("proposal", "withdraw", draft, "--dir", machine.root / "ES", *known, "--out", machine.stick, "--yes")
    assert comity(*other).code == "NOT-PROPOSED"
    assert comity("proposal", "withdraw", draft, *machine.offline, "--from", machine.stick, "--yes").status == 0
    listed = comity("proposal", "ls", *known)
    assert "withdrawn" in listed.out
    assert "Next" not in listed.out
    approved = comity("proposal", "approve", draft, *machine.offline, "--from", machine.stick, answer="n\n")
    assert "who proposed it withdrew it" in approved.err
    shown = comity("proposal", "show", draft, *known, "--json").document
    assert (shown["withdrawn"], shown["changes_nothing"]) == (True, False)


class FollowedFederation:
    """What `join` and `keys rotate` read from the nodes: the newest charter, and that a request is waiting."""

    def __init__(self, machine: SigningMachine, current: Body, state: CharterState | None = None) -> None:
        self.federation = Federation.parse((machine.root / "federation.json").read_bytes())
        self.asked = 0
        claimed = SimpleNamespace(body=current, lines=())
        tally = SimpleNamespace(epochs=[claimed], drafts=(), stopped=False)
        self.charter_state = state or SimpleNamespace(current=current, tally=tally)

        self.ahead = False
        """Whether no node follows the newest charter yet."""

    def newest_federation(self, charter_state: CharterState) -> Federation:
        return extended_federation(self.federation, charter_state)

    def following(self, charter_state: CharterState) -> Following:
        current = charter_state.current
        return Following(current, self.federation.body if self.ahead else current, (), 3)

    def lacked(self, charter_state: CharterState, own: CharterMaterial) -> list[LackedLine]:
        return []

    def deliver_lacked(self, charter_state: CharterState, own: CharterMaterial) -> dict[str, list[DeliveredLine]]:
        return {}

    def from_own_node(self, socket: Path, member: Digest) -> CharterMaterial:
        return CharterMaterial()

    def ask(self, home: Path) -> JoinAnswer:
        self.asked += 1
        return JoinAnswer(card_of(home).inception.id, (("node-es", cast(AskReceipt, None)),), ())

    def context(self, **options: Any) -> CharterContext:
        made = CharterContext(**options)
        made.__dict__.update(governance=self, charter_state=self.charter_state)
        return made


def followed(machine: SigningMachine, change: Callable[[Body, Digest], Body]) -> FollowedFederation:
    current = Federation.parse((machine.root / "federation.json").read_bytes()).body
    return FollowedFederation(machine, change(current, card_of(machine.home).inception.id))


def test_a_member_that_left_asks_for_admission_only_when_a_person_agrees(
    comity: Comity, machine: SigningMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = followed(machine, draft_removal)
    monkeypatch.setattr(join, "CharterContext", federation.context)
    declined = comity("join", "--node", machine.home, answer="n\n")
    assert (declined.status, federation.asked) == (130, 0)
    assert "was a member up to epoch 0" in declined.out
    told = comity("join", "--node", machine.home, "--json").document
    assert (told["state"], told["epoch"], federation.asked) == ("left", 1, 0)
    assert comity("join", "--node", machine.home, answer="y\n").status == 0
    assert federation.asked == 1


def decided(machine: SigningMachine) -> CharterState:
    """The charter state after three members decided on a change of the policy."""
    homes = [machine.root / code for code in CODES[:3]]
    keys = [find_keys(home / "offline", own_inception(home).keys)[0] for home in homes]
    state = federation_charter_state(Federation.parse((machine.root / "federation.json").read_bytes()))
    body = draft_policy_change(state.current, replace(state.current.policy, min_copies=1))
    state = state.adding(sign_plan(propose_plan(state, keys[0].public, body, "why"), keys[0]).material)
    for key in keys * 2:
        plan = vote_plan(state, key, state.draft(body.digest).body)
        assert isinstance(plan, Plan)
        state = state.adding(sign_plan(plan, key).material)
    assert state.current.epoch == 1
    return state


def pinned_epoch(machine: SigningMachine) -> int:
    (pin,) = Client(Home(machine.root / "pins")).pins()
    return pin.federation.body.epoch


def test_after_joining_the_pin_moves_where_certificates_lead_to_the_new_charter(
    comity: Comity, machine: SigningMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = decided(machine)
    federation = FollowedFederation(machine, state.current, state)
    monkeypatch.setattr(join, "CharterContext", federation.context)
    ran = comity("join", "--node", machine.home)
    assert pinned_epoch(machine) == 1
    assert "pinned charter of epoch 1" in ran.out
    assert "min_copies" in ran.out, "the changes are shown"
    assert "trust pin" not in ran.err
    federation.federation = Client(Home(machine.root / "pins")).pins()[0].federation
    told = comity("join", "--node", machine.home, "--json").document
    assert (told["state"], told["epoch"], told["pinned_epoch"]) == ("member", 1, 1)


def test_after_joining_a_charter_that_no_certificate_proves_leaves_the_pin_and_names_the_command(
    comity: Comity, machine: SigningMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = followed(machine, lambda body, member: draft_policy_change(body, replace(body.policy, min_copies=1)))
    monkeypatch.setattr(join, "CharterContext", federation.context)
    ran = comity("join", "--node", machine.home)
    assert "the pin was not moved" in ran.err
    assert "comity trust pin   takes up epoch 1" in ran.err
    assert pinned_epoch(machine) == 0


def test_join_does_not_move_the_pin_while_the_charter_is_forked(
    comity: Comity, machine: SigningMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = decided(machine)
    open_fork = SimpleNamespace(current=state.current, tally=SimpleNamespace(epochs=state.tally.epochs, stopped=True))
    federation = FollowedFederation(machine, state.current, cast(CharterState, open_fork))
    monkeypatch.setattr(join, "CharterContext", federation.context)
    assert comity("join", "--node", machine.home, "--json").document["pinned_epoch"] == 0
    assert pinned_epoch(machine) == 0


def test_join_neither_calls_a_newcomer_a_member_nor_moves_the_pin_before_nodes_follow(
    comity: Comity, machine: SigningMachine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    newcomer = tmp_path / "NO"
    card = init_node(
        newcomer, NewNode(jurisdiction="NO", org="Institute NO", node_name="node-no", mutual="a:1", open_="a:2")
    )
    current = Federation.parse((machine.root / "federation.json").read_bytes()).body
    federation = FollowedFederation(machine, draft_admission(current, card.member))
    federation.ahead = True
    monkeypatch.setattr(join, "CharterContext", federation.context)
    ran = comity("join", "--node", newcomer)
    assert "not followed yet: by the nodes of 0 members, of 3" in " ".join(ran.err.split()), ran.err
    assert "is a member" not in ran.out and pinned_epoch(machine) == 0
    told = comity("join", "--node", newcomer, "--json").document
    assert (told["state"], told["epoch"], told["followed"]["epoch"]) == ("decided", 1, 0)
    federation = FollowedFederation(machine, draft_policy_change(current, replace(current.policy, min_copies=1)))
    federation.ahead = True
    monkeypatch.setattr(join, "CharterContext", federation.context)
    assert comity("join", "--node", machine.home, "--json").document["pinned_epoch"] == 0


def test_a_rotation_names_the_pin_or_the_seat_that_is_missing_and_not_a_log(machine: SigningMachine) -> None:
    member = followed(machine, lambda body, member: body)
    member.federation = replace(member.federation, nodes=())
    for federation, code in ((member, "STALE-PIN"), (followed(machine, draft_removal), "NOT-A-MEMBER")):
        federation.federation = replace(federation.federation, nodes=())
        with pytest.raises(Conflict) as caught:
            federation.context(home=machine.home).check_own_log()
        assert caught.value.code == code
        federation.context(home=machine.home, offline=True).check_own_log()


def test_a_client_reads_its_own_lines_before_any_node_shows_them(machine: SigningMachine, tmp_path: Path) -> None:
    federation = Federation.parse((machine.root / "federation.json").read_bytes())
    key = find_keys(machine.home / "offline", own_inception(machine.home).keys)[0]
    body = draft_policy_change(federation.body, replace(federation.body.policy, min_copies=1))
    state = federation_charter_state(federation)
    signed = sign_plan_with_all(propose_plan(state, key.public, body, "why", despite_quorum=True), [key])
    refused = CharterMaterial.of([b"{}"])
    answers: list[object] = [
        [DeliveredLine(signed.entry.line, 7), DeliveredLine(b"{}", None, Conflict("no"))],
        GatheredVotes(CharterMaterial(), (), ()),
    ]
    client = GovernanceClient(federation, lambda work: answers.pop(0), OwnLines(tmp_path / "own", federation))  # type: ignore[arg-type]
    client.deliver(signed.material | refused, "node-ch")
    assert [draft.body.digest for draft in client.charter_state().tally.drafts] == [body.digest]
    assert b"{}" not in OwnLines(tmp_path / "own", federation).material.lines


def test_stored_own_lines_are_deleted_when_the_pin_moves(machine: SigningMachine, tmp_path: Path) -> None:
    federation = Federation.parse((machine.root / "federation.json").read_bytes())
    before, line = OwnLines(tmp_path / "own", federation), CharterMaterial.of([b"a line"])
    before.add(line)
    assert before.material.lines == {b"a line"}
    after = OwnLines(
        tmp_path / "own", cast(Federation, SimpleNamespace(id=federation.id, body=SimpleNamespace(digest="f" * 64)))
    )
    after.add(CharterMaterial.of([b"another"]))
    assert not before.material.lines
    assert after.material.lines == {b"another"}


def test_a_newcomer_is_told_a_node_that_accepts_its_consent(
    comity: Comity, machine: SigningMachine, tmp_path: Path
) -> None:
    newcomer = tmp_path / "NO"
    init_node(
        newcomer,
        NewNode(
            jurisdiction="NO", org="Institute NO", node_name="node-no", mutual="127.0.0.1:7443", open_="127.0.0.1:7444"
        ),
    )
    comity("proposal", "new", "admit", newcomer / "node-card.json", *machine.offline, "--yes")
    listed = comity("proposal", "ls", "--offline", "--from", machine.stick)
    (line,) = [line.strip() for line in listed.out.splitlines() if "proposal consent" in line]
    nodes = Federation.parse((machine.root / "federation.json").read_bytes()).nodes
    assert line.partition(" --node HOME --node ")[2] in {node.record.name for node in nodes}


def test_a_federation_is_pinned_by_the_words_that_were_read_out(
    comity: Comity, machine: SigningMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMITY_HOME", str(machine.root / "empty"))
    file = machine.root / "federation.json"
    assert comity("trust", "pin", file, "--words", "babad-babad-babad-babad", "--yes").code == "OTHER-FEDERATION"
    assert comity("trust", "show", "--json").document["pins"] == []
    words = syllables(Federation.parse(file.read_bytes()).id).replace("-", " ")
    assert comity("trust", "pin", file, "--words", words).status == 0
    assert len(comity("trust", "show", "--json").document["pins"]) == 1
