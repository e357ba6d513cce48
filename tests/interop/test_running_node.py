"""A running node with unmodified Go programs for transparency logs: a witness, and a verifier of proofs."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import httpx2
import pytest
from comity.gateway.app import serve_gateway
from comity.rules.cosigned_times import verified_cosigners
from comity.trust.encoding import sha256
from comity.trust.tlog.note import SignedNote, open_checkpoint
from support.federation import introduced, make_home, serving, until
from support.outside import TlogRoutes, read_log
from support.sigsum import ORIGIN, sigsum_witness
from support.tools import needs
from support.waiting import PATIENCE

pytestmark = pytest.mark.go

SPICY_HAS_NO = b"c2sp.org/tlog-proof@v1\n"


async def test_sigsum_witness_cosigns_the_growing_log_of_a_running_node(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", 0, origin=ORIGIN)
    prefix = hashlib.sha256(home.origin.encode()).hexdigest()
    with sigsum_witness(tmp_path, home.record.log.public_key) as (port, key):
        home.set("tlog", submit=[f"{key} http://127.0.0.1:{port}"])
        async with (
            serving(home, companion=serve_gateway) as (listening,),
            httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as client,
        ):
            await introduced(home)

            async def cosigned() -> bool:
                note = SignedNote.parse((await TlogRoutes(client).get(f"{prefix}/checkpoint")).content)
                checkpoint = open_checkpoint(note, home.record.log)
                return checkpoint.size >= 2 and key in verified_cosigners(note, [key], checkpoint)

            await until(cosigned, what="sigsum-witness to cosign the newest checkpoint")


async def test_spicy_litetlog_verifies_entries_of_a_running_node(tmp_path: Path) -> None:
    spicy = needs("spicy-litetlog", unlock="apt-get install litetlog")
    home = make_home(tmp_path / "home", 0)
    async with (
        serving(home, companion=serve_gateway) as (listening,),
        httpx2.AsyncClient(base_url=listening.http, timeout=PATIENCE) as http,
    ):
        await introduced(home)
        index = (await http.get("/tlog")).json()
        (log,) = index["logs"]
        _, entries = await read_log(TlogRoutes(http), log["prefix"].removeprefix("/tlog/"), home.record.log)
        async with home.client() as client:
            for number, entry in enumerate(entries):
                (located,) = await client.proofs(sha256(entry))
                file = tmp_path / f"entry-{number}"
                file.write_bytes(entry)
                Path(f"{file}.spicy").write_bytes(located.proof.removeprefix(SPICY_HAS_NO))
    for number, entry in enumerate(entries):
        file = tmp_path / f"entry-{number}"
        command = [spicy, "-verify", log["vkey"], str(file)]
        assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
        file.write_bytes(entry + b"\n")
        assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode != 0
