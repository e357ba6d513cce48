"""Wheels by hash: pip brings them from a folder that stands for an index, and the cache keeps them."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.rules.kits.description import KitPlatform
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError, Malformed, Unavailable
from comity_client.kits import fetching
from comity_client.kits.fetching import cache_folder, fetch_wheel, fetch_wheels, kept_wheel, wheels_in
from comity_client.kits.lock import LockedDistribution
from support.kit_recipes import make_wheel


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip takes for its index; the cache is empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return folder


def locked(*wheels: Path) -> LockedDistribution:
    name, version = wheels[0].name.split("-")[:2]
    return LockedDistribution(name, version, (), tuple(sha256(wheel.read_bytes()) for wheel in wheels))


@pytest.mark.slow
def test_a_wheel_is_fetched_once_and_hashed_each_time(index: Path) -> None:
    wheel = make_wheel(index)
    begun: list[int] = []
    kept = fetch_wheel(locked(wheel), begin=begun.append, size=7)
    assert kept.read_bytes() == wheel.read_bytes() and begun == [7]
    what = locked(wheel)
    wheel.unlink()
    assert fetch_wheel(what, begin=begun.append) == kept and begun == [7]
    kept.write_bytes(b"changed")
    with pytest.raises(Malformed, match="damaged"):
        fetch_wheel(what)
    assert kept_wheel(what.wheels[0]) is None
    with pytest.raises(Unavailable, match="could not fetch"):
        fetch_wheel(what)
    assert [each.name for each in (cache_folder() / "wheels").iterdir()] == [what.wheels[0]], "scratch files were left"


@pytest.mark.slow
def test_each_python_gets_its_wheel(index: Path) -> None:
    tags = [f"cp3{minor}-cp3{minor}-manylinux_2_28_x86_64" for minor in (11, 12)]
    wheels = [make_wheel(index, tag=tag) for tag in tags]
    found = fetch_wheels([locked(*wheels)], KitPlatform("linux", "x86_64", "", ("3.11", "3.12")))
    assert {path.name for path in found.values()} == {wheel.name for wheel in wheels}
    with pytest.raises(ComityError) as missing:
        fetch_wheels(
            [locked(make_wheel(index, "win", tag="cp311-cp311-win_amd64"))],
            KitPlatform("linux", "x86_64", "", ("3.11",)),
        )
    assert missing.value.exit_status == 5


def test_another_file_of_the_same_name_is_not_taken(index: Path) -> None:
    wheel = make_wheel(index)
    what = locked(wheel)
    make_wheel(index, more={"evil.py": ""})
    with pytest.raises(Unavailable, match="could not fetch"):
        fetch_wheel(what)


def test_a_folder_is_read_up_to_a_bound(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_wheel(index)
    (index / "notes.txt").write_text("not a wheel")
    assert wheels_in([index]) == {sha256(wheel.read_bytes()): wheel}
    monkeypatch.setattr(fetching, "MAX_FILES", 0)
    with pytest.raises(Malformed, match="too many files"):
        wheels_in([index])
    with pytest.raises(Unavailable, match="cannot be read"):
        wheels_in([index / "none"])
