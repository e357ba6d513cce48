"""The state folder of a user: where it is, and what is said where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.trust.errors import Unavailable
from comity_client.home import Home


def test_a_state_folder_that_cannot_be_made_is_refused_with_the_variable_that_moves_it(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"a file")
    home = Home.default({"XDG_STATE_HOME": str(tmp_path / "state")})
    with pytest.raises(Unavailable) as caught:
        home.ensure(home.trust)
    assert (caught.value.code, "COMITY_HOME" in caught.value.hint) == ("DISK", True)
    moved = Home.default({"XDG_STATE_HOME": str(tmp_path / "state"), "COMITY_HOME": str(tmp_path / "moved")})
    assert moved.ensure(moved.trust) == tmp_path / "moved" / "trust"
    assert (tmp_path / "moved").stat().st_mode & 0o777 == 0o700
