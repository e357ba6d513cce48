"""Real clients of container images with a node: skopeo and podman take the image of a kit, and ask nothing else."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from comity.trust.encoding import sha256
from support.gateway import gateway_node
from support.oci_layouts import Layout
from support.publisher import model
from support.seeded import seeded_bytes
from support.tools import needs
from support.waiting import PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@dataclass(frozen=True)
class ImageSite:
    """A gateway with the image of a kit: its reference, and its layout on this disk."""

    reference: str
    layout: Layout
    folder: Path

    @property
    def digest(self) -> str:
        (item,) = json.loads(self.layout.files["index.json"])["manifests"]
        return str(item["digest"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ImageSite]:
    """The layer is so large that the file server has it."""
    folder = model(tmp_path_factory.mktemp("kit") / "kit", weights=1_000)
    layout = Layout()
    layout.named(layout.image({"data": seeded_bytes(600_000, "layer")}, command=("/data",)))
    layout.write(folder)
    async with gateway_node(tmp_path_factory.mktemp("node"), files="127.0.0.1:0") as node:
        await node.publish(folder, "tests/kit@v1")
        yield ImageSite(f"{urlsplit(node.url).netloc}/tests/kit/image", layout, folder / "image")


async def run(*command: str) -> str:
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy(skopeo: str, reference: str) -> tuple[str, ...]:
    """Without `--preserve-digests`, skopeo compresses layers that are not, and the copy is another image."""
    return skopeo, "copy", "--preserve-digests", "--src-tls-verify=false", f"docker://{reference}"


def blobs_of(layout: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (layout / "blobs" / "sha256").iterdir()}


async def test_skopeo_copies_an_image_byte_for_byte(site: ImageSite, tmp_path: Path) -> None:
    skopeo = needs("skopeo", unlock="apt-get install skopeo")
    tags = await run(skopeo, "list-tags", "--tls-verify=false", f"docker://{site.reference}")
    assert json.loads(tags)["Tags"] == ["latest", "v1"]
    for number, reference in enumerate((f"{site.reference}:v1", f"{site.reference}@{site.digest}")):
        into = tmp_path / str(number)
        await run(*copy(skopeo, reference), f"oci:{into}:v1")
        assert blobs_of(into) == blobs_of(site.folder)


async def test_podman_takes_an_artifact_that_is_no_image_only_as_an_artifact(site: ImageSite, tmp_path: Path) -> None:
    podman = needs("podman", unlock="apt-get install podman")
    own = (podman, "--root", str(tmp_path / "root"), "--runroot", str(tmp_path / "run"), "--storage-driver", "vfs")
    reference = f"{site.reference.removesuffix('/image')}:v1"
    with pytest.raises(AssertionError, match="unsupported image-specific operation on artifact"):
        await run(*own, "pull", "--tls-verify=false", reference)
    await run(*own, "artifact", "pull", "--tls-verify=false", reference)
    layers = json.loads(await run(*own, "artifact", "inspect", reference))["Manifest"]["layers"]
    assert f"sha256:{sha256((site.folder.parent / 'weights.bin').read_bytes())}" in {
        layer["digest"] for layer in layers
    }


async def test_podman_pulls_and_loads_an_image_and_has_its_digest(site: ImageSite, tmp_path: Path) -> None:
    skopeo = needs("skopeo", unlock="apt-get install skopeo")
    podman = needs("podman", unlock="apt-get install podman")
    own = (podman, "--root", str(tmp_path / "root"), "--runroot", str(tmp_path / "run"), "--storage-driver", "vfs")
    await run(*own, "pull", "--tls-verify=false", f"{site.reference}:v1")
    (pulled,) = json.loads(await run(*own, "image", "inspect", f"{site.reference}:v1"))
    assert (pulled["Digest"], pulled["Config"]["Entrypoint"]) == (site.digest, ["/data"])
    archive = tmp_path / "image.tar"
    await run(*copy(skopeo, f"{site.reference}:v1"), f"oci-archive:{archive}:kit")
    await run(*own, "load", "--input", str(archive))
    (loaded,) = json.loads(await run(*own, "image", "inspect", "localhost/kit"))
    await run(*own, "pull", f"oci:{site.folder}")  # from the folder that `comity pull` brings, without a gateway
    assert (loaded["Digest"], loaded["Id"]) == (site.digest, pulled["Id"])
