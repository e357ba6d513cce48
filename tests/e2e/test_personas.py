"""Seven users follow the README and the guides on a terminal of 80 columns, and each makes a mistake.

The terminal shows no traceback and no line of a table that is wider than 80 columns. The command that an error names is
typed next, and the program accepts it. `test_documented_commands` runs all blocks of the guides.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from comity_cli.lab.lab import Lab
from comity_client.client import Client
from support.command_lines import advised
from support.tools import needs
from support.walks import Person, Ran, lab, small_model, spread

pytestmark = pytest.mark.slow

USAGE = 2
_TRY = re.compile(r"^\s*try: +(.*)$", re.MULTILINE)
_STANDS_FOR = re.compile(r"[A-Z][A-Z-]+\Z|.*…")
"""A word that the reader has to replace, such as FILE."""


@dataclass(frozen=True)
class PublishedLab:
    """A running lab in which `demo/tiny` has two versions, and the client of its publisher."""

    lab: Lab
    client: Client
    root: Path

    def person(self, name: str, *, pinned: bool = True) -> Person:
        person = Person(self.lab.directory, self.root / name)
        if pinned:
            person.does("comity trust pin federation.json")
        return person


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PublishedLab]:
    root = tmp_path_factory.mktemp("published")
    with lab(root) as (running, client):
        for version, text in (("v1", "one"), ("v2", "two")):
            small_model(running.directory / text, text)
            maker = Person(running.directory, root / "maker", more={"COMITY_HOME": str(client.home.root)})
            maker.does(f"comity publish {text} --as demo/tiny@{version} --licence apache-2.0 --publisher 'Demo lab'")
        spread(client, root / "pulled", "demo/tiny@v1", "demo/tiny@v2")
        yield PublishedLab(running, client, root)


def mistaken(person: Person, line: str, *, said: str) -> Ran:
    """Type a line that fails, and then the commands that the error names. Returns the failure."""
    failed = person.types(line)
    assert failed.status != 0, failed
    assert "Traceback" not in failed.said, failed.said
    assert said in failed.said, failed.said
    for hint in _TRY.findall(failed.said):
        for arguments in advised(hint):
            if not any(map(_STANDS_FOR.match, arguments)):
                next_one = person.types(f"comity {shlex.join(arguments)}")
                assert next_one.status != USAGE, next_one
                assert "Traceback" not in next_one.said, next_one.said
    return failed


def on_a_terminal(person: Person, line: str) -> list[str]:
    """The lines that a command shows on a terminal of 80 columns."""
    script = needs("script", unlock="apt-get install util-linux")
    typed = shlex.quote(f"stty cols 80; {line}")
    shown = person.does(f"{script} -qec {typed} /dev/null </dev/null || test $? = 5 -o $? = 8")
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "").splitlines()


def test_an_ml_engineer(published: PublishedLab) -> None:
    person = published.person("ml-engineer", pinned=False)
    mistaken(person, "comity pull demo/tiny@v1", said="pin")
    person.does("comity trust pin federation.json")
    assert "demo/tiny" in person.does("comity search tiny")
    mistaken(person, "comity pull demo/tiny@v9", said="v2")
    person.does("comity pull demo/tiny@v1\ncomity verify demo/tiny@v1")
    assert max(map(len, on_a_terminal(person, "comity search tiny"))) <= 80
    assert "did you mean" in person.types("comity donwload demo/tiny").said.lower()


def test_a_security_officer(published: PublishedLab) -> None:
    person = published.person("security-officer")
    person.does("comity pull demo/tiny@v2 --out checked\ncomity policy new --out ministry.toml")
    person.does("comity policy check ministry.toml\ncomity verify checked --policy ministry.toml")
    (person.folder / "checked" / "config.json").write_text("{}")
    refused = mistaken(person, "comity verify checked --policy ministry.toml", said="config.json")
    assert refused.status == 3


def test_an_operator(published: PublishedLab) -> None:
    person = published.person("operator")
    shown = on_a_terminal(person, "comity status")
    assert max(map(len, shown)) <= 80, shown
    assert all(any(line.startswith(node.name) for line in shown) for node in published.lab.nodes), shown
    mistaken(person, "comity status --node ./nowhere", said="nowhere")
    mistaken(person, "comity serve --dir ./node-ch", said="in use")


def test_a_joining_member(published: PublishedLab) -> None:
    person = published.person("joining")
    person.does("comity init --jurisdiction JP --org 'Example Institute Tokyo' --name node-jp --mutual 127.0.0.1:7461 "
                "--open 127.0.0.1:7471")  # fmt: skip
    mistaken(person, "comity init --jurisdiction UK --org 'Example' --name node-uk", said="GB")
    applied = person.does("comity join federation.json --node node-jp")
    assert "node-jp" in applied or "Tokyo" in applied
    person.does("comity member ls\ncomity proposal ls")


def test_a_publisher(published: PublishedLab) -> None:
    person = published.person("publisher")
    small_model(person.folder / "mine", "mine")
    made = json.loads(person.does("comity publisher new 'Example lab' --jurisdiction ES --json"))
    assert made
    mistaken(person, "comity publish mine --as example/mine@v1 --licence Apache2", said="Apache-2.0")
    person.does("comity publish mine --as example/mine@v1 --licence Apache-2.0 --node ./node-es")
    assert "example/mine" in person.does_at_last("comity search mine | grep -F example/mine")


def test_a_borrower(published: PublishedLab) -> None:
    person = published.person("borrower")
    person.does("comity offer ls")
    mistaken(person, "comity offer show 00000000", said="no offer")
    assert max(map(len, on_a_terminal(person, "comity offer ls"))) <= 80


def test_an_official(published: PublishedLab) -> None:
    person = published.person("official")
    curl = needs("curl", unlock="apt-get install curl")
    page = person.does(f"{curl} -sf -H 'Accept: text/html' {published.lab.nodes[0].endpoint}/")
    assert "<h1" in page
    person.does("comity proposal ls\ncomity member ls")
    whole = person.does("comity impact --all")
    assert "Example Centre Barcelona" in whole
    mistaken(person, "comity impact XX", said="XX")
