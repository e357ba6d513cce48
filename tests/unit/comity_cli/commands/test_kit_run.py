"""`comity kit check|run|evaluate` on a small kit whose wheel is unpacked, so that nothing is installed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from comity.trust.errors import ComityError, NotFound, PolicyNotMet, Untrusted
from comity_cli.commands.kit import command
from comity_client.home import Home
from comity_client.kits.asking import KitResults
from comity_client.kits.install import InstalledKit
from comity_client.kits.isolation import namespace
from comity_client.kits.kept_checks import last_check
from support.run_command import printed, refused, run, said
from support.small_kit import CAPITAL, SUM, WORDS, WRONG, chat, write_small_kit

POLICY = "[policy]\n"
UNPACKED = {"engine/small_words.py": WORDS.encode()}
HERE = InstalledKit(Path(sys.prefix), Path(sys.executable), Path(sys.base_prefix), True, "no network at all")
isolated_only = pytest.mark.skipif(namespace("--net") is None, reason="no network namespace is available here")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("comity_client.kits.check.install_kit", lambda *_: HERE)
    monkeypatch.setattr("comity_client.kits.install.install_kit", lambda *_: HERE)
    return Home(tmp_path / "home")


def small_kit(folder: Path, mode: str = "good", **what: Any) -> Path:
    write_small_kit(folder, mode, others=UNPACKED, **what)
    return folder


@isolated_only
def test_a_check_says_each_state_and_is_kept(tmp_path: Path, _home: Home) -> None:
    folder = small_kit(tmp_path / "kit")
    found = printed(command, "check", folder)
    assert (found["state"], found["last_passed"]) == ("passed", found["at"])
    assert [row["state"] for row in found["rows"]] == ["not checked", *["passed"] * 5]
    kept = last_check(_home, found["kit"])
    assert kept is not None and kept.state == "passed"
    text = said(command, "check", folder)
    assert "evidence not checked: none is beside the files" in text and "self-test passed: 1 of 1" in text


def test_a_check_that_fails_names_the_part_and_is_kept_too(tmp_path: Path, _home: Home) -> None:
    folder = small_kit(tmp_path / "kit")
    (folder / "engine" / "serve.py").write_text("import os\n")
    found = printed(command, "check", folder, status=3)
    assert "engine/serve.py has" in found["rows"][1]["summary"]
    kept = last_check(_home, found["kit"])
    assert kept is not None and (kept.state, kept.last_passed) == ("failed", None)


def test_samples_are_asked_and_their_share_is_written(tmp_path: Path) -> None:
    folder = small_kit(tmp_path / "kit", samples=(CAPITAL, SUM, WRONG))
    results = tmp_path / "results.json"
    found = printed(command, "evaluate", folder, "--out", results)
    assert (found["samples"], found["passed"], found["pass_rate"]) == (3, 2, "0.6666")
    written = KitResults.parse(results.read_bytes())
    assert (written.pass_rate, written.dataset, written.kit) == ("0.6666", found["dataset"], found["kit"])
    assert [case.name for case in written.cases if case.problems] == ["poet"]


def test_a_kit_without_samples_is_not_evaluated(tmp_path: Path) -> None:
    error = refused(command, "evaluate", small_kit(tmp_path / "kit"))
    assert isinstance(error, NotFound)


@pytest.mark.parametrize("change", ["part", "policy", "evidence", "answer"])
def test_a_kit_that_is_not_what_it_says_is_not_served(tmp_path: Path, change: str) -> None:
    folder = small_kit(tmp_path / "kit", selftest=(WRONG if change == "answer" else CAPITAL,))
    words: list[object] = ["run", folder]
    kind: type[ComityError] = Untrusted
    code = {"part": "KIT-PARTS", "answer": "KIT-SELF-TEST"}.get(change)
    if change == "part":
        (folder / "engine" / "more.py").write_text("")
    elif change == "policy":
        (tmp_path / "policy.toml").write_text(POLICY)
        words, kind, code = [*words, "--policy", tmp_path / "policy.toml"], PolicyNotMet, "NO-PACK"
    elif change == "evidence":
        (folder / ".comity").mkdir()
        (folder / ".comity" / "manifest.json").write_bytes(b"{}")
        code = "KIT-NOT-ACCEPTED"
    error = refused(command, *words)
    assert isinstance(error, kind) and error.code == code


def test_a_name_without_a_version_is_a_wrong_command_line() -> None:
    assert run(command, "run", "ministry/chat").exit_code == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_kit_is_served_until_it_is_stopped(tmp_path: Path, number: signal.Signals) -> None:
    folder = small_kit(tmp_path / "kit")
    code = (
        "import comity_client.kits.install as install\n"
        "from pathlib import Path; import sys\n"
        "here = install.InstalledKit(Path(sys.prefix), Path(sys.executable), Path(sys.base_prefix), True, 'none')\n"
        "install.install_kit = lambda *_: here\n"
        "from comity_cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "kit", "run", str(folder)], stdout=subprocess.PIPE, text=True
    ) as serving:
        assert serving.stdout is not None
        text = ""
        while "openai.OpenAI" not in text:
            text += (line := serving.stdout.readline())
            assert line, text
        url = re.search(r"served at (http://127\.0\.0\.1:\d+) until", text)
        assert url is not None and "curl http" in text
        request = urllib.request.Request(f"{url[1]}/v1/chat/completions", chat("What is two and two?"))
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer)["choices"][0]["message"]["content"] == "Four."
        os.kill(serving.pid, number)
        assert "stopped" in serving.stdout.read()
    assert serving.returncode == 0
