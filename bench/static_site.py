"""nginx as the peer: one big file over TLS, and the static layout of a Hub repository over HTTP."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COMMIT = "1234567890abcdef1234567890abcdef12345678"
REPOSITORY = "bench/model"
CONFIG = """\
{user}worker_processes 2; daemon off; pid {root}/nginx.pid; error_log {root}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; sendfile on; tcp_nopush on; types {{ }} default_type application/octet-stream;
  client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
  uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
  server {{ listen 127.0.0.1:{tls} ssl; ssl_certificate {root}/tls.pem; ssl_certificate_key {root}/tls.key;
    location / {{ root {files}; }} }}
  server {{ listen 127.0.0.1:{plain};
    location /api/ {{ root {root}/hub; default_type application/json; try_files $uri.json =404; }}
    location ~ ^/{repository}/resolve/[^/]+/(?<path>.+)$ {{
      add_header X-Repo-Commit {commit}; add_header X-Linked-Etag '"{etag}"'; add_header X-Linked-Size {size};
      alias {files}/$path; }} }}
}}
"""


@dataclass(frozen=True)
class Site:
    """A running nginx. `hub` is an HF_ENDPOINT; `tls` serves the same files, under `certificate`."""

    hub: str
    tls: str
    certificate: Path
    pid: int


@contextlib.contextmanager
def nginx(root: Path, files: Path) -> Iterator[Site]:
    """Serve the one file in `files`; ends only the process it started."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    root.mkdir()
    file = files / "model.safetensors"
    with file.open("rb") as opened:
        digest, size = hashlib.file_digest(opened, "sha256").hexdigest(), file.stat().st_size
    _hub(root / "hub" / "api" / "models" / REPOSITORY, digest, size)
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "30"]
    outputs = ["-keyout", str(root / "tls.key"), "-out", str(root / "tls.pem")]
    subprocess.run([*request, *names, *outputs], check=True, capture_output=True)
    plain, tls = _free_port(), _free_port()
    user = "user root; " if os.geteuid() == 0 else ""
    values = {"user": user, "root": root, "files": files, "plain": plain, "tls": tls, "etag": digest, "size": size}
    (root / "nginx.conf").write_text(CONFIG.format(repository=REPOSITORY, commit=COMMIT, **values))
    process = subprocess.Popen([program, "-c", str(root / "nginx.conf"), "-e", str(root / "error.log")])
    try:
        _await(plain)
        address = f"https://127.0.0.1:{tls}/model.safetensors"
        yield Site(f"http://127.0.0.1:{plain}", address, root / "tls.pem", process.pid)
    finally:
        process.terminate()
        process.wait()


def _hub(folder: Path, digest: str, size: int) -> None:
    entry = {"type": "file", "path": "model.safetensors", "size": size, "oid": "0" * 40}
    entry["lfs"] = {"oid": digest, "size": size, "pointerSize": 135}
    siblings = [{"rfilename": "model.safetensors"}]
    for path, document in (
        ("revision/main.json", {"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}),
        (f"revision/{COMMIT}.json", {"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}),
        (f"tree/{COMMIT}.json", [entry]),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(document))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _await(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise SystemExit("nginx did not come up")
