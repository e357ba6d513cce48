"""A statement that several keys sign: shown before each signature, carried in a file, delivered when complete."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from comity.trust.errors import Refused
from comity.trust.exit_statuses import PARTIAL
from comity.trust.places import Place
from comity_cli.charter.context import CharterContext
from comity_cli.charter.signing import WIDTH, report, show_plan, sign_and_deliver
from comity_cli.commands.keys import command
from comity_cli.output import Output
from comity_client.charter.keys import plan_place
from comity_client.charter.state import DeliveredLine
from comity_client.client import Client
from comity_client.home import Home
from comity_client.node_home import NewNode, init_node
from comity_client.signing.seat_keys import SeatShape
from support.case import case
from support.run_command import printed, refused, run, said


@pytest.fixture(scope="module", name="made")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a member whose statements two of three keys sign."""
    home = tmp_path_factory.mktemp("made") / "node"
    seat = SeatShape(3, None, 1, ())
    init_node(
        home,
        NewNode(jurisdiction="FR", org="Institute", node_name="node-fr.example", mutual="a:1", open_="a:2", seat=seat),
    )
    return home


@pytest.fixture(name="home")
def _home(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / "node")
    (tmp_path / "federation.json").write_bytes(case().federation.encode())
    Client(Home(tmp_path / "user")).pin(tmp_path / "federation.json")
    return tmp_path / "node"


@pytest.fixture(name="begun")
def _begun(home: Path) -> Path:
    """The ceremony file of a declaration that one of three keys has signed."""
    key = home / "offline" / "governance-1.pem"
    said(
        command,
        "place",
        "--node",
        home,
        "--offline",
        "--cloud",
        "Example Cloud",
        "--key",
        key,
        "--yes",
        "--out",
        "line",
    )
    (file,) = Path().glob("*.ceremony.json")
    return file


def test_a_statement_that_lacks_signatures_goes_to_the_next_signer(home: Path, begun: Path) -> None:
    key = home / "offline" / "governance-1.pem"
    words = ("place", "--node", home, "--offline", "--cloud", "Example Cloud", "--key", key, "--yes", "--out", "line")
    document = printed(command, *words)
    assert not document["complete"] and len(document["missing"]) == 1 and document["missing"][0].startswith("1 more of")
    text = said(command, *words)
    assert f"comity keys sign {document['file']} --key THEIR-KEY.pem" in text and "Example Cloud" in text
    assert json.loads(begun.read_bytes())


def test_nothing_is_signed_before_it_is_shown_and_agreed(home: Path, begun: Path) -> None:
    before = begun.read_bytes()
    declined = run(command, "sign", begun, "--key", home / "offline" / "governance-2.pem", answer="n\n")
    assert declined.exit_code != 0 and begun.read_bytes() == before
    assert declined.output.index("Example Cloud") < declined.output.index("Sign this with governance-2.pem?")
    assert run(command, "sign", begun).exit_code == 2  # no key is named


def test_the_last_signature_completes_the_file_and_a_folder_gets_the_line(home: Path, begun: Path) -> None:
    second = home / "offline" / "governance-2.pem"
    text = said(command, "sign", begun, "--key", second, "--yes")
    assert f"completely signed: {begun}" in text and "or --out FOLDER" in text
    document = printed(command, "sign", begun, "--out", "carried")
    assert (document["complete"], document["where"]) == (True, "carried") and list(Path("carried").iterdir())
    assert "comity proposal load carried2" in said(command, "sign", begun, "--out", "carried2")


def test_one_key_signs_once_and_a_strange_key_not_at_all(home: Path, begun: Path) -> None:
    before = begun.read_bytes()
    for key in ("governance-1.pem", "recovery.pem"):
        result = run(command, "sign", begun, "--key", home / "offline" / key, "--yes")
        assert (
            result.exit_code != 0
            or not printed(command, "sign", begun, "--key", home / "offline" / key, "--yes")["complete"]
        )
    assert json.loads(before).keys() == json.loads(begun.read_bytes()).keys()


def test_a_changed_statement_is_not_signed(home: Path, begun: Path) -> None:
    data = json.loads(begun.read_bytes())
    name = next(key for key, value in data.items() if isinstance(value, str) and len(value) > 100)
    data[name] = data[name][:-8] + "AAAAAAAA"
    begun.write_text(json.dumps(data))
    refused(command, "sign", begun, "--key", home / "offline" / "governance-2.pem", "--yes")


@pytest.mark.parametrize(("answer", "signed"), [("n\n", False), ("y\n", True)])
def test_a_plan_is_signed_and_delivered_after_one_question(home: Path, answer: str, signed: bool) -> None:
    @click.command()
    def command() -> None:
        context = CharterContext(home=home, offline=True, out=Path("line"))
        plan = plan_place(context.charter_state, home, Place("Example Hosting", "", ("FR",)))
        sign_and_deliver(context, plan, context.governance_keys)

    result = run(command, answer=answer)
    question = "Sign this with governance-1.pem, governance-2.pem, governance-3.pem?"
    assert result.output.index("Example Hosting") < result.output.index(question)
    assert (result.exit_code == 0, Path("line").exists()) == (signed, signed)


def printing(capsys: pytest.CaptureFixture[str], act: Any, *given: Any) -> tuple[str, str]:
    with click.Context(click.Command("test"), obj=Output(color=False)):
        act(*given)
    return capsys.readouterr()


def plan(**changed: Any) -> Any:
    parts: dict[str, Any] = {"title": "a title", "facts": (), "text": "", "changes": (), "warnings": ()}
    return SimpleNamespace(**{**parts, **changed})


def test_a_plan_is_shown_in_80_columns_and_without_controls(capsys: pytest.CaptureFixture[str]) -> None:
    made = plan(
        title="word " * 40,
        facts=(("short", "value"), ("long", "v" * 100), ("controls", "a\x1b[31mb")),
        text="the reason",
        warnings=("a risk",),
    )
    out, err = printing(capsys, show_plan, made)
    lines = out.splitlines()
    assert [line for line in lines if len(line) > WIDTH] == ["      " + "v" * 100]
    assert "  short              value" in lines and "  reason             the reason" in lines and "  long" in lines
    assert "\x1b" not in out and "a risk" in err
    assert "reason" not in printing(capsys, show_plan, plan())[0]


@pytest.mark.parametrize(("refusals", "accepted", "status"), [(1, 0, None), (1, 2, PARTIAL), (2, 1, PARTIAL)])
def test_the_first_refusal_is_the_error(
    capsys: pytest.CaptureFixture[str], refusals: int, accepted: int, status: int | None
) -> None:
    errors = [Refused(f"refused {number}", code="QUOTA") for number in range(refusals)]
    delivered = [DeliveredLine(b"x", None, error) for error in errors]
    delivered += [DeliveredLine(b"y", index) for index in range(accepted)]
    usual = errors[0].exit_status
    with pytest.raises(Refused, match="refused 0") as raised:
        printing(capsys, report, delivered, "node-ch")
    assert raised.value.exit_status == (usual if status is None else status)
    err = capsys.readouterr().err
    assert all(f"refused {number}" in err for number in range(refusals)) and "logged at" not in err


def test_lines_that_were_accepted_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = printing(capsys, report, [DeliveredLine(b"x", 1), DeliveredLine(b"y", 2)], "node-ch")
    assert "2 lines logged at node-ch" in out
    assert "0 lines logged" in printing(capsys, report, [], "node-ch")[0]
