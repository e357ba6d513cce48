"""Files that commands read and write: every read is bounded, and a file that cannot be written is an error message, not
a crash.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from comity.trust.errors import ComityError, Malformed, Unavailable
from comity_cli.main import command
from comity_cli.output import Output
from comity_client.node_home import NewNode, init_node

ENDLESS = Path("/dev/zero")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("member") / "node-ch"
    init_node(
        made,
        NewNode(org="Institute", jurisdiction="CH", node_name="node-ch", mutual="127.0.0.1:1", open_="127.0.0.1:2"),
    )
    return made


def refusal(home: Path, *arguments: str | Path) -> ComityError:
    ran: Any = CliRunner(env={"COMITY_HOME": str(home)}).invoke(command, list(map(str, arguments)), obj=Output())
    assert isinstance(ran.exception, ComityError), ran.output
    return ran.exception


def test_a_file_without_an_end_is_refused(tmp_path: Path, home: Path) -> None:
    for arguments in (
        ("found", "draft", ENDLESS),
        ("found", "consent", ENDLESS),
        ("found", "seal", ENDLESS, ENDLESS),
        ("join", ENDLESS, "--dir", home),
        ("keys", "sign", ENDLESS),
    ):
        assert isinstance(refusal(tmp_path, *arguments), Malformed), arguments


def test_a_missing_folder_is_reported_as_missing(tmp_path: Path, home: Path) -> None:
    nowhere = tmp_path / "nowhere" / "genesis.json"
    error = refusal(tmp_path, "found", "draft", home / "node-card.json", "--out", nowhere)
    assert (type(error), error.code) == (Unavailable, "DISK")
