"""How other tools read our envelopes: cosign verifies the classical half of a signature, libraries do not, as
docs/clients/dsse.md says.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.environments import python_with
from support.publisher import Publisher, model, release
from support.tools import needs

PAGE = Path(__file__).parents[2] / "docs/clients/dsse.md"
TYPE = "urn:comity:published:v1"
LIBRARIES = """
import json, sys
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey
from sigstore.dsse import Envelope as SigstoreEnvelope, _verify

line, pem = open("published.dsse").read(), open("publisher.pub", "rb").read()
signatures = json.loads(line)["signatures"]
known = load_pem_public_key(pem)
computed = SSlibKey.from_crypto(known)
named = [SSlibKey(each["keyid"], computed.keytype, computed.scheme, computed.keyval) for each in signatures]

def accepted(keys, threshold):
    try:
        return len(Envelope.from_dict(json.loads(line)).verify(keys, threshold)) == threshold
    except VerificationError:
        return False

def refusal(text):
    try:
        _verify(known, SigstoreEnvelope._from_json(text))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""

halves = [json.dumps({**json.loads(line), "signatures": [each]}) for each in signatures]
print(json.dumps({
    "computed": accepted([computed], 1), "named": accepted(named, 1), "both": accepted(named, 2),
    "sigstore": refusal(line), "halves": [refusal(half) for half in halves],
}))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with evidence, after the program of the page has run in it."""
    publisher = Publisher.generate()
    made = release(publisher, model(tmp_path / "model", weights=1000), "tests/model@v1")
    pack = tmp_path / ".comity"
    pack.mkdir()
    (pack / "statements.jsonl").write_bytes(b"".join(line + b"\n" for line in made.lines))
    (pack / "manifest.json").write_bytes(made.ingested.manifest.encode())
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    return tmp_path


def cosign(folder: Path, *changed: str, envelope: str = "published.dsse") -> tuple[int, str]:
    """The command of the page, with `changed` options that override its own."""
    cosign = needs("cosign", unlock="apt-get install cosign")
    (command,) = re.findall(r"```console\ncosign (.*?)```", PAGE.read_text(), re.S)
    arguments = command.replace("\\\n", " ").split()
    arguments[arguments.index("--signature") + 1] = envelope
    arguments[-1:-1] = changed
    done = subprocess.run([cosign, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stderr


def test_cosign_verifies_a_publication_with_the_command_of_the_page(folder: Path) -> None:
    status, said = cosign(folder)
    assert status == 0 and "Verified OK" in said


def test_cosign_refuses_another_manifest_type_key_and_signature(folder: Path) -> None:
    manifest, line = folder / ".comity" / "manifest.json", json.loads((folder / "published.dsse").read_bytes())
    assert "invalid predicate type" in cosign(folder, "--type", "urn:comity:vouched:v1")[1]
    short = [each for each in line["signatures"] if len(each["sig"]) < 200]
    long = [each for each in line["signatures"] if len(each["sig"]) > 200]
    assert (len(short), len(long)) == (1, 1)
    for name, signatures, status in (("short", short, 0), ("long", long, 1)):
        (folder / name).write_text(json.dumps({**line, "signatures": signatures}))
        assert cosign(folder, envelope=name)[0] == status, "it verifies the Ed25519 half alone, and no other"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    assert "no matching subject digest" in cosign(folder)[1]


def test_libraries_treat_hybrid_envelopes_as_the_page_says(folder: Path) -> None:
    python = python_with("securesystemslib[crypto]==1.6.0", "sigstore==4.5.1")
    ran = subprocess.run([python, "-c", LIBRARIES], cwd=folder, capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(ran.stdout)
    assert (found["computed"], found["named"], found["both"]) == (False, True, False)
    assert "envelope must contain exactly one signature" in found["sigstore"]
    assert all(found["halves"]), "not one half alone"
    page = " ".join(PAGE.read_text().split())
    assert "envelope must contain exactly one signature" in page
