"""Three institutions found a federation and a fourth one joins, by the guided commands: each command that a person
types is counted, and the counts are those of docs/journeys.md.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from comity.federation_file import read_federation
from comity.trust.encoding import syllables
from comity_client.charter.joining import card_of
from support.journeys import counted
from support.officers import Officer, change, serving, wait_for
from support.ports import free_port

pytestmark = pytest.mark.slow

CODES = ("CH", "ES", "KR")


@dataclass
class People:
    """Officers at machines of their own, what they typed, and the nodes that they started."""

    folder: Path
    running: ExitStack
    typed: list[str] = field(default_factory=list)

    def officer(self, code: str) -> Officer:
        machine = self.folder / code
        return Officer(machine / f"node-{code.lower()}", machine / "user")

    def types(self, code: str, *words: str | Path) -> str:
        """Run a command that this person types, and answer its questions with yes. Returns what it prints."""
        self.typed.append(f"{code}: comity {' '.join(map(str, words))}")
        ran = self.officer(code).run(*words, answer="y\ny\ny\n")
        assert ran.returncode == 0, (self.typed[-1], ran.stdout, ran.stderr)
        return ran.stdout + ran.stderr

    def makes(self, code: str) -> Path:
        """`comity init`; the settings that follow make the walk quick, and are not typed. Returns the card."""
        home = self.officer(code).home
        home.parent.mkdir()
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        where = ("--dir", home, "--mutual", addresses[0], "--open", addresses[1], "--http", "127.0.0.1:0")
        self.types(code, "init", "--jurisdiction", code, "--org", f"Institute {code}", "--name", home.name, *where)
        change(home, interval_seconds=0.5)
        return home / "node-card.json"

    def serves(self, code: str, *options: str) -> None:
        home = self.officer(code).home
        self.typed.append(f"{code}: comity serve --node {home} {' '.join(options)}".rstrip())
        self.running.enter_context(serving(home, options=options))

    def sends(self, file: Path, code: str) -> Path:
        """Send a file to a person. Returns where it is there."""
        return Path(shutil.copy(file, self.folder / code / file.name))


@pytest.fixture(scope="module", name="people")
def _people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    with ExitStack() as running:
        yield People(tmp_path_factory.mktemp("people"), running)


@pytest.fixture(scope="module", name="founded")
def _founded(people: People) -> Path:
    """Three founders with running nodes. Returns the federation file."""
    cards = {code: people.makes(code) for code in CODES}
    with_cards = [shutil.copy(cards[code], people.folder / "CH" / f"card-{code}.json") for code in CODES[1:]]
    state = people.folder / "CH" / "founding.json"
    for at, code in enumerate(CODES):
        given = with_cards if at == 0 else [state]
        state = people.folder / code / "founding.json"
        said = people.types(code, "found", "--node", people.officer(code).home, "--with", *given, "--out", state)
        assert f"signed by {at + 1} of 3" in said or "founded: all 3 members signed" in said
        if at < 2:
            assert f"send {state} to Institute" in said, "it says what to send to whom"
            state = people.sends(state, CODES[at + 1])
    for code in CODES[:2]:
        people.serves(code, "--federation", str(people.sends(state, code)))
    people.serves(CODES[2])
    return people.officer(CODES[2]).home / "federation.json"


@pytest.fixture(scope="module", name="founding")
def _founding(people: People, founded: Path) -> list[str]:
    """What was typed to found."""
    assert founded.exists()
    return list(people.typed)


def test_three_institutions_found_a_federation(people: People, founding: list[str], founded: Path) -> None:
    assert len(founding) == counted("Found a federation"), founding
    files = [people.officer(code).home / "federation.json" for code in CODES]
    assert len({read_federation(file).id for file in files}) == 1
    assert read_federation(founded).body.epoch == 0


def test_a_fourth_institution_joins_and_its_node_follows(people: People, founding: list[str], founded: Path) -> None:
    """Each person's command waits for the others; the newcomer's node starts last."""
    people.makes("BR")
    file, newcomer = people.sends(founded, "BR"), people.officer("BR")
    words = syllables(read_federation(founded).id)
    with ThreadPoolExecutor() as machines:
        joining = machines.submit(people.types, "BR", "join", file, "--node", newcomer.home, "--words", words, "--wait")
        first = people.officer("CH")
        wait_for(lambda: first.governance["asks"], "the request to wait at a node")
        admit = (
            "proposal",
            "new",
            "admit",
            card_of(newcomer.home).inception.id[:12],
            "--text",
            "they mirror us",
            "--wait",
        )
        proposing = machines.submit(people.types, "CH", *admit, "--node", first.home)
        wait_for(lambda: first.governance["drafts"], "the draft")
        draft = first.governance["drafts"][0]["body"][:12]
        for code in CODES[1:]:
            other = people.officer(code)
            wait_for(lambda: other.governance["drafts"], "the draft at the other nodes")  # noqa: B023
        voting = [
            machines.submit(
                people.types, code, "proposal", "approve", draft, "--wait", "--node", people.officer(code).home
            )
            for code in CODES[1:]
        ]
        for each in (proposing, *voting):
            assert "decided: the charter of epoch 1" in each.result()
        said = joining.result()
    assert "Institute BR (BR) is a member, by the charter of epoch 1" in said
    assert "pinned charter of epoch 1" in said
    people.serves("BR")
    typed = people.typed[len(founding) :]
    assert len(typed) == counted("Join a federation"), typed
    wait_for(lambda: newcomer.governance["epoch"] == 1, "the newcomer's own node to follow")
    wait_for(lambda: decided(newcomer)[0]["seen"], "cosigners to date the decision")
    newest, genesis = decided(newcomer)
    assert (newest["epoch"], newest["text"], len(newest["ratified"])) == (1, "they mirror us", 3)
    assert (genesis["epoch"], len(genesis["ratified"])) == (0, 3)
    (finding,) = [each for each in findings(newcomer) if each["topic"] == "federation"]
    assert finding["level"] == "ok", "doctor does not ask a member to join"


def decided(officer: Officer) -> list[dict[str, Any]]:
    """The decided epochs, as the member's client shows them."""
    return list(officer.comity("proposal", "ls", "--decided")["epochs"])


def findings(officer: Officer) -> list[dict[str, str]]:
    return list(json.loads(officer.run("doctor", "--node", officer.home, "--json").stdout)["findings"])
