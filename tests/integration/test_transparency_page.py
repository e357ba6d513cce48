"""The commands of docs/transparency.md, run by a shell against a running node."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from comity.content.secrets import write_keys
from comity.gateway.app import serve_gateway
from comity.rules.tiles import decode_entries
from comity.rules.witness import parse_signatures
from comity.trust.keys import PrivateKey
from comity.trust.tlog.merkle import leaf_hash, root
from comity.trust.tlog.note import SignedNote, cosigner_key, open_checkpoint, verify_cosignature
from support.federation import introduced, make_home, serving
from support.outside import OutsideLog, vkeys
from support.tools import needs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "transparency.md"
NAME = "node-ch.example/witness"


def script(url: str, origin: str) -> str:
    """The page's shell blocks, one after the other, for this node and log; the output of the last two goes to files."""
    watch, submit, push = re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    watch = re.sub(r"^NODE=.*$", f"NODE={url}", watch, count=1, flags=re.MULTILINE)
    watch = re.sub(r"^ORIGIN=.*$", f"ORIGIN={origin}", watch, count=1, flags=re.MULTILINE)
    return f"set -eu\n{watch}\n{{ {submit}}} > signed\n{{ {push}}} > mirrored\n"


async def test_the_commands_of_the_page_do_what_it_says(tmp_path: Path) -> None:
    needs("curl", unlock="apt-get install curl")
    log, key = OutsideLog("yours.example/log").grow(300), PrivateKey.generate("ed25519")
    home = make_home(tmp_path / "home", 0)
    write_keys(home.directory / "keys" / "witness.pem", (key,))
    home.set("tlog", witness_name=NAME, witness=vkeys([log]), mirror=vkeys([log]))
    (tmp_path / "request").write_bytes(log.submission(0, 300))
    (tmp_path / "upload").write_bytes(log.upload(0, 300))
    async with serving(home, companion=serve_gateway) as (listening,):
        await introduced(home)
        shell = await asyncio.create_subprocess_exec("sh", "-c", script(listening.http, home.origin), cwd=tmp_path)
        assert await shell.wait() == 0
    checkpoint = open_checkpoint(SignedNote.parse((tmp_path / "checkpoint").read_bytes()), home.record.log)
    hashes = [leaf_hash(entry) for entry in decode_entries((tmp_path / "entries").read_bytes())]
    assert (tmp_path / "hashes").read_bytes() == b"".join(hashes)
    assert root(hashes) == checkpoint.root
    (witnessed,) = parse_signatures((tmp_path / "signed").read_bytes())
    assert verify_cosignature(witnessed, cosigner_key(NAME, key.public), log.checkpoint(300)) > 0
    mirrored = parse_signatures((tmp_path / "mirrored").read_bytes())
    for cosigner in home.record.cosigners:
        (line,) = (line for line in mirrored if line.by(cosigner))
        assert verify_cosignature(line, cosigner, log.checkpoint(300)) > 0
