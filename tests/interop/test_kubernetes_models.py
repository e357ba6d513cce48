"""The manifests of deploy/kubernetes that put models into pods: their containers are run by podman as they are written,
against nodes of a federation. A model that is refused is in no volume, and its engine is not started."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from comity.federation_file import read_federation
from comity_client.client import Client
from comity_client.home import Home
from comity_client.policy_text import write_policy
from support.federation import Founded, converged, found, holds, serving, until
from support.fenced import ROOT
from support.pods import Ended, Pod, Podman, Spec, Started, pod_files
from support.publisher import Publisher, Release, model, release, send

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

KUBERNETES = ROOT / "deploy" / "kubernetes"
NAME = "swiss-ai/apertus-8b@v1"
"""The model that the manifests name."""
OTHER_LICENCE = {
    "[licences]": '[licences]\naccept = ["EUPL-1.2"]',
    'require = ["artifact"': 'require = ["licence", "artifact"',
}
"""Changes of the policy of a pod."""


def documents(file: str) -> list[Spec]:
    return list(yaml.safe_load_all((KUBERNETES / file).read_text()))


def pod_of(file: str, kind: str) -> Spec:
    (found_,) = (each for each in documents(file) if each["kind"] == kind)
    spec: Spec = found_["spec"]["template"]["spec"]
    return spec


def by_kserve(name: str, arguments: list[str]) -> Spec:
    """The pod that KServe 0.20 makes of a storage container: it adds arguments, a volume and its mount, and keeps the
    rest. What the image has in /etc/comity is a volume here."""
    (storage,) = (each["spec"] for each in documents("kserve.yaml") if each["metadata"]["name"] == name)
    container = copy.deepcopy(storage["container"])
    assert "args" not in container and "volumeMounts" not in container
    container["args"] = arguments
    container["volumeMounts"] = [
        {"name": "models", "mountPath": "/mnt/models"},
        {"name": "trust", "mountPath": "/etc/comity", "readOnly": True},
        {"name": "scratch", "mountPath": "/tmp"},
    ]
    return {"initContainers": [container], "containers": []}


@dataclass
class Cluster:
    """Nodes that hold a model, a podman, and a folder for the volumes of the next pod."""

    podman: Podman
    federation: Founded
    release: Release
    files: dict[str, bytes]
    policy: dict[str, bytes]
    folder: Path

    def pod(self, spec: Spec, changes: Mapping[str, str] | None = None) -> Pod:
        """A pod with new volumes; `changes` of the text of its policy."""
        text = self.policy["policy.toml"].decode()
        for old, new in (changes or {}).items():
            assert text.count(old) == 1
            text = text.replace(old, new)
        volumes = {"trust": pod_files(self.folder / "trust", {**self.policy, "policy.toml": text.encode()})}
        for name in ("models", "scratch"):
            volumes[name] = self.folder / name
            volumes[name].mkdir()
            volumes[name].chmod(0o777)
        return Pod(copy.deepcopy(spec), volumes)

    def placed(self) -> dict[str, bytes]:
        """What an engine would find in the volume."""
        root = self.folder / "models"
        paths = [path for path in root.rglob("*") if path.is_file() and ".comity" not in path.parts]
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}

    async def start(self, pod: Pod) -> Started:
        return await asyncio.to_thread(self.podman.start, pod, "config.json")

    async def end(self, pod: Pod) -> Ended:
        return await asyncio.to_thread(self.podman.end, pod, "storage-initializer")

    def damage(self, path: str) -> None:
        """Flip a bit of a file of the model at every node, or flip it back."""
        for home in self.federation:
            digest = self.release.hashes[path]
            blob = home.config().storage.blobs / "blobs" / digest[:2] / digest
            data = bytearray(blob.read_bytes())
            data[100] ^= 1
            blob.chmod(0o644)
            blob.write_bytes(data)


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="site")
async def _site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Three nodes, each with a copy, and the policy that `comity policy new` writes."""
    folder, publisher = tmp_path_factory.mktemp("cluster"), Publisher.generate()
    source = model(folder / "source", weights=300_000)
    founded = found(folder, 3, namespaces={"swiss-ai": publisher.id})
    async with serving(*founded):
        ready = release(publisher, source, NAME)
        async with founded.homes[0].client() as node:
            await send(node, ready)
        for home in founded.homes[1:]:
            await until(partial(holds, founded.homes[0], ready.artifact, home), what=f"a copy of {home.name}")
        await converged(founded.homes, founded.homes[0])
        client = Client(Home(folder / "person"))
        client.pin(read_federation(founded.homes[0].directory / "federation.json"))
        (folder / "trust").mkdir()
        written = write_policy(folder / "trust" / "policy.toml", client.pins())
        files = {path: (source / path).read_bytes() for path in ready.hashes}
        policy = {path.name: path.read_bytes() for path in written}
        yield Cluster(Podman(folder / "podman"), founded, ready, files, policy, folder)


@pytest.fixture(name="cluster")
def _cluster(site: Cluster, tmp_path: Path) -> Cluster:
    return Cluster(site.podman, site.federation, site.release, site.files, site.policy, tmp_path)


async def test_a_pod_serves_a_model_that_was_verified_before_its_engine_started(cluster: Cluster) -> None:
    pod = cluster.pod(pod_of("model-pod.yaml", "Deployment"))
    assert await cluster.start(pod) == Started(Ended(0, ""), cluster.files["config.json"])
    assert cluster.placed() == cluster.files
    assert await cluster.end(pod) == Ended(0, ""), "a cluster may run an init container again"


@pytest.mark.parametrize(
    ("uri", "changes", "status", "why"),
    [
        (f"comity://{NAME}", OTHER_LICENCE, 4, "licence"),
        ("comity://swiss-ai/unknown@v1", {}, 5, "swiss-ai/unknown@v1"),
        ("comity://elsewhere/apertus-8b@v1", {}, 4, "nobody says whose name elsewhere/apertus-8b is"),
        ("comity://swiss-ai", {}, 2, "is not an artifact reference"),
    ],
)
async def test_a_refused_model_is_in_no_volume_and_the_pod_says_why(
    cluster: Cluster, uri: str, changes: dict[str, str], status: int, why: str
) -> None:
    pod = cluster.pod(pod_of("model-pod.yaml", "Deployment"), changes)
    pod.spec["initContainers"][0]["args"][0] = uri
    started = await cluster.start(pod)
    message = started.ended.message
    assert (started.ended.status, started.answer, cluster.placed()) == (status, None, {}), message
    assert "error: " in message and why in " ".join(message.split())


async def test_a_copy_that_was_changed_at_every_node_is_refused_until_it_is_right(cluster: Cluster) -> None:
    pod = cluster.pod(pod_of("model-pod.yaml", "Deployment"))
    cluster.damage("weights.bin")
    started = await cluster.start(pod)
    assert (started.ended.status, started.answer, cluster.placed()) == (3, None, {}), started.ended.message
    assert "error: no source delivers" in started.ended.message and "wrong bytes" in started.ended.message
    cluster.damage("weights.bin")
    assert (await cluster.start(pod)).answer == cluster.files["config.json"]
    assert cluster.placed() == cluster.files


async def test_a_volume_that_a_job_filled_is_verified_again_by_each_pod(cluster: Cluster) -> None:
    job = cluster.pod(pod_of("model-volume.yaml", "Job"))
    pod = Pod(pod_of("model-volume.yaml", "Deployment"), job.volumes)
    early = await cluster.start(pod)
    assert early.ended.status and early.answer is None, "the job has not ended yet"
    assert await cluster.end(job) == Ended(0, "")
    evidence = cluster.folder / "models" / "apertus-8b-v1" / ".comity"
    evidence.rename(cluster.folder / "evidence")
    assert (await cluster.start(pod)).answer is None, "a job was killed while it put files in place"
    (cluster.folder / "evidence").rename(evidence)
    assert await cluster.start(pod) == Started(Ended(0, ""), cluster.files["config.json"])
    weights = cluster.folder / "models" / "apertus-8b-v1" / "weights.bin"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    started = await cluster.start(pod)
    assert (started.ended.status, started.answer) == (3, None) and "weights.bin" in started.ended.message


async def test_an_image_of_a_pulled_folder_is_verified_where_it_is_mounted(cluster: Cluster) -> None:
    job = cluster.pod(pod_of("model-pod.yaml", "Deployment"))
    assert await cluster.end(job) == Ended(0, "")
    spec = pod_of("model-image.yaml", "Deployment")
    folder, image = cluster.folder / "models", spec["volumes"][1]["image"]["reference"]
    await asyncio.to_thread(cluster.podman.build, folder, image)
    pod = Pod(spec, {"trust": job.volumes["trust"], "models": image})
    assert await cluster.start(pod) == Started(Ended(0, ""), cluster.files["config.json"])
    (folder / "weights.bin").chmod(0o644)
    (folder / "weights.bin").write_bytes(b"other weights")
    await asyncio.to_thread(cluster.podman.build, folder, image)
    started = await cluster.start(pod)
    assert (started.ended.status, started.answer) == (3, None) and "weights.bin" in started.ended.message


async def test_the_storage_containers_of_kserve_do_the_same(cluster: Cluster) -> None:
    digest = f"comity://sha256:{cluster.release.artifact}"
    several = [f"comity://{NAME}", "/mnt/models/first", digest, "/mnt/models/second"]
    pod = cluster.pod(by_kserve("comity", several))
    assert await cluster.end(pod) == Ended(0, "")
    assert cluster.placed() == {
        f"{at}/{path}": data for at in ("first", "second") for path, data in cluster.files.items()
    }
    again = Pod(by_kserve("comity-local-models", [digest, "/mnt/models/first"]), pod.volumes)
    assert await cluster.end(again) == Ended(0, "")


async def test_an_argument_of_a_user_is_never_an_option(cluster: Cluster) -> None:
    """Who asks KServe for a model writes URI and path; the policy is the administrator's."""
    pod = cluster.pod(by_kserve("comity", ["--policy=/mnt/models/own.toml", "/mnt/models"]))
    ended = await cluster.end(pod)
    assert ended.status == 2 and "BAD-NAME" in ended.message
