"""Eight users go from an empty folder to what they wanted, by the lines of docs/journeys.md, and make mistakes on the
way.

The terminal shows no traceback and no line of a table that is wider than 80 columns. The command that an error names is
typed next, and the program accepts it. `test_joining` does the two journeys of several institutions, and
`test_documented_commands` runs all blocks of the guides.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import urljoin

import pytest
from comity_cli.lab.lab import Lab
from comity_client.client import Client
from support.command_lines import advised
from support.environments import TRANSFORMERS, python_with
from support.journeys import COUNTS, lines_of, program_of
from support.officers import change, wait_for
from support.ports import free_port
from support.tools import needs
from support.walks import Person, Ran, cut_off, lab, small_model, spread

pytestmark = pytest.mark.slow

MOST = {
    "ML engineer": 3,
    "Publisher": 6,
    "Builder of a kit": 6,
    "Operator": 7,
    "Security officer": 6,
    "Official": 1,
    "Lender": 5,
    "Air-gapped site": 7,
    "Found a federation": 9,
    "Join a federation": 6,
}
"""A journey never takes more commands than it took. A change that shortens one lowers its number."""
USAGE = 2
_TRY = re.compile(r"^\s*try: +(.*)$", re.MULTILINE)
_STANDS_FOR = re.compile(r"[A-Z][A-Z-]+\Z|.*…")
"""A word that the reader has to replace, such as FILE."""


def test_the_page_counts_its_lines_and_no_journey_takes_more_than_it_took() -> None:
    assert COUNTS.keys() == MOST.keys()
    assert all(count <= MOST[name] for name, count in COUNTS.items())
    alone = [name for name in COUNTS if not name.endswith("a federation")]
    assert {name: COUNTS[name] for name in alone} == {name: len(lines_of(name)) for name in alone}


@dataclass(frozen=True)
class PublishedLab:
    """A running lab in which `demo/tiny` has two versions, and the client of its publisher."""

    lab: Lab
    client: Client
    root: Path

    def person(self, name: str, *homes: str, **instead: str) -> Person:
        """Somebody in a folder of their own, with the federation file and these homes of nodes in it. `instead`: what
        they type for a word of the page."""
        folder = self.root / name / "folder"
        folder.mkdir(parents=True)
        (folder / "federation.json").write_bytes(self.lab.federation.read_bytes())
        for home in homes:
            (folder / home).symlink_to(self.lab.directory / home)
        return Person(folder, self.root / name, instead=instead)

    def publish(self, version: str, *, nodes: int = 4) -> None:
        """Publish a version of `demo/tiny`, and wait until so many nodes of the lab hold it."""
        folder = tokenised_model(self.root / "published" / version)
        maker = Person(self.root, self.root / "maker", more={"COMITY_HOME": str(self.client.home.root)})
        maker.does(f"comity publish {folder} --as demo/tiny@{version} --licence apache-2.0 --publisher 'Demo lab'")
        spread(self.client, self.root / "pulled", f"demo/tiny@{version}", count=nodes)


def tokenised_model(folder: Path) -> Path:
    """A small model that `transformers` can load by its name, as far as that needs no other library."""
    small_model(folder, folder.name)
    (folder / "config.json").write_text('{"model_type": "bert", "hidden_size": 8, "num_attention_heads": 2}\n')
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}\n')
    words = {"type": "WordLevel", "vocab": {"[UNK]": 0, "hello": 1, "world": 2}, "unk_token": "[UNK]"}
    rest = dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder"))
    parts: dict[str, object] = {
        "version": "1.0",
        "added_tokens": [],
        **rest,
        "pre_tokenizer": {"type": "Whitespace"},
        "model": words,
    }
    (folder / "tokenizer.json").write_text(json.dumps(parts))
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PublishedLab]:
    root = tmp_path_factory.mktemp("published")
    with lab(root) as (running, client):
        made = PublishedLab(running, client, root)
        for version in ("v1", "v2"):
            made.publish(version)
        yield made


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
    pin, pull, load = lines_of("ML engineer")
    person = published.person("ml-engineer")
    person.has_program("python", f'exec {python_with(TRANSFORMERS)} "$@"')
    (person.folder / "load.py").write_text(program_of("ML engineer"))
    mistaken(person, pull, said="pin")
    person.does(pin)
    assert "demo/tiny" in person.does("comity search tiny")
    mistaken(person, "comity pull demo/tiny@v9", said="v2")
    person.does(pull)
    assert person.does(load).splitlines()[-2:] == ["bert", "[1, 2]"]
    person.does("comity verify demo/tiny@v1")
    assert max(map(len, on_a_terminal(person, "comity search tiny"))) <= 80
    assert "did you mean" in person.types("comity donwload demo/tiny").said.lower()


def test_a_publisher(published: PublishedLab) -> None:
    pin, new, first, copies, second, yank = lines_of("Publisher")
    person = published.person("publisher")
    for name in ("model", "model-2"):
        small_model(person.folder / name, name)
    person.does(f"{pin}\n{new}")
    mistaken(person, "comity publish model --as example/model@v1 --licence Apache2", said="Apache-2.0")
    person.does(first)
    wait_for(lambda: [each["complete"] for each in replicas(person, copies)] == [True] * 4, "all nodes to hold it")
    assert all(node.name in person.does(copies) for node in published.lab.nodes)
    person.does_at_last("comity pull example/model@v1 --out verified")  # the default policy asks for two cosigners
    person.does(f"{second}\n{yank}")
    assert "wrong tokenizer" in person.does_at_last("comity advisory ls example/model@v1 | grep yank")
    assert "example/model@v2" in person.does_at_last("comity pull example/model --out newest")


def test_a_builder_of_a_kit(published: PublishedLab) -> None:
    pin, new, recipe, build, publish, show = lines_of("Builder of a kit")
    person = published.person("builder")
    person.does(f"{pin}\n{new}\n{recipe}")
    mistaken(person, "comity kit build our-chat our-chat", said="exists")
    built = person.does(f"{build}\n{publish}")
    mistaken(person, "comity kit show demo/tiny@v1", said="no run-kit")
    shown = person.does_at_last(show)
    assert "our-chat, chat" in shown and re.findall(r"sha256:[0-9a-f]{64}", shown)[0] in built


def replicas(person: Person, line: str) -> list[dict[str, object]]:
    return list(json.loads(person.does(f"{line} --json"))["replicas"])


def test_an_operator(published: PublishedLab) -> None:
    init, join, serve, status, back_up, restore, serve_again = lines_of("Operator")
    person = published.person("operator", "node-ch")
    person.instead = {f"node-jp.example.org:{port}": f"127.0.0.1:{free_port()}" for port in (7443, 7444)}
    mistaken(person, "comity init --jurisdiction UK --org 'Example' --name node-uk", said="GB")
    with person.terminal() as machine:
        machine.does(init)
        quick = {"interval_seconds": 0.5, "first_answer_seconds": 1.0}
        change(person.folder / "node-jp.example.org", http="", files="", ranges="", **quick)
        assert "Example Institute Tokyo" in machine.does(join)
        machine.does(serve)
        wait_for(lambda: copied(person, status) >= 2, "the new node to have both versions")
        assert "node-ch" in machine.does(status)
        (digest,) = re.findall(r"\b[0-9a-f]{64}\b", machine.does(back_up).split("digest")[1])[:1]
    (person.folder / "node-jp.example.org").rename(person.folder / "lost")
    person.instead["9f2c41aa"] = digest
    with person.terminal() as another:
        another.does(restore)
        another.does(serve_again)
        wait_for(lambda: copied(person, status) >= 2, "the restored node to have both versions")
    shown = on_a_terminal(person, "comity status")
    assert max(map(len, shown)) <= 80, shown
    assert all(any(line.startswith(node.name) for line in shown) for node in published.lab.nodes), shown
    mistaken(person, "comity status --node ./nowhere", said="nowhere")
    mistaken(person, "comity serve --dir ./node-ch", said="in use")


def copied(person: Person, status: str) -> int:
    """How many artifacts a node holds, by its own word."""
    return int(json.loads(person.does(f"{status} --json || true"))["holds"])


@pytest.mark.netns
def test_a_security_officer(published: PublishedLab) -> None:
    pin, new_policy, pull, publisher, verify, check = lines_of("Security officer")
    person = published.person("security-officer")
    person.does("\n".join((pin, new_policy, pull, publisher)))
    person.does("comity policy check ministry.toml")
    person.within = cut_off()
    assert "ACCEPTED" in person.does(verify)
    person.does(check)
    (person.folder / "tiny" / "config.json").chmod(0o644)
    (person.folder / "tiny" / "config.json").write_text("{}")
    refused = mistaken(person, "comity verify tiny --policy ministry.toml", said="config.json")
    assert refused.status == 3


def test_a_lender(published: PublishedLab) -> None:
    new, post, requests, approve, offers = lines_of("Lender")
    lender, borrower = published.person("lender", "node-kr"), published.person("borrower", "node-es")
    lender.does(f"{new}\n{post}")
    borrower.does("comity trust pin federation.json")
    mistaken(borrower, "comity offer show 00000000", said="no offer")
    borrower.does_at_last("comity offer ls | grep Daejeon")
    (offer,) = json.loads(borrower.does("comity offer ls --json"))["offers"]
    borrower.does(f"comity offer request {offer['chain'][:12]} --want big:1 --node node-es")
    lender.does_at_last(f"{requests} | grep requested")
    (asked,) = json.loads(lender.does(f"{requests} --json"))["grants"]
    lender.instead["1f2e3d4c"] = asked["request"][:8]
    lender.does(approve)
    assert "Daejeon" in lender.does(offers)
    borrower.does_at_last("comity grant ls | grep granted")
    assert max(map(len, on_a_terminal(borrower, "comity offer ls"))) <= 80


def test_an_official(published: PublishedLab) -> None:
    """Two other members propose and approve; the official's vote is the third of a quorum of three."""
    (approve,) = lines_of("Official")
    official, proposer, other = (published.person(f"official-{code}", f"node-{code}") for code in ("es", "ch", "kr"))
    overview = page(published.lab.nodes[1].endpoint)
    with ThreadPoolExecutor() as machines:
        propose = "comity proposal new policy min_copies=2 --text 'four members' --wait --node node-ch"
        proposing = machines.submit(proposer.does, propose)
        wait_for(lambda: "min_copies" in proposals(overview) or "four members" in proposals(overview), "the draft")
        (draft,) = set(re.findall(r"comity proposal approve ([0-9a-f]+)", proposals(overview)))
        assert approve.replace("9f2c41aa", draft).replace("node-es", "HOME") in proposals(overview)
        official.instead["9f2c41aa"] = other.instead["9f2c41aa"] = draft
        approving = machines.submit(other.does, approve.replace("node-es", "node-kr"))
        assert "decided" in official.does(approve)
        assert "decided" in proposing.result() and "decided" in approving.result()
    wait_for(lambda: "No change of the charter is open" in proposals(overview), "the page to say that it is decided")
    official.does("comity proposal ls\ncomity member ls")
    assert "Example Centre Barcelona" in official.does("comity impact --all")
    mistaken(official, "comity impact XX", said="XX")


@dataclass(frozen=True)
class Page:
    url: str
    text: str

    def follow(self, link: str) -> Page:
        """The page behind a link, by its text."""
        found = re.search(rf'<a [^>]*?href="([^"]+)"[^>]*>\s*{re.escape(link)}\s*</a>', self.text)
        assert found, f"no link {link!r} at {self.url}"
        return page(urljoin(self.url, unescape(found[1])))


def page(url: str) -> Page:
    asked = urllib.request.Request(url, headers={"Accept": "text/html"})
    with urllib.request.urlopen(asked) as answer:
        return Page(answer.url, answer.read().decode())


def proposals(overview: Page) -> str:
    return unescape(overview.follow("Proposals").text)


def cosigned_for_the_charter(said: str, exported: Path) -> bool:
    """Whether an export has what a policy asks for. One that warns of too few cosigners is removed."""
    if short := "is cosigned by" in said:
        assert "comity export --since stick" in said
        shutil.rmtree(exported)
    return not short


@pytest.mark.netns
def test_an_air_gapped_site(published: PublishedLab) -> None:
    """The last one: it takes the fourth node of the lab away, and publishes what that node never saw."""
    pin, export, carry, serve, load, pin_inside, pull = lines_of("Air-gapped site")
    node = published.lab.nodes[3]
    published.lab.kill(node)
    published.publish("v3", nodes=3)
    stick = {"/media/stick": str(published.root / "stick")}
    outside, inside = published.person("carrier", **stick), published.person("site", node.name, **stick)
    (inside.folder / "federation.json").unlink()
    (published.root / "stick").mkdir()
    outside.does(pin)
    wait_for(lambda: cosigned_for_the_charter(outside.does(export), outside.folder / "stick"), "cosigned logs")
    outside.does(carry)
    change(node.home, first_answer_seconds=1.0)
    inside.within = cut_off()
    with inside.terminal() as site:
        for address in (published.lab.nodes[0].address, "192.0.2.1:80"):
            host, _, port = address.rpartition(":")
            reached = site.types(f"python3 -c 'import socket; socket.create_connection((\"{host}\", {port}), 5)'")
            assert reached.status != 0 and ("unreachable" in reached.said or "refused" in reached.said), reached
        site.does(serve)
        assert "v3" in site.does(load)
        site.does(pin_inside)
        wait_for(lambda: site.types(pull).status == 0, "the evidence that the policy asks for")
        assert "accepted" in site.does("comity verify tiny").lower()
