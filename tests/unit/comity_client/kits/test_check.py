"""Each check of a kit fails for its own reason, those after it are not checked, and nothing passes with a network."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from comity.rules.kits.description import LOCK_FILE
from comity.trust.errors import Malformed, NotFound
from comity.trust.policy import Policy
from comity_client.kits import engine, install
from comity_client.kits.check import CheckedRow, CheckOptions, KitChecked, check_kit
from comity_client.kits.install import InstalledKit
from comity_client.kits.isolation import NO_NAMESPACE, Isolated, namespace
from support.small_kit import CAPITAL, SUM, WHEEL, WRONG, write_small_kit

PASSES = ["not checked", "passed", "passed", "passed", "passed", "passed"]
isolated_only = pytest.mark.skipif(namespace("--net") is None, reason="no network namespace is available here")


@pytest.fixture(scope="module", name="cache")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def checked(folder: Path, cache: Path) -> KitChecked:
    told = list[CheckedRow]()
    found = asyncio.run(check_kit(folder, CheckOptions(Policy(), cache, seconds=5, on_row=told.append)))
    assert tuple(told) == found.rows
    assert [row.name for row in found.rows] == ["evidence", "parts", "lock", "install", "engine", "self-test"]
    return found


def states(found: KitChecked) -> list[str]:
    return [row.state for row in found.rows]


def summary(found: KitChecked, name: str) -> str:
    return next(row.summary for row in found.rows if row.name == name)


@pytest.mark.slow
@isolated_only
def test_a_kit_that_runs_passes_and_its_missing_evidence_is_said(tmp_path: Path, cache: Path) -> None:
    kit = write_small_kit(tmp_path, selftest=(CAPITAL, SUM))
    found = checked(tmp_path, cache)
    assert (states(found), found.state, found.artifact, found.name) == (PASSES, "passed", None, kit.name)
    assert "2 of 2 answers" in summary(found, "self-test")
    assert "an empty network namespace" in summary(found, "engine")
    again = checked(tmp_path, cache)
    assert (again.state, again.kit) == ("passed", found.kit)
    assert summary(again, "install").startswith("installed before")


@pytest.mark.slow
def test_what_ran_with_a_network_is_not_checked(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def alone(command: Any, **_: object) -> Isolated:
        return Isolated(list(command), NO_NAMESPACE, True)

    monkeypatch.setattr(engine, "offline", alone)
    monkeypatch.setattr(install, "offline", alone)
    write_small_kit(tmp_path, environment={"NEW": "kit"})
    found = checked(tmp_path, cache)
    assert (states(found)[3:], found.state) == (["not checked"] * 3, "partial")
    assert NO_NAMESPACE in summary(found, "install") and NO_NAMESPACE in summary(found, "engine")


@pytest.mark.parametrize("change", ["changed", "added", "removed", "link", "lock", "option"])
def test_files_that_are_not_the_kits_fail_before_anything_runs(
    tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("comity_client.kits.check.install_kit")
    lock = {"lock": f"small-words==1.0 --hash=sha256:{'0' * 64}\n", "option": "--index-url https://pip.invalid\n"}
    write_small_kit(tmp_path, others={LOCK_FILE: lock[change].encode()} if change in lock else {})
    if change == "changed":
        (tmp_path / "engine" / "serve.py").write_text("import os\n")
    elif change == "added":
        (tmp_path / "engine" / "usercustomize.py").write_text("")
    elif change == "removed":
        (tmp_path / WHEEL).unlink()
    elif change == "link":
        (tmp_path / "engine" / "passwords").symlink_to("/etc/passwd")
    found = checked(tmp_path, tmp_path / "cache")
    failed = "lock" if change in lock else "parts"
    assert found.state == "failed"
    assert [row.name for row in found.rows if row.state == "failed"] == [failed]
    assert set(states(found)[3:]) == {"not checked"} and summary(found, "engine") == f"{failed} failed"


@pytest.mark.parametrize(
    ("mode", "selftest", "failed", "why"),
    [
        ("exit", CAPITAL, "engine", "no weights here"),
        pytest.param("outside", CAPITAL, "engine", "it looked for something outside", marks=isolated_only),
        ("good", WRONG, "self-test", 'poet: at /choices/0/message/content is "I do not know."'),
        ("dies", CAPITAL, "self-test", "capital: RemoteDisconnected"),
        ("huge", CAPITAL, "self-test", "capital: answer too large"),
    ],
)
def test_an_engine_that_does_not_answer_as_expected_fails(
    tmp_path: Path, mode: str, selftest: Any, failed: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from support.small_kit import WORDS

    here = InstalledKit(Path(sys.prefix), Path(sys.executable), Path(sys.base_prefix), True, "")
    monkeypatch.setattr("comity_client.kits.check.install_kit", lambda *_: here)
    write_small_kit(tmp_path, mode, selftest=(selftest,), others={"engine/small_words.py": WORDS.encode()})
    found = checked(tmp_path, tmp_path / "cache")
    assert [row.name for row in found.rows if row.state == "failed"] == [failed]
    assert why in summary(found, failed)


def test_evidence_that_is_not_accepted_fails_and_nothing_runs(tmp_path: Path) -> None:
    write_small_kit(tmp_path)
    (tmp_path / ".comity").mkdir()
    (tmp_path / ".comity" / "manifest.json").write_bytes(b"{}")
    found = checked(tmp_path, tmp_path / "cache")
    assert states(found) == ["failed", "passed", *["not checked"] * 4]
    assert found.state == "failed"


@pytest.mark.parametrize(("data", "kind"), [(None, NotFound), (b"{}", Malformed)])
def test_a_folder_without_a_kit_is_an_error(tmp_path: Path, data: bytes | None, kind: type[Exception]) -> None:
    if data is not None:
        (tmp_path / "kit.json").write_bytes(data)
    with pytest.raises(kind):
        asyncio.run(check_kit(tmp_path, CheckOptions(Policy(), tmp_path / "cache")))
