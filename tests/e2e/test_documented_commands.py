"""Every block of commands in the README and the guides runs unchanged, beside a lab of four nodes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from comity.federation_file import Federation
from comity.trust.errors import Unavailable
from comity_cli.lab.lab import Lab
from comity_client.client import Client
from support.fenced import ROOT, Block, blocks
from support.hub_like import HubLike, hub_like
from support.officers import wait_for
from support.tools import needs
from support.walks import Person, cut_off, lab, small_model, spread

pytestmark = pytest.mark.slow

PAGES = ("README.md", "docs/guide/*.md")
FOUND = blocks(*PAGES)
RUN = {
    "README.md",
    *(f"docs/guide/{name}.md" for name in ("air-gap", "ml-engineer", "official", "operator", "other-languages")),
} | {"docs/guide/security-officer.md"}
"""Pages whose blocks the tests below run."""
NOT_RUN = {
    ("README.md", 1): "installs the package and downloads 83 MB: `.ci/run` runs the demo",
    ("README.md", 3): "installs the package and runs all tests: `.ci/run` does",
    ("docs/guide/ml-engineer.md", 4): "the kit has real weights, and runs until stopped: `test_real_kits.py` checks it",
    ("docs/guide/operator.md", 1): "installs from a package index into /opt, as root",
}
"""Blocks that no test here runs, and why. The test below fails for an entry that is not needed, and for one that is
missing.
"""
COMMIT = "6c1277e6c1277e6c1277e6c1277e6c1277e6c127"


TOPICS = blocks("docs/continuity.md", "docs/descent.md", "docs/kits.md", "docs/operations/costs.md")
TOPICS_NOT_RUN = {
    ("docs/continuity.md", 5): "what a command prints",
    ("docs/kits.md", 1): "builds a kit with real weights: `test_real_kits.py` does",
    ("docs/kits.md", 3): "builds that kit again: `test_real_kits.py` does",
    ("docs/kits.md", 4): "fetches packages of Debian: `test_real_kits.py` does",
    ("docs/kits.md", 5): "runs the image of that kit",
    ("docs/kits.md", 7): "serves until stopped",
    ("docs/kits.md", 8): "evaluates the kit with real weights",
}
"""Blocks of pages on one topic that no test here runs, and why."""


def of_topic(page: str) -> list[Block]:
    return [block for block in TOPICS if block.page == page and block.key not in TOPICS_NOT_RUN]


def of(page: str) -> list[Block]:
    return [block for block in FOUND if block.page == page and block.key not in NOT_RUN]


def test_at_most_four_blocks_are_not_run_and_each_has_a_reason() -> None:
    assert NOT_RUN.keys() <= {block.key for block in FOUND}
    assert len(NOT_RUN) <= 4
    assert {block.page for block in FOUND} == RUN
    assert TOPICS_NOT_RUN.keys() <= {block.key for block in TOPICS}


@dataclass(frozen=True)
class Scene:
    lab: Lab
    client: Client
    hub: HubLike
    commit: str
    root: Path

    def person(self, name: str, **instead: str) -> Person:
        """A user whose current folder is the lab's; the user's own state is in another folder."""
        return Person(self.lab.directory, self.root / name, self.hub, {COMMIT: self.commit, **instead})


@pytest.fixture(scope="module", name="scene")
def _scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    root = tmp_path_factory.mktemp("walk")
    with lab(root) as (running, client), hub_like() as hub:
        commit = hub.repository("org/name").commit({"config.json": b"{}\n"}, tag="v1.0").sha
        scene = Scene(running, client, hub, commit, root)
        furnish(scene)
        yield scene


def furnish(scene: Scene) -> None:
    """Put into the lab's folder, and publish, the files that the pages name."""
    folder = scene.lab.directory
    (folder / "train.py").write_text(
        "import huggingface_hub as h\nprint(h.snapshot_download('demo/all-MiniLM-L6-v2', revision='v1'))\n"
    )
    (folder / "token").write_text("secret\n")
    (folder / "token").chmod(0o600)
    (folder / "prices.toml").write_text('currency = "CHF"\nwatts = 150\n[prices]\nkwh = 0.27\n')
    (folder / "laws.toml").write_text('[laws]\n"hf:google" = "US"\n')
    (folder / "docs").symlink_to(ROOT / "docs")
    small_model(folder / "model")
    for name in ("minilm", "minilm-q8"):
        small_model(folder / name, "MiniLM")
    (folder / "minilm-q8" / "model.safetensors").rename(folder / "minilm-q8" / "other.safetensors")  # the same tensors
    small_model(folder / "tiny-2", "another")
    as_ = "--licence apache-2.0 --publisher 'Demo lab'"
    maker = Person(folder, scene.root / "maker", more={"COMITY_HOME": str(scene.client.home.root)})
    maker.does(
        f"""
        comity publish minilm --as demo/all-MiniLM-L6-v2@v1 {as_}
        comity publish minilm --as swiss-ai/apertus-8b@v1 {as_}
        comity publish model --as inst/tiny@v1 {as_}
        comity publish tiny-2 --as inst/tiny@v2 {as_}
        comity publish minilm-q8 --as inst/tiny-q8@v1 --parent quantized=inst/tiny@v1 {as_}
        """
    )
    minilm = "demo/all-MiniLM-L6-v2@v1"
    spread(scene.client, scene.root / "pulled", minilm, "inst/tiny@v1", "inst/tiny@v2", "inst/tiny-q8@v1")


def provider_grants(scene: Scene, request: str) -> str:
    """The provider answers the request. Returns the id of the grant."""
    provider = scene.person("provider")
    provider.does("comity trust pin federation.json")
    return str(json.loads(provider.does_at_last(f"comity grant approve {request} --dir node-ch --yes --json"))["line"])


@pytest.mark.parametrize("block", of("README.md"), ids=lambda block: str(block.number))
def test_the_readme(scene: Scene, block: Block) -> None:
    """With the installed program, as a reader of the README has it."""
    person = replace(scene.person(f"readme-{block.number}"), installed=True)
    person.does("\n".join(block.commands))


def test_the_guide_for_ml_engineers(scene: Scene) -> None:
    """Its third block publishes what the second reads."""
    pull, clients, publish, lineage = of("docs/guide/ml-engineer.md")
    person = scene.person("engineer", **{"https://models.example.org": scene.lab.nodes[0].endpoint})
    for block in (pull, publish, clients, lineage):
        person.does("\n".join(block.commands))


def test_the_guide_for_security_officers(scene: Scene) -> None:
    person = scene.person("security")
    said = [person.does("\n".join(block.commands)) for block in of("docs/guide/security-officer.md")]
    handed, loaded, _, _, verified, *_ = said
    assert "identified by its files; evidence fetched now from 4 of 4 nodes" in " ".join(handed.split())
    assert "accepted by ministry.toml" in " ".join(loaded.split())
    assert verified.endswith("0\n"), verified


def test_the_guide_for_officials(scene: Scene) -> None:
    vote, lend, costs = of("docs/guide/official.md")
    person = scene.person("official")
    person.does("comity trust pin federation.json")
    person.does("comity proposal new policy min_copies=2 --dir node-ch")
    draft = json.loads(person.does("comity proposal ls --json"))["drafts"][0]["body"]
    person.instead = {"9f2c41aa": draft[:8]}
    person.does("\n".join(vote.commands))
    offer = offered(scene)
    person.instead = {"9f2c41aa": offer[:8]}
    fit, request, *rest = lend.commands
    wait_for(lambda: json.loads(person.does("comity offer ls --json"))["offers"], "the offer to be known")
    person.does(f"{fit}\n{request}")
    wait_for(lambda: len(states(person)) == 1, "the request to be known")
    ((asked, _),) = states(person)
    person.instead["1f2e3d4c"] = provider_grants(scene, asked)[:8]
    wait_for(lambda: states(person) == [(asked, "granted")], "the grant to be known")
    person.does("\n".join((*rest, *costs.commands)))


def test_the_pages_of_descent_and_costs(scene: Scene) -> None:
    folder = scene.lab.directory
    rule = '[[rule]]\nname = "swiss"\ndo = "copy"\nrepositories = ["swiss-ai/*"]\n'
    (folder / "new-rules.toml").write_text(f'default = "skip"\n{rule}')
    person = scene.person("budget", **{"swiss-ai/tiny@v1": "demo/all-MiniLM-L6-v2@v1"})
    person.does("comity trust pin federation.json")
    (descent,), (mirror, costs) = of_topic("docs/descent.md"), of_topic("docs/operations/costs.md")
    said = person.does("\n".join((*descent.commands, *mirror.commands, *costs.commands)))
    assert "LAW OF ROOT" in said and "CHF A YEAR" in said


@pytest.mark.netns
def test_the_pages_of_kits_and_continuity(scene: Scene) -> None:
    """A kit whose engine answers without a model: it is built, checked, planned for, drilled, and its plan is kept."""
    folder, kit = scene.lab.directory, "example/our-chat@v1"
    person = scene.person("minister", **{"./smollm2-chat": "./our-chat-kit", "org/smollm2-chat@v1": kit})
    person.instead["sign-as Ministry"] = "sign-as 'Ministry of the Interior'"
    for name in ("wheels", "pulled-model"):
        (folder / name).mkdir()
    (build, check), (plan, keep, drill, report) = of_topic("docs/kits.md"), of_topic("docs/continuity.md")
    person.does("comity trust pin federation.json\ncomity publisher new 'Ministry of the Interior' --jurisdiction CH")
    person.does("\n".join((*build.commands, *check.commands)))
    person.does(f"comity publish ./our-chat-kit --as {kit} --licence Apache-2.0")
    person.does_at_last(f"comity kit show {kit}")
    begin, sign, checked = plan.commands
    person.does(begin)
    fill_in(folder)
    person.does(sign)
    amber_or_red = "|| test $? = 8 -o $? = 10"
    person.does(f"{checked} {amber_or_red}\n{keep.commands[0]} {amber_or_red}")
    assert (folder / "continuity.html").exists() and len(list((folder / "node-ch" / "continuity").iterdir())) == 1
    person.does(drill.commands[0])
    assert "PASSED" in person.does_at_last(report.commands[0]).upper()


def fill_in(folder: Path) -> None:
    """What only the ministry can decide: a policy that lets the kit in, and no evaluation and approval yet."""
    policy = 'schema = "comity/policy/v1"\n[[pin]]\nfile = "federation.json"\n'
    policy += '[safety]\nallow = ["chat-template", "wheels/*", "engine/*"]\n'
    (folder / "policy.toml").write_text(policy + '[rows]\nrequire = ["artifact", "bytes", "signatures"]\n')
    digest = hashlib.sha256((folder / "policy.toml").read_bytes()).hexdigest()
    text = (folder / "plan.toml").read_text()
    text = re.sub("^#(?=\\[policy\\]|file = )", "", text, flags=re.MULTILINE)
    text = re.sub('^#sha256 = "[^"]*"', f'sha256 = "{digest}"', text, flags=re.MULTILINE)
    text = re.sub("^(evaluation|approval) = .*\n", "", text, flags=re.MULTILINE)
    (folder / "plan.toml").write_text(text.replace("REPLACE-THIS", "Example AI Inc."))


def states(person: Person) -> list[tuple[str, str]]:
    """The requests for compute that a person is shown, each with its state."""
    found = json.loads(person.does("comity grant ls --json"))["grants"]
    return [(each["request"], each["state"]) for each in found]


def offered(scene: Scene) -> str:
    """An offer of the Swiss node, with a slice called `big`. Returns its id."""
    provider = scene.person("provider-first")
    provider.does("comity trust pin federation.json\ncomity offer new --jurisdiction CH --out offer.toml")
    template = scene.lab.directory / "offer.toml"
    template.write_text(template.read_text().replace('operator = ""', 'operator = "Example Institute"'))
    posted = json.loads(provider.does("comity offer post offer.toml --dir node-ch --yes --json"))
    return str(posted["offer"])


def test_the_guide_for_operators_beside_a_lab(scene: Scene) -> None:
    mirror, copies, drill, cost, serve = of("docs/guide/operator.md")[-5:]
    person = scene.person("operator", **{"swiss-ai/tiny@v1": "demo/all-MiniLM-L6-v2@v1"})
    person.does("comity trust pin federation.json")
    for block in (mirror, copies, drill, cost, serve):
        person.does("\n".join(block.commands))


def test_the_guide_for_nodes_without_a_network(scene: Scene) -> None:
    person = scene.person("carrier")
    person.does("comity trust pin federation.json")
    for block in of("docs/guide/air-gap.md"):
        person.does("\n".join(block.commands))


def test_the_guide_for_other_languages(scene: Scene) -> None:
    for program in ("go", "node"):
        needs(program, unlock="apt-get install golang-go nodejs")
    body = Federation.parse((scene.lab.directory / "federation.json").read_bytes()).body.digest
    person = scene.person("developer", **{"swiss-ai/tiny@v1": "demo/all-MiniLM-L6-v2@v1"})
    person.more = {"BODY": body, "GATEWAY": scene.lab.nodes[1].endpoint, "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
    for block in of("docs/guide/other-languages.md"):
        person.does("\n".join(block.commands))


FOUNDERS = ("ch", "kr", "sg")


def as_(code: str, line: str) -> str:
    """A line of the guide, as the member of `code` types it."""
    return re.sub(r"\bCH\b", code.upper(), line).replace("-ch", f"-{code}")


@pytest.mark.netns
def test_the_guide_for_operators_founds_a_federation_runs_a_node_and_joins_another(tmp_path: Path) -> None:
    """In a network of its own, where the names of the guide are those of this machine, and its ports are free."""
    init, found, encrypt, run, watch, join = of("docs/guide/operator.md")[1:7]
    ((make,), (begin, go_on), run_lines, (apply,)) = (block.commands for block in (init, found, run, join))
    lines = [as_(code, make) for code in (*FOUNDERS, "es")]
    lines += [f"cp node-{code}.example.org/node-card.json node-card-{code}.json" for code in FOUNDERS]
    serve, status = run_lines
    lines += [begin, *(go_on.replace("-es", f"-{code}") for code in FOUNDERS[1:]), *encrypt.commands, serve]
    lines += [f"{status} || test $? = {Unavailable.exit_status}"]  # the other nodes do not run
    lines += ["cp node-ch.example.org/federation.json .", *watch.commands, "comity trust pin federation.json"]
    for program in ("openssl", "curl"):
        needs(program, unlock=f"apt-get install {program}")
    person = Person(tmp_path, tmp_path / "state", within=named_network(tmp_path))
    said = person.does("\n".join((*lines, apply)))
    assert said.count('"status":"ready"') == 1 and said.count('"status": "ready"') == 1, said
    assert "comity_log_entries{" in said
    assert "node-ch.example.org" in said.rpartition("pinned charter")[2], said


def named_network(folder: Path) -> tuple[str, ...]:
    """The prefix of a command that runs it in an empty network, where `node-ch.example.org` is this machine and no
    other machine is reached.
    """
    hosts = folder / "hosts"
    others = " ".join(f"node-{code}.example.org" for code in (*FOUNDERS[1:], "es"))
    hosts.write_text(f"127.0.0.1 localhost node-{FOUNDERS[0]}.example.org\n192.0.2.1 {others}\n")
    return cut_off(f"mount --bind {hosts} /etc/hosts")
