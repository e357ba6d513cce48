"""Small OCI image layouts, made here: the same bytes for the same arguments."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


class Layout:
    """The files of a layout by path, below `image/`."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def blob(self, data: bytes, media: str, **more: Any) -> dict[str, Any]:
        """Add a blob; its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        self.files[f"blobs/sha256/{digest}"] = data
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data), **more}

    def image(self, files: Mapping[str, bytes], architecture: str = "amd64", command: tuple[str, ...] = ()) -> Any:
        """Add an image with one layer; the descriptor of its manifest."""
        layer = layer_of(files)
        settings = {"Entrypoint": list(command)} if command else {}
        rootfs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}
        config = {"architecture": architecture, "os": "linux", "config": settings, "rootfs": rootfs}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(json.dumps(config).encode(), CONFIG),
            "layers": [self.blob(layer, LAYER)],
        }
        platform = {"architecture": architecture, "os": "linux"}
        return self.blob(json.dumps(manifest).encode(), MANIFEST, platform=platform)

    def named(self, *manifests: Any) -> Layout:
        """Write the index with these descriptors."""
        self.files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
        return self

    def write(self, folder: Path) -> Path:
        for path, data in self.files.items():
            (folder / "image" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "image" / path).write_bytes(data)
        return folder / "image"


def layer_of(files: Mapping[str, bytes]) -> bytes:
    """A layer with executable files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), 0o755
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def small_layout(*architectures: str) -> Layout:
    """A layout with an image for each architecture, by default one."""
    layout = Layout()
    made = [layout.image({"who": name.encode()}, name) for name in architectures or ("amd64",)]
    return layout.named(*made)
