"""Registries on loopback that demand tokens: servers that answer as a function says, a token server that signs, and a
small registry that is strict about tokens."""

from __future__ import annotations

import base64
import datetime
import hashlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from comity.upstream.oci_image import IMAGE
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

Answer = tuple[int, dict[str, str], bytes]
Respond = Callable[[str, Mapping[str, str]], Answer]
"""Answers a request by its path with query, and its headers."""
SERVICE = "registry.test"
USER = "reader:secret"


@contextmanager
def answering(respond: Respond) -> Iterator[str]:
    """The URL of a server that answers GET and HEAD by `respond`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = respond(self.path, dict(self.headers))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def host_of(url: str) -> str:
    return urlsplit(url).netloc


def basic(user: str) -> str:
    return f"Basic {base64.b64encode(user.encode()).decode()}"


@dataclass
class StrictRegistry:
    """Serves one image to holders of its newest token, for the next `left` requests. `realm` is set once its token
    server runs."""

    repository: str
    manifest: bytes
    files: dict[str, bytes]
    realm: str = ""
    issued: int = 0
    left: int = 0
    tokens_asked: list[tuple[dict[str, list[str]], str]] = field(default_factory=list)

    def token(self, path: str, headers: Mapping[str, str]) -> Answer:
        """Issue a token."""
        self.tokens_asked.append((parse_qs(urlsplit(path).query), headers.get("Authorization", "")))
        self.issued, self.left = self.issued + 1, 1_000
        return 200, {}, json.dumps({"token": f"token-{self.issued}", "expires_in": 300}).encode()

    def respond(self, path: str, headers: Mapping[str, str]) -> Answer:
        if headers.get("Authorization", "") != f"Bearer token-{self.issued}" or not self.left:
            scope = "repository:other/private:pull,push"
            demand = f'Bearer realm="{self.realm}",service="{SERVICE}",scope="{scope}"'
            return 401, {"WWW-Authenticate": demand}, b""
        self.left -= 1
        prefix = f"/v2/{self.repository}"
        if path.startswith(f"{prefix}/manifests/"):
            return 200, {"Content-Type": IMAGE}, self.manifest
        for data in self.files.values():
            if path == f"{prefix}/blobs/sha256:{hashlib.sha256(data).hexdigest()}":
                return 200, {}, data
        return 404, {}, b""


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class SigningTokens:
    """A token server whose tokens a real registry accepts, by the certificate in `bundle`. Without `USER`'s password, a
    token has no right, unless `public`."""

    bundle: Path
    public: bool = True
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tokens of a test")])
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder(name, name, self.key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.certificate = base64.b64encode(made.public_bytes(Encoding.DER)).decode()
        self.bundle.write_bytes(made.public_bytes(Encoding.PEM))

    def respond(self, path: str, headers: Mapping[str, str]) -> Answer:
        query = parse_qs(urlsplit(path).query)
        if query["service"] != [SERVICE]:
            return 400, {}, b""
        kind, name, actions = query["scope"][0].split(":")
        known = self.public or headers.get("Authorization", "") == basic(USER)
        right: dict[str, object] = {"type": kind, "name": name, "actions": actions.split(",")}
        return 200, {}, json.dumps({"token": self.sign([right] if known else []), "expires_in": 300}).encode()

    def sign(self, rights: list[dict[str, object]]) -> str:
        now = int(time.time())
        claims = {"iss": "tokens", "sub": "", "aud": SERVICE, "access": rights, "jti": "1"}
        times = {"nbf": now - 10, "iat": now - 10, "exp": now + 300}
        head = {"typ": "JWT", "alg": "ES256", "x5c": [self.certificate]}
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in (head, {**claims, **times}))
        r, s = decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
