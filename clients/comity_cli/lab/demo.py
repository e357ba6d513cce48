"""The demo: publish real weights, mirror them, lose the publisher, pull, verify and load, all on this machine.

At the end the unmodified Hugging Face client loads the weights in a process
of its own, offline, from the cache that a pull wrote.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from comity.trust.artifact import Manifest
from comity.trust.errors import Unavailable, Untrusted
from comity.trust.places import count_reaches
from comity_client.kits.isolation import offline

from comity_cli.lab import seclusion
from comity_cli.lab.demo_steps import DemoSteps
from comity_cli.lab.lab import Lab, LabNode
from comity_cli.lab.weights import real_weights
from comity_cli.output import plural, size

_SNAPSHOT: Final = """
import sys, huggingface_hub
for revision in sys.argv[2:]:
    print(huggingface_hub.snapshot_download(sys.argv[1], revision=revision, local_files_only=True))
"""
_TRANSFORMERS: Final = """
import sys
from transformers import AutoConfig, AutoTokenizer
config = AutoConfig.from_pretrained(sys.argv[1], revision=sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], revision=sys.argv[2])
print(type(config).__name__, len(tokenizer), tokenizer("Nobody can take it away.")["input_ids"][:8])
"""


def _load(hub_cache: Path, repository: str, snapshot: Path) -> Iterator[str]:
    """Load `repository` by version and by commit id. Yields result lines. Raises Untrusted if loading fails."""
    import huggingface_hub

    commit = snapshot.name
    paths = _run_script(_SNAPSHOT, hub_cache, repository, "v1", commit).splitlines()
    manifest = Manifest.parse((snapshot / ".comity" / "manifest.json").read_bytes())
    for path in paths:
        missing = [entry.path for entry in manifest.files if not (Path(path) / entry.path).is_file()]
        if Path(path).resolve() != snapshot.resolve() or missing:
            raise Untrusted("the Hugging Face client found another snapshot", why=f"{path}; missing: {missing[:3]}")
    yield f"huggingface_hub {huggingface_hub.__version__}: {len(manifest.files)} files by revision 'v1' and by {commit}"
    if importlib.util.find_spec("transformers") is None:
        yield "transformers is not installed here: AutoConfig and AutoTokenizer not tried"
        return
    config, length, *tokens = _run_script(_TRANSFORMERS, hub_cache, repository, commit).split(maxsplit=2)
    yield f"transformers: {config}, a tokenizer of {length} entries, tokens {' '.join(tokens)}"


def _run_script(script: str, hub_cache: Path, *arguments: str) -> str:
    environment = {**os.environ, "HF_HUB_CACHE": str(hub_cache), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", script, *arguments]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise Untrusted("the Hugging Face client did not load the model", why=ran.stderr.strip()[-400:])
    return ran.stdout.strip()


REPOSITORY: Final = "demo/all-MiniLM-L6-v2"
REFERENCE: Final = f"{REPOSITORY}@v1"
POLICY: Final = """\
schema = "comity/policy/v1"

[[pin]]
file = "federation.json"

[cosigners]
at_least = 2
jurisdictions = 2
outside = ["publisher"]

[rows]
require = ["artifact", "bytes", "signatures", "key policy", "transparency", "cosigners"]
"""


@dataclass
class Demo(DemoSteps):
    """One run, in `directory`: the lab's nodes, a publisher and a user, each with its own home."""

    model: Path | None = None
    left: Mapping[str, int] = field(default_factory=dict)
    """Copies, jurisdictions and reaches that are left at the end."""

    @property
    def hub_cache(self) -> Path:
        return self.directory / "hub"

    def run(self) -> None:
        """Run all steps. Raises if the check of a step fails. The nodes always end with this process."""
        with self._step("Real weights", "the bytes are a widely used model, pinned by SHA-256") as say:
            with self.output.progress("fetching", 0) as bar:
                model = self.model or real_weights(say, begin=bar.restart, advance=bar.advance)
            total = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
            say(f"{model.name}, {size(total)}")
        with self._step(
            "Four partners found a federation", "unanimous, by files; all partners have equal rights"
        ) as say:
            publisher = self._new_publisher()
            lab = Lab.create(self.directory, {"demo": publisher})
            say(", ".join(f"{node.name} ({node.jurisdiction})" for node in lab.nodes))
        try:
            lab.up(end_with_parent=True)
            self._run_steps(lab, model)
        finally:
            lab.down()

    def _run_steps(self, lab: Lab, model: Path) -> None:
        origin, *others = lab.nodes
        with self._step("Publish", f"signed by the publisher's hybrid keys, logged at {origin.name}") as say:
            self._comity(self.publisher_home, "trust", "pin", str(lab.federation), "--yes")
            card = ["--card", str(model / "README.md")] if (model / "README.md").exists() else []
            licence = ["--licence", "apache-2.0" if self.model is None else "other"]
            arguments = [str(model), "--as", REFERENCE, *licence, *card, "--node", origin.name]
            receipt = self._comity(self.publisher_home, "publish", *arguments)
            logged = receipt["logged"][0]
            say(f"sha256:{receipt['artifact']}")
            say(f"entry {logged['index']} of {logged['origin']}, proven by its checkpoint")
        with self._step("Mirror and cosign", "three other states have every byte and cosign the log") as say:
            self._wait_until(lambda: self._copied(REFERENCE, others), "the other nodes made no full copies")
            self._wait_until(lambda: self._cosigned(origin, others, logged["size"]), "the log was not cosigned by all")
            say(f"copied and cosigned by {', '.join(f'{node.name} ({node.jurisdiction})' for node in others)}")
        with self._step("The publisher yanks it", "a yank is a warning that is mirrored; it deletes nothing") as say:
            text = "withdrawn under pressure"
            advice = ["advisory", "new", REFERENCE, "--kind", "yank", "--text", text, "--node", origin.name]
            size_ = self._comity(self.publisher_home, *advice)["logged"][0]["size"]
            self._wait_until(lambda: self._cosigned(origin, others, size_), "the yank did not reach the other nodes")
            say("logged, and in every other node's mirror of that log: every later reader sees it")
        with self._step("The publisher's node is destroyed", "no process and no folder remain") as say:
            lab.destroy(origin)
            say(f"{origin.name} killed and its folder deleted: {not origin.home.exists()}")
        with self._step("A new user pulls it", "from the remaining nodes, with one pinned file") as say:
            snapshot = self._pull(lab, others, say)
        with self._step("Who served it", "the remaining nodes' own logs") as say:
            for line in self._served(others):
                say(line)
        with self._step("Verify offline", "with a pinned charter, without a server") as say:
            policy = self._write_policy(lab)
            self._verify(snapshot, policy, expected=0, say=say)
        with self._step("One flipped byte is refused", "regardless of who served, carried or stored it") as say:
            self._verify(self._with_flipped_byte(snapshot), policy, expected=3, say=say)
        with self._step("An unmodified Hugging Face client loads it", "without endpoint, token or network") as say:
            for line in _load(self.hub_cache, REPOSITORY, snapshot):
                say(line)
        self.left = self._count_what_is_left(others)

    def _count_what_is_left(self, others: Sequence[LabNode]) -> Mapping[str, int]:
        """The copies that are claimed and answer completely now, their jurisdictions, and the fewest jurisdictions that
        reach all of them by law, as declared. Raises Unavailable unless all the other nodes have one."""
        replicas = self._comity(self.user_home, "whereis", REFERENCE)["replicas"]
        left = [replica for replica in replicas if replica["claimed"] and replica["complete"]]
        if len(left) != len(others):
            raise Unavailable("copies are missing", why=f"{len(left)} of {len(others)} nodes answer with all files")
        jurisdictions = len({replica["jurisdiction"] for replica in left})
        reaches = count_reaches(tuple(replica["reach"]) for replica in left)
        return {"copies": len(left), "jurisdictions": jurisdictions, "reaches": reaches}

    def _pull(self, lab: Lab, others: Sequence[LabNode], say: Callable[[str], None]) -> Path:
        self._comity(self.user_home, "trust", "pin", str(lab.federation), "--yes")
        pull = ["pull", REFERENCE, "--hub-cache", str(self.hub_cache)]
        secluded = seclusion.hiding([node.home for node in others], pull)
        say(f"$ comity {' '.join(pull)}")
        say(f"(in {secluded.proof})")
        self._execute(secluded.command, self.user_home, show=True)
        snapshots = [path for path in self.hub_cache.glob("models--*/snapshots/*") if path.is_dir()]
        if len(snapshots) != 1:
            raise Untrusted("the pull did not leave exactly one snapshot", why=f"{len(snapshots)} in {self.hub_cache}")
        return snapshots[0]

    def _served(self, nodes: Sequence[LabNode]) -> Iterator[str]:
        """Blob ranges, and small files together, that the nodes logged as served to non-members; the only one at this
        point is the user."""
        for node in nodes:
            sent = (*_events(node.home / "node.log", "served"), *_events(node.home / "node.log", "served together"))
            streams = (event for event in sent if event.get("port") == "open")
            over_https = (event for event in _events(node.home / "node.log", "blob served") if not event.get("peer"))
            ranges = [*streams, *over_https]
            if ranges:
                count = sum(int(event["sent"]) for event in ranges)
                yield f"{node.name} ({node.jurisdiction}): {plural(len(ranges), 'range')}, {size(count)}"

    def _write_policy(self, lab: Lab) -> Path:
        policy = self.directory / "policy.toml"
        policy.write_text(POLICY)
        return policy

    def _verify(self, folder: Path, policy: Path, *, expected: int, say: Callable[[str], None]) -> None:
        command = [sys.executable, "-m", "comity_cli.main", "verify", str(folder), "--policy", str(policy), "--json"]
        secluded = offline(command)
        ran = subprocess.run(secluded.command, env=self._environment(self.user_home), capture_output=True, check=False)
        if ran.returncode != expected:
            why = f"exit {ran.returncode} instead of {expected}: {ran.stderr.decode(errors='replace')[-300:]}"
            raise Untrusted("verify returned an unexpected exit status", why=why)
        rows = {row["row"]: row for row in json.loads(ran.stdout)["rows"]}
        shown = ("signatures", "transparency", "cosigners") if expected == 0 else ("bytes",)
        for name in shown:
            say(f"{rows[name]['state'].upper():4}  {name:<13} {rows[name]['summary']}")
        say(f"exit {ran.returncode}, in {secluded.proof}")

    def _with_flipped_byte(self, snapshot: Path) -> Path:
        copy = self.directory / "flipped"
        shutil.copytree(snapshot, copy, symlinks=False)
        largest = max((path for path in copy.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
        largest.chmod(0o644)
        with largest.open("r+b") as file:
            file.seek(largest.stat().st_size // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        return copy


def _events(log: Path, event: str) -> Iterator[dict[str, Any]]:
    for line in log.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("event") == event:
            yield record
