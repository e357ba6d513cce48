"""A pull from a node whose bucket speaks TLS and gives out its own URLs: the bytes come from the bucket, and no URL is
logged, by the node or by the client.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from comity_client.client import Client
from comity_client.home import Home
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs
from support.federation import converged, found, processes
from support.publisher import Publisher, model, release, send
from support.s3 import S3Account, keep_in_bucket
from support.seaweed import seaweed

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
SECRETS = ("X-Amz-", "Signature=")


def certified(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bucket")])
    now, here = datetime.now(UTC), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([here]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    paths = folder / "bucket.pem", folder / "bucket-key.pem"
    paths[0].write_bytes(made.public_bytes(encoding))
    paths[1].write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    return paths


async def test_a_whole_pull_takes_its_bytes_from_a_tls_bucket_and_no_url_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    certificate, key = certified(tmp_path)
    for variable in ("AWS_CA_BUNDLE", "SSL_CERT_FILE"):  # of the node's client of the bucket, and of the pull
        monkeypatch.setenv(variable, str(certificate))
    (tmp_path / "bucket").mkdir()
    founded = found(tmp_path / "nodes", 1)
    (home,) = founded.homes
    source = model(tmp_path / "model", weights=24 * MIB)
    what = release(Publisher.generate(), source, "tests/model@v1")
    (weights,) = [digest for digest, path in what.blobs.items() if path.name == "weights.bin"]
    with seaweed(tmp_path / "bucket", certificate=certificate, key=key) as server:
        account = S3Account.open(server.endpoint, server.user, tmp_path, "node-blobs")
        keep_in_bucket(home, account)
        home.set("storage.s3", presigned=True)
        with processes(home) as (node,):
            await node.ready()
            async with home.client() as client:
                sent_lines = (await send(client, what)).receipts
                (location,) = await client.locations(weights)
            await converged((home,), home, least=1 + max(receipt.index for receipt in sent_lines))
            puller = Client(Home(tmp_path / "home"))
            puller.pin(founded.federation.encode())
            caplog.clear()  # the test's own client of the bucket says what it signs
            with capture_logs() as logged:
                await asyncio.to_thread(puller.pull, "tests/model@v1", to=tmp_path / "pulled")
            said = node.words + repr(logged) + caplog.text
            async with home.operator() as operator:
                sent = sum(each.bytes for each in (await operator.status()).served if each.blob == weights)
    assert (tmp_path / "pulled" / "weights.bin").read_bytes() == (source / "weights.bin").read_bytes()
    assert urlsplit(location.url)[:2] == urlsplit(server.endpoint)[:2] and SECRETS[0] in location.url
    assert sent < 24 * MIB, "the bucket sent the rest"
    assert not any(secret in said for secret in SECRETS)
