"""The command line: one table of commands, quick help, examples, errors that say what to do, exit statuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import comity
import pytest
from click.testing import CliRunner
from comity.trust.errors import NotFound, OutOfSpace, Refused, Untrusted
from comity.trust.exit_statuses import INTERRUPTED
from comity_cli.command import Command, Group, agree
from comity_cli.main import COMMANDS, GUESSES, command, main
from comity_cli.output import Output, size
from comity_client.client import Client
from comity_client.home import Home
from support.command_lines import exists


def every_command() -> Iterator[tuple[str, click.Command]]:
    root = click.Context(command)
    for name in COMMANDS:
        found = command.get_command(root, name)
        assert found is not None
        yield name, found
        if isinstance(found, click.Group):
            yield from ((f"{name} {verb}", sub) for verb, sub in found.commands.items())


@pytest.mark.parametrize(
    ("name", "found"), list(every_command()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_help_page_explains_and_ends_with_examples(name: str, found: click.Command) -> None:
    ran = CliRunner().invoke(command, [*name.split(), "--help"])
    assert ran.exit_code == 0
    assert isinstance(found, Command | Group)
    assert found.help, name
    assert found.examples, name
    joined = ran.output.replace("\\\n      ", "")  # as a shell reads an example in several lines
    assert joined.rstrip().endswith(found.examples[-1])


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_table_has_the_help_text_of_each_command(name: str) -> None:
    found = command.get_command(click.Context(command), name)
    assert found is not None
    assert found.get_short_help_str(200) == COMMANDS[name].help
    assert found.name == name


def test_help_imports_no_command_and_no_grpc() -> None:
    script = (
        "import sys\nfrom comity_cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('grpc', 'rich', 'cryptography', 'comity_client') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


def test_a_misspelled_command_gets_a_guess(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["pul", "a/b"])
    assert stopped.value.code == 2
    assert "Did you mean 'pull'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("restore", "'backup restore'"),
        ("DOWNLOAD", "'pull'"),
        ("downlod", "'pull'"),
        ("proposal list", "'proposal ls'"),
        ("proposal cancel", "'proposal withdraw'"),
        ("trust pinn", "'trust pin'"),
        ("token create", "'token new'"),
    ],
)
def test_a_guess_from_another_tool_names_the_command_that_does_it(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(typed.split())
    assert stopped.value.code == 2
    assert f"Did you mean {meant}?" in capsys.readouterr().err


def test_every_guess_is_a_command_that_exists() -> None:
    named = [name for names in GUESSES.values() for name in names]
    assert [name for name in named if not exists(name.split())] == []
    assert not set(GUESSES) & set(COMMANDS)


@pytest.mark.parametrize(("words", "page"), [("xyzzy", "comity"), ("trust xyzzy", "comity trust")])
def test_an_unknown_word_is_answered_with_the_help_page(
    words: str, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words.split())
    assert f"See: {page} --help" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["pull", "proposal approve", ""])
def test_help_of_a_command_is_its_help_page(words: str) -> None:
    asked = CliRunner().invoke(command, ["help", *words.split()], prog_name="comity")
    page = CliRunner().invoke(command, [*words.split(), "--help"], prog_name="comity")
    assert (asked.exit_code, asked.output) == (0, page.output)


def test_help_of_an_unknown_command_guesses(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ("pul", "pull it"):
        with pytest.raises(SystemExit) as stopped:
            main(["help", *words.split()])
        assert stopped.value.code == 2
    assert "Did you mean 'pull'?" in capsys.readouterr().err


def test_the_version_is_a_command_and_an_option() -> None:
    told = CliRunner().invoke(command, ["version", "--json"])
    assert json.loads(told.output)["version"] == comity.__version__
    assert comity.__version__ in CliRunner().invoke(command, ["--version"]).output


@pytest.mark.parametrize(
    ("error", "status"),
    [(Untrusted("bad", code="X-1"), 3), (Refused("no"), 6), (OutOfSpace("full"), 7)],
    ids=["untrusted", "refused", "full"],
)
def test_errors_end_with_their_exit_status_and_the_next_command(
    error: Untrusted, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error.hint = "comity status"

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(command, "main", fail)
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == status
    printed = capsys.readouterr().err
    assert f"[{error.code}]" in printed
    assert "try: comity status" in printed


def test_json_mode_prints_an_error_as_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).error(Untrusted("the bytes differ", why="one did", hint="comity status", code="BYTES"))
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "comity.dev/error/v1"
    said = {"code": "BYTES", "what": "the bytes differ", "why": "one did", "try": "comity status", "by_node": False}
    assert document["error"] == said
    assert document["exit_status"] == 3


def test_a_folder_that_cannot_be_made_is_a_clear_error_and_not_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stopped:
        main(["proposal", "export", str(tmp_path / "file" / "stick")])
    assert stopped.value.code == 5
    printed = capsys.readouterr().err
    assert "[DISK]" in printed
    assert f"{tmp_path / 'file'}" in printed


def test_an_error_has_no_colour_if_none_is_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("click.utils.should_strip_ansi", lambda stream, color: color is False)
    Output(color=False).error(Refused("no", hint="comity status\x1b[2J"))
    assert "\x1b" not in capsys.readouterr().err


def test_a_file_name_that_is_no_text_is_in_the_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"\xff.bin")
    (tmp_path / name).touch()
    with pytest.raises(SystemExit) as stopped:
        main(["scan", str(tmp_path), "--json"])
    assert stopped.value.code == 0
    assert [each["path"] for each in json.loads(capsys.readouterr().out)["files"]] == [name]


def test_a_terminal_that_lacks_a_sign_gets_its_escape() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "comity_cli.start", "trust", "--help"],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"51aa\\u2026" in ran.stdout


def test_a_closed_output_causes_no_traceback(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run(
        [sys.executable, "-m", "comity_cli.start", "pull", "not a reference", "--json"],
        env={**os.environ, "COMITY_HOME": str(tmp_path)},
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (1, b"")


def test_an_unreadable_reference_is_a_clear_error_and_not_a_traceback(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        main(["pull", "not a reference"])
    assert stopped.value.code == 2
    assert "[BAD-NAME]" in capsys.readouterr().err


def test_sizes_are_decimal() -> None:
    assert [size(n) for n in (0, 999, 1000, 90_868_376, 16_100_000_000)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "90.9 MB",
        "16.1 GB",
    ]


def test_an_unanswered_question_signs_nothing_and_says_so() -> None:
    ran = CliRunner().invoke(Command("ask", callback=lambda: agree("Sign it?", yes=False)), obj=Output(), input="")
    assert ran.exit_code == INTERRUPTED
    assert "no answer: nothing was signed or changed" in ran.stderr
    assert "--yes" in ran.stderr


@pytest.mark.parametrize("words", ["verify", "pull", "lineage", "bom", "vouch --statement rehashed"])
def test_a_folder_that_is_not_there_is_called_a_folder(words: str, tmp_path: Path) -> None:
    name, *options = words.split()
    env = {"COMITY_HOME": str(tmp_path)}
    Client(Home(tmp_path)).new_publisher("Lab", "", "")
    for missing in ("./nowhere", "/nowhere", "../nowhere/model", "~/nowhere"):
        ran = CliRunner(env=env).invoke(command, [name, missing, *options], obj=Output())
        assert isinstance(ran.exception, NotFound), ran.exception
        assert (ran.exception.code, ran.exception.what) == ("NO-FOLDER", f"no folder {missing}")


def test_an_import_without_a_node_says_which_home_has_none(tmp_path: Path) -> None:
    ran = CliRunner().invoke(command, ["import", "hf:org/name", "--dir", str(tmp_path)], obj=Output())
    assert isinstance(ran.exception, NotFound)
    assert ran.exception.code == "NO-HOME"
    assert ran.exception.hint.startswith("name your node's home: --node HOME")


def test_a_publisher_that_is_not_here_is_made_by_the_command_that_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as raised:
        Client(Home(tmp_path)).publisher("Security desk")
    assert raised.value.hint == "comity publisher new 'Security desk' --jurisdiction CODE"
