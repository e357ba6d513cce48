"""The day of the cut, on this machine: a vendor's chat service is cut off, and a run-kit answers at the same address.

Four partners found a federation. A chat kit with real weights is built, published, mirrored, evaluated by criteria that
were announced first, and approved; a ministry's continuity plan names it. Then the vendor is gone, and the node under
the same law with it. The drill pulls the kit from the nodes that are left, runs it without a network, and reports. A
client that knows one base URL is answered before and after.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import importlib.util
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from comity.rules.kits.cases import KitCases
from comity.rules.kits.description import SAMPLES_FILE
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, Unavailable, Untrusted
from comity.trust.exit_statuses import OK, PARTIAL
from comity.trust.report import RESULTS

from comity_cli.lab.demo_steps import DemoSteps
from comity_cli.lab.lab import Lab
from comity_cli.lab.one_address import OneAddress, one_address
from comity_cli.output import plural, size

KIT_NAME: Final = "demo/smollm2-chat@v1"
SERVICE: Final = "chat"
SCOPE: Final = "ministry-interior"
SUITE: Final = "smollm2-samples"
LAW: Final = "CH"
"""Under the law of this jurisdiction the vendor is; it is cut off with all that the law reaches."""
HOLDS, PARTLY = "green", "amber"
BEFORE: Final = {"never-drilled": PARTLY}
"""What `comity continuity check` finds before the first drill: the kinds of links with gaps, and their colours."""
SERVE_SECONDS: Final = 150.0
SERVING: Final = "serving at"
QUESTION: Final = "What is the capital of France? Answer in one word."
EXPECTED: Final = "Paris"
RECIPE: Final = Path(__file__).parents[3] / "deploy" / "kits" / "smollm2-chat"
_OPENAI: Final = """
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=60)
messages = [{"role": "user", "content": sys.argv[2]}]
answer = client.chat.completions.create(model="chat", messages=messages, max_tokens=24, temperature=0)
print(answer.choices[0].message.content)
"""
_PLAIN: Final = """
import json, sys, urllib.request
body = {"model": "chat", "max_tokens": 24, "temperature": 0, "messages": [{"role": "user", "content": sys.argv[2]}]}
headers = {"Content-Type": "application/json"}
request = urllib.request.Request(sys.argv[1] + "/chat/completions", json.dumps(body).encode(), headers)
with urllib.request.urlopen(request, timeout=60) as response:
    print(json.load(response)["choices"][0]["message"]["content"])
"""
POLICY: Final = """\
schema = "comity/policy/v1"

[[pin]]
file = "federation.json"

[cosigners]
at_least = 2
jurisdictions = 2

[safety]
allow = ["chat-template", "wheels/*", "engine/*"]

[rows]
require = ["artifact", "bytes", "signatures", "key policy", "transparency", "cosigners"]
"""
CRITERIA: Final = """\
suite = "{suite}"
suite_version = "1"
samples = {samples}
dataset = "{dataset}"
harness = "comity kit evaluate"

[[claims]]
metric = "pass_rate"
comparator = ">="
threshold = "0.75"
"""
PLAN: Final = """\
schema = "comity/continuity-plan/v1"
owner = "{owner}"
name = "Example Ministry"
until = {until}

[policy]
file = "policy.toml"
sha256 = "{policy}"

[[service]]
name = "chat"
in_use = {{ kind = "external", vendor = "Example AI", jurisdiction = "CH", base_url = "{base_url}" }}
used_by = ["letters to citizens"]
must_survive = ["reach:CH", "dns", "package-index"]
longest_outage = 30

[[service.fallback]]
kit = {{ name = "{kit}", artifact = "{artifact}" }}
evaluation = {{ by = "{owner}", suite = "{suite}", metric = "pass_rate", at_least = "0.75", within_days = 180 }}
approval = {{ scope = "{scope}", by = ["{owner}"] }}
machines = {{ own = {{ memory_gib = 1, disk_gib = 1, platform = "linux/x86_64" }} }}
copies = {{ outside = 2, tested_within_days = 7 }}
checked_within_days = 7
drilled_within_days = 90
"""


@dataclass
class CutDemo(DemoSteps):
    """One run, in `directory`: the lab's nodes, a publisher, a ministry and a vendor."""

    recipe: Path = RECIPE
    report: dict[str, Any] = field(default_factory=dict)
    _vendor: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def kit(self) -> Path:
        return self.directory / "kit"

    @property
    def plan(self) -> Path:
        return self.directory / "plan.toml"

    @property
    def pulled(self) -> Path:
        return self.directory / "pulled"

    @property
    def policy(self) -> Path:
        return self.directory / "policy.toml"

    @property
    def file(self) -> Path:
        return self.directory / "drill.json"

    def run(self) -> None:
        """Run all steps. Raises if the check of a step fails. All processes end with this one."""
        if not (self.recipe / "kit.toml").is_file():
            raise NotFound("the recipe of the chat kit is not here", why=str(self.recipe), hint="run it in a clone")
        with one_address() as address:
            try:
                self._run(address)
            finally:
                self._end_vendor()

    def _run(self, address: OneAddress) -> None:
        with self._step("A vendor serves the ministry", "a client knows one base URL, and is answered") as say:
            address.to = self._start_vendor()
            say(f"{self._ask(address)!r}  ({_client_words()}, {address.base_url})")
        with self._step("Four partners found a federation", "by files; all partners have equal rights") as say:
            publisher = self._new_publisher()
            lab = Lab.create(self.directory, {"demo": publisher})
            say(", ".join(f"{node.name} ({node.jurisdiction})" for node in lab.nodes))
        try:
            lab.up(end_with_parent=True)
            self._prepare(lab, address)
            self._cut(lab, address)
        finally:
            lab.down()

    def _prepare(self, lab: Lab, address: OneAddress) -> None:
        origin, *others = lab.nodes
        with self._step("Build the chat kit", "engine, weights and licences in one folder, every part by hash") as say:
            self._build_kit(say)
        with self._step("Publish and mirror it", "three other states have every byte and cosign the log") as say:
            self._comity(self.publisher_home, "trust", "pin", str(lab.federation), "--yes")
            words = [str(self.kit), "--as", KIT_NAME, "--licence", "Apache-2.0", "--node", origin.name]
            receipt = self._comity(self.publisher_home, "publish", *words)
            artifact, size_ = Digest(receipt["artifact"]), receipt["logged"][0]["size"]
            self._wait_until(lambda: self._copied(KIT_NAME, others), "the other nodes made no full copies")
            self._wait_until(lambda: self._cosigned(origin, others, size_), "the log was not cosigned by all")
            say(f"sha256:{artifact}, copied and cosigned by {', '.join(node.name for node in others)}")
        with self._step("The ministry makes its plan", "evaluated, approved and signed before the day") as say:
            self._make_plan(lab, artifact, address, say)

    def _build_kit(self, say: Callable[[str], None]) -> None:
        built = self._comity(self.publisher_home, "kit", "build", str(self.recipe), str(self.kit))
        say(f"{built['name']}: {plural(len(built['parts']), 'part')}, {size(built['bytes'])}")

    def _make_plan(self, lab: Lab, artifact: Digest, address: OneAddress, say: Callable[[str], None]) -> None:
        home, node = self.user_home, lab.nodes[1].name
        self._comity(home, "trust", "pin", str(lab.federation), "--yes")
        new = self._comity(home, "publisher", "new", "Ministry", "--jurisdiction", "ES", "--home", f"{node}/log")
        self.policy.write_text(POLICY)
        self._check_kit(say)
        self._evaluate(node, say)
        shutil.rmtree(self.pulled)  # the drill has to pull from the nodes that are left
        until = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=90)).date()
        approve = ["approve", KIT_NAME, "--scope", SCOPE, "--until", until.isoformat(), "--node", node, "--yes"]
        self._comity(home, *approve)
        say(f"approved for {SCOPE} until {until}")
        text = PLAN.format(
            owner=new["id"],
            until=until,
            policy=sha256(POLICY.encode()),
            base_url=address.base_url,
            kit=KIT_NAME,
            artifact=artifact,
            suite=SUITE,
            scope=SCOPE,
        )
        self.plan.write_text(text)
        signed = self._comity(home, "continuity", "sign", str(self.plan), "--node", node)
        say(f"plan signed until {signed['until']}, logged at {', '.join(signed['logged'])}")
        self._check_plan(say, BEFORE)

    def _check_kit(self, say: Callable[[str], None]) -> None:
        """Pull the kit as the ministry, and run its self-test; the check is kept in the ministry's home."""
        self._comity(self.user_home, "pull", KIT_NAME, "--out", str(self.pulled), "--policy", str(self.policy))
        words = ("kit", "check", str(self.pulled), "--policy", str(self.policy))
        checked = self._comity(self.user_home, *words)
        say(f"kit check: {checked['state']} ({', '.join(row['name'] for row in checked['rows'])})")

    def _evaluate(self, node: str, say: Callable[[str], None]) -> None:
        """Announce the criteria, ask the samples, and log the result."""
        data = (self.pulled / SAMPLES_FILE).read_bytes()
        criteria, made, results = (self.directory / name for name in ("criteria.toml", "criteria.json", "results.json"))
        count = len(KitCases.parse(data).cases)
        criteria.write_text(CRITERIA.format(suite=SUITE, samples=count, dataset=sha256(data)))
        announce = ("evaluation", "announce", KIT_NAME, "--criteria", str(criteria), "--out", str(made))
        self._comity(self.user_home, *announce, "--node", node)
        words = ("kit", "evaluate", str(self.pulled), "--out", str(results), "--policy", str(self.policy))
        measured = self._comity(self.user_home, *words)
        report = ("evaluation", "report", KIT_NAME, "--criteria", str(made), "--results", str(results))
        self._comity(self.user_home, *report, "--node", node)
        rate, asked = measured["pass_rate"], plural(measured["samples"], "sample")
        say(f"{asked} asked, pass rate {rate}; the criteria were logged before")

    def _check_plan(self, say: Callable[[str], None], expected: Mapping[str, str]) -> None:
        """Check the plan as the official does. Raises Untrusted if other links than `expected` (kind to state) have
        problems, and the error of the command if it ends with the status of another colour."""
        colour, status = (PARTLY, PARTIAL) if expected else (HOLDS, OK)
        words = ("continuity", "check", str(self.plan))
        checked = self._comity(self.user_home, *words, expected=(status,))
        service = checked["services"][0]
        links = [*service["links"], *(link for each in service["fallbacks"] for link in each["links"])]
        problems = [link for link in links if link["kind"]]
        found = {link["kind"]: link["state"] for link in problems}
        if (service["state"], found) != (colour, expected):
            raise Untrusted("the plan has another colour than it should", why=f"{service['state']}: {found}")
        say(f"{service['name']} is {colour} (exit {status})")
        for link in problems:
            say(f"{link['state']}: {link['text']} [{link['kind']}]")

    def _cut(self, lab: Lab, address: OneAddress) -> None:
        with self._step("The cut", f"the vendor is gone, and so is every node that the law of {LAW} reaches") as say:
            fallen = [node for node in lab.nodes if node.jurisdiction == LAW]
            self._end_vendor()
            for node in fallen:
                lab.kill(node)
            if self._is_answered(address):
                raise Untrusted("the service was not cut off", why="a client is still answered")
            say(f"no answer at {address.base_url}; {', '.join(node.name for node in fallen)} killed")
        home = lab.nodes[1].name
        with (
            self._step("The drill", "the plan replaces it: pulled, verified, run without a network") as say,
            self._drilling(home, address, say),
        ):
            answer = self._ask(address)
            if EXPECTED not in answer:
                raise Untrusted("the kit gave another answer", why=repr(answer))
            say(f"{answer!r}  (the same client, the same base URL)")
        with self._step("The official's report", "signed, logged, and between which times it took place") as say:
            checked = self._comity(
                self.user_home, "continuity", "report", "check", str(self.file), "--plan", str(self.plan),
                "--proven-times",
            )  # fmt: skip
            self.report = checked
            say(f"{RESULTS[checked['passed']]}: the first verified answer came after {checked['answered']} s")
            say(f"the agreed quality was reached after {checked['quality']} s")
            say(f"not begun before {checked['begun_after']}, logged by {checked['logged_by']}, as members cosigned")
            say(f"report sha256:{checked['report']}")
        with self._step("The plan after the drill", "it says what holds now, and what does not") as say:
            self._check_plan(say, {})

    @contextlib.contextmanager
    def _drilling(self, node: str, address: OneAddress, say: Callable[[str], None]) -> Iterator[None]:
        """Run the drill as the official does, until it serves; stop it after the block, and check how it ended."""
        address.to = _free_port()
        shown = f"continuity drill {SERVICE} --plan plan.toml --sign-as Ministry --node {node} --serve".split()
        say(f"$ comity {' '.join(shown)}")
        files = ["--out", str(self.file), "--html", str(self.file.with_suffix(".html"))]
        command = [sys.executable, "-m", "comity_cli.main", *shown, *files, "--port", str(address.to)]
        environment = {**self._environment(self.user_home), "COLUMNS": "200", "NO_COLOR": "1"}
        with subprocess.Popen(
            command, env=environment, cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as drill:
            late = threading.Timer(SERVE_SECONDS, drill.kill)
            late.start()
            try:
                said = list(_said_until(drill, SERVING, say))
                if drill.poll() is not None or SERVING not in said[-1]:
                    raise Unavailable("the kit does not answer", why=" / ".join(said[-3:]))
                yield
                drill.send_signal(signal.SIGTERM)
                said = list(_said_until(drill, "", say))
            finally:
                late.cancel()
                drill.kill()
        if drill.returncode:
            raise Untrusted("the drill failed", why=f"exit {drill.returncode}: {' / '.join(said[-3:])}")

    def _start_vendor(self) -> int:
        """Start the vendor's stand-in, and return its port."""
        command = [sys.executable, "-m", "comity_cli.lab.vendor_stub"]
        self._vendor = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._vendor.stdout is not None
        return int(self._vendor.stdout.readline())

    def _end_vendor(self) -> None:
        if self._vendor is not None:
            with self._vendor:
                self._vendor.kill()
            self._vendor = None

    def _ask(self, address: OneAddress) -> str:
        """The answer that a client gets at the base URL. Raises Unavailable."""
        script = _OPENAI if _has_openai() else _PLAIN
        return _run_client([sys.executable, "-c", script, address.base_url, QUESTION])

    def _is_answered(self, address: OneAddress) -> bool:
        try:
            return bool(_run_client([sys.executable, "-c", _PLAIN, address.base_url, QUESTION]))
        except Unavailable:
            return False


def _said_until(process: subprocess.Popen[str], last: str, say: Callable[[str], None]) -> Iterator[str]:
    """The lines that a process prints, up to one with `last` in it, or to its end; each is said too."""
    assert process.stdout is not None
    for line in process.stdout:
        say(line.rstrip())
        yield line.rstrip()
        if last and last in line:
            return
    process.wait()


def _run_client(command: Sequence[str]) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise Unavailable("the service does not answer", why=ran.stderr.strip()[-300:])
    return ran.stdout.strip()


def _has_openai() -> bool:
    return importlib.util.find_spec("openai") is not None


def _client_words() -> str:
    """The client that asks, in words."""
    if not _has_openai():
        return "plain HTTP: the openai client is not installed here"
    return f"openai {importlib.metadata.version('openai')}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
