"""The registry of Debian on loopback, and images in it whose layers are files."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comity.upstream.oci_image import IMAGE
from support.ports import free_port, wait_until_listening
from support.tools import needs, running

RAW = "application/vnd.cncf.model.weight.v1.raw"


def layer(path: str, data: bytes, **more: Any) -> dict[str, Any]:
    title = {"org.cncf.model.filepath": path}
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return {"mediaType": RAW, "digest": digest, "size": len(data), "annotations": title, **more}


def manifest(*layers: Any) -> bytes:
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": layer("", b"{}")["digest"], "size": 2}
    return json.dumps({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers}).encode()


@contextmanager
def image_registry(folder: Path, more: str = "") -> Iterator[str]:
    """The URL of a registry below `folder`, with `more` settings. Skips where the program is not installed."""
    program = needs("docker-registry", unlock="apt-get install docker-registry")
    port = free_port()
    settings = folder / "registry.yml"
    settings.write_text(
        f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {folder}/data\nhttp:\n  addr: 127.0.0.1:{port}\n"
        f"{more}"
    )
    with running([program, "serve", str(settings)], folder / "registry.out") as process:
        wait_until_listening(port, process, patience=60)
        yield f"http://127.0.0.1:{port}"


def put(url: str, data: bytes, kind: str = "application/octet-stream", method: str = "PUT", token: str = "") -> str:
    bearer = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, data, {"Content-Type": kind, **bearer}, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.headers.get("Location", ""))


def push(registry: str, name: str, tag: str, files: dict[str, bytes], token: str = "") -> bytes:
    """Push an image of files, one for each layer; returns its manifest."""
    body = manifest(*(layer(path, data) for path, data in files.items()))
    return push_layers(registry, name, tag, body, [*files.values()], token)


def push_layers(registry: str, name: str, tag: str, body: bytes, layers: list[bytes], token: str = "") -> bytes:
    """Push an image by its manifest and layers; returns its manifest."""
    for data in (*layers, b"{}"):
        place = put(f"{registry}/v2/{name}/blobs/uploads/", b"", method="POST", token=token)
        put(f"{place}&digest=sha256:{hashlib.sha256(data).hexdigest()}", data, token=token)
    put(f"{registry}/v2/{name}/manifests/{tag}", body, IMAGE, token=token)
    return body
