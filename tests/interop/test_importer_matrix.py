"""The importer on each generation of huggingface-hub: those whose downloads it can bound, and its refusal of the
others.

Also over TLS, as the real Hub requires.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
from comity.trust.encoding import sha256
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.certificates import crafted
from support.environments import python_with
from support.hub_like import HubLike, hub_like
from support.importing import FILES, NAME
from support.short_form import cases
from support.waiting import PATIENCE

CHILD = Path(__file__).parents[1] / "support" / "mirror_child.py"
REGISTRY = Path(__file__).parents[2] / "registry"
GENERATIONS = ("huggingface_hub==1.33.0", "huggingface_hub==2.4.0")

pytestmark = pytest.mark.slow


async def mirrored(python: str, hub: HubLike, folder: Path, **environ: str) -> dict[str, Any]:
    folder.mkdir()
    host = hub.cdn.partition("://")[2]
    process = await asyncio.create_subprocess_exec(
        *(python, str(CHILD), hub.url, host, f"hf:{NAME}", str(folder)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REGISTRY), **environ},
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, err.decode()[-2000:]
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


@pytest.mark.parametrize("requirement", cases(GENERATIONS, GENERATIONS[-1:]))
async def test_the_importer_works_with_each_supported_generation(tmp_path: Path, requirement: str) -> None:
    python = await asyncio.to_thread(python_with, requirement, "cryptography>=48")
    with hub_like() as hub:
        commit = hub.repository(NAME).commit(FILES).sha
        hub.page = 2
        found = await mirrored(python, hub, tmp_path / "work")
    assert found == {"commit": commit, "files": {path: sha256(data) for path, data in FILES.items()}, "tls": None}


async def test_a_generation_whose_downloads_cannot_be_bounded_is_refused(tmp_path: Path) -> None:
    python = await asyncio.to_thread(python_with, "huggingface_hub==0.36.2", "cryptography>=48")
    with hub_like() as hub:
        hub.repository(NAME).commit(FILES)
        found = await mirrored(python, hub, tmp_path / "work")
        assert not hub.asked
    assert (found["code"], found["hint"]) == ("NO-IMPORTER", "pip install 'huggingface-hub>=1'")


async def test_over_tls_the_endpoints_key_is_recorded_and_an_untrusted_certificate_is_refused(tmp_path: Path) -> None:
    identity = crafted("localhost", ca=True)
    key, certificate = identity.pem()
    (tmp_path / "both.pem").write_bytes(key + certificate)
    (tmp_path / "ca.pem").write_bytes(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    python = await asyncio.to_thread(python_with, "huggingface_hub==2.4.0", "cryptography>=48")
    with hub_like(context) as hub:
        commit = hub.repository(NAME).commit(FILES).sha
        known = await mirrored(python, hub, tmp_path / "known", SSL_CERT_FILE=str(tmp_path / "ca.pem"))
        asked = len(hub.asked)
        stranger = await mirrored(python, hub, tmp_path / "stranger")
        assert len(hub.asked) == asked
    shown = x509.load_pem_x509_certificate(certificate).public_key()
    spki = shown.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert (known["commit"], known["tls"]) == (commit, sha256(spki))
    assert stranger["code"] == "UPSTREAM-UNREACHABLE"
    assert "certificate" in stranger["said"]
