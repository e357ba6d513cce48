"""Pulling and verifying, beside tools that fetch the same bytes.

    python bench/pull.py [--rounds 5] [--mib 1024] [--only PEER]…

    curl | sha256sum    from nginx over TLS; the hash is printed, the bytes are discarded
    curl to disk, sha   the same to a file, then sha256sum of the file
    …, sync             the same, and the bytes on the disk when it ends, as every pull leaves them
    least work          two threads that receive, hash and write, and compare nothing (least_work.py); no sync
    hf download         the stock Hugging Face client from a static nginx Hub over plain HTTP; it verifies nothing
    …, sync             the same, and the bytes on the disk when it ends
    …, gateway          the same client from the node's gateway over plain HTTP
    pull                `comity pull --to` from one node: pieces and whole file verified, evidence judged; gRPC at the
                        open port and HTTPS ranges: HTTPS from 150 MB/s on, below unless gRPC is half as fast again
    pull, gRPC alone    the same by one way only
    pull, HTTPS alone
    pull, mutual TLS    the same as the first with gRPC at the mutual port, with another node's certificate

Whole processes, one file of random bytes, server side warm in the page cache, everything on one disk, one source.
Each round fetches into a new folder, removed outside the measured time.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from comity.trust.names import Name
from harness import Spent, family_seconds, keep_bytecode, process_seconds, show, speeds, take_turns, write
from made import COMITY, REFERENCE, Served, model, served
from static_site import REPOSITORY, Site, nginx


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--mib", type=int, default=1024)
    options.add_argument("--only", action="append", help="a peer of the list, several times; writes no result file")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="comity-bench-") as scratch:
        root = Path(scratch)
        keep_bytecode(root / "bytecode")
        folder = model(root / "model", chosen.mib)
        size = sum(path.stat().st_size for path in folder.iterdir())
        with served(root) as lab, nginx(root / "nginx", folder) as site:
            lab.comity("publish", str(folder), "--as", REFERENCE, "--licence", "other", "--node", lab.node.name)
            policy = root / "policy.toml"
            policy.write_text(
                'schema = "comity/policy/v1"\n[[pin]]\nfile = "lab/federation.json"\n[cosigners]\nat_least = 0\n'
            )
            pid = lab.node.pid
            assert pid is not None
            every = peers(root, lab, site, policy, size)
            chosen_peers = {name: peer for name, peer in every.items() if not chosen.only or name in chosen.only}
            spent = Spent(lambda: process_seconds(pid) + family_seconds(site.pid))
            taken = take_turns(chosen_peers, chosen.rounds, spent)
    table = speeds(taken, size, "hf download" if "hf download" in taken else next(iter(taken)))
    table = {name: row | spent.columns(name, size) for name, row in table.items()}
    show(table)
    if chosen.only:
        return
    figure = "whole processes; CPU seconds a gigabyte of the peer's processes, and of the node or nginx"
    load = {"min": min(spent.load), "max": max(spent.load)}
    write("pull", rounds=chosen.rounds, bytes=size, cache="warm at the server", figure=figure, load=load, peers=table)


def peers(root: Path, lab: Served, site: Site, policy: Path, size: int) -> dict[str, Callable[[], None]]:
    number, name = itertools.count(), Name.parse(REFERENCE)
    curl = f"curl -sS --fail --cacert {site.certificate} {site.tls}"
    pull = ["pull", REFERENCE, "--policy", str(policy), "--quiet", "--to"]
    other = str(lab.lab.nodes[1].home)

    def fresh() -> str:
        for old in root.glob("into-*"):
            shutil.rmtree(old)
        return str(root / f"into-{next(number)}")

    def shell(command: str) -> None:
        subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], check=True, stdout=subprocess.DEVNULL)

    def script(file: str, *arguments: str) -> list[str]:
        return [sys.executable, str(Path(__file__).parent / file), *arguments]

    def pulling(command: list[str]) -> Callable[[], None]:
        return lambda: run([*command, *pull, fresh()], COMITY_HOME=str(fresh_home(lab, number)))

    def run(command: list[str], **environment: str) -> None:
        subprocess.run(command, check=True, env={**os.environ, **environment}, capture_output=True)

    def to_disk() -> None:
        into = fresh()
        shell(f"mkdir {into} && {curl} -o {into}/file && sha256sum {into}/file")

    def least() -> None:
        into = Path(fresh())
        into.mkdir()
        url = urlsplit(site.tls)
        where = [str(url.hostname), str(url.port), url.path, str(size), str(site.certificate)]
        run([*script("least_work.py"), *where, str(into / "file")])

    def hub(endpoint: str, *repository: str) -> None:
        into, hf = fresh(), str(Path(sys.executable).parent / "hf")
        quiet = {
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        run([hf, "download", *repository, "--local-dir", into], HF_ENDPOINT=endpoint, HF_HUB_DISABLE_XET="1", **quiet)

    def stock() -> None:
        hub(site.hub, REPOSITORY)

    def synced(peer: Callable[[], None]) -> None:
        peer()
        os.sync()

    return {
        "curl | sha256sum": lambda: shell(f"{curl} | sha256sum"),
        "curl to disk, sha256sum": to_disk,
        "curl to disk, sha256sum, sync": lambda: synced(to_disk),
        "least work": least,
        "hf download": stock,
        "hf download, sync": lambda: synced(stock),
        "hf download, gateway": lambda: hub(lab.node.endpoint, name.repository, "--revision", name.version),
        "pull": pulling(COMITY),
        "pull, gRPC alone": pulling(script("one_way.py", "grpc")),
        "pull, HTTPS alone": pulling(script("one_way.py", "https")),
        "pull, mutual TLS": pulling(script("mutual.py", other)),
    }


def fresh_home(lab: Served, number: itertools.count[int]) -> Path:
    """A client home with the same pins and no memory of placed files: nothing may be reused."""
    home = lab.home.parent / f"home-{next(number)}"
    shutil.copytree(lab.home / "trust", home / "trust")
    return home


if __name__ == "__main__":
    main()
