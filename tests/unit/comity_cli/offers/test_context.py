"""A member that has only its node's home asks about offers: its own federation is pinned, and no other one."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity_cli.main import main
from comity_client.client import Client
from comity_client.founding import consent_to, draft_genesis, seal_federation
from comity_client.home import Home
from comity_client.node_home import NewNode, init_node

CODES = ("CH", "ES")


def pinned_after(home: Path, pins: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids that are pinned in `pins` after a question about offers in `home`, to no node."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("COMITY_HOME", str(pins))
    with pytest.raises(SystemExit) as ended:
        main(["offer", "ls", "--offline"])
    assert ended.value.code == 0
    return [pin.id for pin in Client(Home(pins)).pins()]


def test_the_first_pin_is_the_federation_that_the_member_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = [tmp_path / code for code in (*CODES, "KR")]
    cards = [
        init_node(home, NewNode(jurisdiction=home.name, org=home.name, node_name=home.name, mutual="h:1", open_="h:2"))
        for home in homes
    ]
    body = draft_genesis(cards[:2])
    federation = seal_federation(body, [consent_to(body, home) for home in homes[:2]], cards[:2])
    for home in homes:
        (home / "federation.json").write_bytes(federation.encode())
    assert pinned_after(homes[0], tmp_path / "member", monkeypatch) == [federation.id]
    assert pinned_after(homes[2], tmp_path / "stranger", monkeypatch) == []
