"""Where a node looks for its keys and its socket."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from comity.node.home_files import HomeFiles
from comity.trust.errors import NotFound, Unavailable
from support.federation import make_home, serving


def test_keys_can_be_in_another_folder_than_the_home(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", 0)
    elsewhere = (home.directory / "keys").rename(tmp_path / "elsewhere")
    with pytest.raises(NotFound):
        HomeFiles.read(home.config())
    home.set("storage", keys=str(elsewhere))
    assert HomeFiles.read(home.config()).keys.record == home.record


async def test_a_socket_that_cannot_be_made_is_refused_with_its_setting(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", 0)
    with tempfile.TemporaryDirectory() as short:  # a socket's path has at most 100 bytes
        file = Path(short) / "file"
        file.touch()
        home.set("listen", operator=str(file / "operator.sock"))
        with pytest.raises(Unavailable) as caught:
            async with serving(home):
                pass
    assert caught.value.code == "LISTEN"
    assert "[listen] operator" in caught.value.what
