"""Programs that were not written for Comity read a model from a node's gateway: the table in docs/clients/README.md.

Each gets the file by its own way, and what it wrote is compared with what was published. A row of the table says what
this test does; a program that is not here skips its row, and fails it where every program must be here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from comity.trust.encoding import sha256
from support.environments import kept
from support.fenced import ROOT
from support.gateway import shop
from support.ports import free_port
from support.publisher import model
from support.tools import missing, needs

PAGE = ROOT / "docs" / "clients" / "README.md"
REPOSITORY, FILE = "tests/model", "weights.bin"
HUB_JS = "@huggingface/hub@2.17.5"

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Place:
    """Where a program reads, where it writes, and the SHA-256 of what it should get."""

    url: str
    folder: Path
    digest: str

    @property
    def file(self) -> str:
        return f"{self.url}/{REPOSITORY}/resolve/v1/{FILE}"

    def run(self, *command: str, **environ: str) -> str:
        ours = {key: value for key, value in os.environ.items() if not key.lower().startswith(("hf_", "http"))}
        ran = subprocess.run(
            command,
            cwd=self.folder,
            env={**ours, "HOME": str(self.folder), **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert ran.returncode == 0, f"{' '.join(command)}\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}"
        return ran.stdout

    def got(self) -> bool:
        """Whether some file that was written here is the one that was published."""
        return any(sha256(path.read_bytes()) == self.digest for path in self.folder.rglob("*") if path.is_file())


def hf(place: Place) -> None:
    command = str(Path(sys.executable).with_name("hf"))
    place.run(command, "download", REPOSITORY, FILE, "--revision", "v1", HF_ENDPOINT=place.url, HF_HUB_DISABLE_XET="1")


def wget(place: Place) -> None:
    place.run(needs("wget", unlock="apt-get install wget"), "--quiet", place.file)


def curl(place: Place) -> None:
    place.run(needs("curl", unlock="apt-get install curl"), "-fsSLO", place.file)


def aria2(place: Place) -> None:
    program = needs("aria2c", unlock="apt-get install aria2")
    digest = f"--checksum=sha-256={place.digest}"
    place.run(
        program, "--quiet", "--split=4", "--min-split-size=1M", "--max-connection-per-server=4", digest, place.file
    )


def rclone(place: Place) -> None:
    place.run(needs("rclone", unlock="apt-get install rclone"), "copyurl", "--auto-filename", place.file, ".")


def skopeo(place: Place) -> None:
    program = needs("skopeo", unlock="apt-get install skopeo")
    image = f"docker://{place.url.removeprefix('http://')}/{REPOSITORY}:v1"
    policy = place.folder / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    place.run(program, "--policy", str(policy), "copy", "--src-tls-verify=false", image, "dir:out")


def hub_js(place: Place) -> None:
    npm, node = (needs(name, unlock="apt-get install nodejs npm") for name in ("npm", "node"))
    with kept("npm", HUB_JS) as (home, fresh):
        if fresh:
            command = (npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(home), HUB_JS)
            ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
            if ran.returncode:
                missing(f"npm could not get {HUB_JS}: {ran.stderr[-300:]}; unlock: a package index at hand")
    script = place.folder / "read.mjs"
    script.write_text(_HUB_JS % (home / "node_modules" / "@huggingface" / "hub" / "dist" / "index.mjs"))
    said = json.loads(place.run(node, str(script), place.url, REPOSITORY, FILE))
    assert said == {"exists": True, "absent": False, "listed": True}


_HUB_JS = """
import { writeFileSync } from "node:fs";
import { downloadFile, fileExists, listFiles } from "%s";
const [hubUrl, repo, path] = process.argv.slice(2);
const at = { hubUrl, repo, revision: "v1" };
let listed = false;
for await (const file of listFiles(at)) listed ||= file.path === path;
const blob = await downloadFile({ ...at, path });
writeFileSync("got", Buffer.from(await blob.arrayBuffer()));
const exists = await fileExists({ ...at, path });
const absent = await fileExists({ ...at, path: "absent" });
console.log(JSON.stringify({ exists, absent, listed }));
"""

CLIENTS: dict[str, Callable[[Place], None]] = {
    "hf": hf,
    "@huggingface/hub": hub_js,
    "curl": curl,
    "wget": wget,
    "aria2": aria2,
    "rclone": rclone,
    "skopeo": skopeo,
}


@asynccontextmanager
async def reading(folder: Path) -> AsyncIterator[Place]:
    source = model(folder / "model", weights=9_000_000)
    digest = hashlib.sha256((source / FILE).read_bytes()).hexdigest()
    out = folder / "out"
    out.mkdir()
    async with shop(folder, http=f"127.0.0.1:{free_port()}") as node:
        await node.publish(source, f"{REPOSITORY}@v1")
        yield Place(node.url, out, digest)


def rows(heading: str) -> Iterator[tuple[str, str]]:
    """The first two cells of each row of the table below a heading."""
    section = PAGE.read_text("utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    for line in re.findall(r"^\| (.+) \|$", section, re.MULTILINE)[1:]:
        first, second, *_ = line.split(" | ")
        yield first.strip("`"), second


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_gets_what_was_published(tmp_path: Path, client: str) -> None:
    async with reading(tmp_path) as place:
        assert not place.got()
        await asyncio.to_thread(CLIENTS[client], place)
        assert place.got()


def test_the_table_lists_the_clients_that_are_tried_here_and_none_of_them_as_not_tried() -> None:
    tried, untried = dict(rows("Tried by a test")), dict(rows("Not tried"))
    assert set(CLIENTS) <= set(tried)
    assert all(reason for reason in untried.values())
    assert not set(tried) & set(untried)
