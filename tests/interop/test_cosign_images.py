"""cosign, as distributions have it, checks images of a gateway by the key of their publisher; what is changed, missing
or of somebody else is refused. A registry of another kind keeps the signature valid.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from comity.addons.oci.manifests import PREDICATE_NOTE
from comity.rules.image_signature import (
    COSIGN_PREDICATE,
    ImageSigned,
    classical_half,
    cosign_payload,
    foreign_signature,
    sign_image,
)
from comity.rules.image_summary import SUMMARY_PREDICATE, ImageVerified, summarise_image
from comity.rules.model_pack import pack_image
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, b64encode, sha256
from comity.trust.identity import Inception, InceptionStatement, KeySet
from comity.trust.keys import HybridSigner, PublicKey
from comity.trust.model_signing.bundle import MEDIA_TYPE as BUNDLE
from comity.trust.names import Name
from comity.trust.report import Verified
from comity.trust.statement import SideObject
from support.federation import WITH_GATEWAY, NodeProcess, found, until
from support.lying_proxy import Answer, lying_proxy
from support.ports import free_port
from support.publisher import Publisher, Release, model, release, send
from support.tools import needs
from support.world import NOW

pytestmark = pytest.mark.slow

TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "ed": ("ed25519", "ml-dsa-65"),
    "curve": ("ecdsa-p384", "ml-dsa-65"),
    "desk": ("ed25519", "ml-dsa-65"),
}
POLICY: Final = sha256(b"the policy of a ministry")
SUMMARIES: Final = ("--type", SUMMARY_PREDICATE)
UNLOCK: Final = "apt-get install cosign"
SIGNED: Final = "dev.cosignproject.cosign/signature"
"""Annotation of a layer at the tag of signatures."""


@dataclass(frozen=True)
class SignedRelease:
    """A release, the signature of its image, and the name of its repository for registry clients."""

    release: Release
    image: Digest
    said: ImageSigned
    repository: str
    version: str

    @property
    def tag(self) -> str:
        """Where its signatures are."""
        return f"sha256-{self.image}.sig"


@dataclass(frozen=True)
class Scene:
    """A gateway with releases: `ed/tiny` v1 and v2 signed and v3 not, `curve/tiny` v1 signed; keys in PEM files."""

    url: str
    releases: Mapping[str, SignedRelease]
    keys: Mapping[str, Path]
    verifier: str
    """The id of the identity that verified the first release: it has the key `desk`."""

    @property
    def first(self) -> SignedRelease:
        return self.releases["ed/tiny@v1"]


def publisher(algs: tuple[str, ...], label: str) -> Publisher:
    signer = HybridSigner.generate(algs)
    inception = Inception("publisher", KeySet((signer.public,), 1), (), "", "CH", label)
    return Publisher(signer, inception, sign_content(InceptionStatement(inception), signer).line)


def signed(made: Release, name: str) -> SignedRelease:
    image = pack_image(made.ingested.manifest)
    assert image is not None
    full, by = Name.parse(name), made.publisher
    said = sign_image(by.id, full, made.artifact, image.manifest.digest, by.signer)
    return SignedRelease(made, image.manifest.digest, said, full.repository, full.version)


def summarised(by: Publisher, what: SignedRelease) -> ImageVerified:
    """That somebody verified a release and accepted it."""
    name, report = f"{what.repository}@{what.version}", SideObject.of(b"{}")
    levels = ("COMITY_BYTES",)
    verified = Verified(by.id, name, what.release.artifact, NOW, POLICY, True, levels, (), report, "1.0")
    return summarise_image(verified, what.image, by.signer)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("cosign")
    publishers = {namespace: publisher(algs, namespace) for namespace, algs in TYPES.items()}
    stranger = publisher(TYPES["ed"], "stranger")
    names = ("ed/tiny@v1", "ed/tiny@v2", "ed/tiny@v3", "curve/tiny@v1")
    releases = {}
    for number, name in enumerate(names):
        made = release(publishers[name.partition("/")[0]], model(folder / str(number), weights=400, seed=number), name)
        releases[name] = signed(made, name)
    (home,) = found(folder, 1, namespaces={name: each.id for name, each in publishers.items()}).homes
    http = f"127.0.0.1:{free_port()}"
    home.set("gateway", http=http)
    with contextlib.closing(NodeProcess(home, main=WITH_GATEWAY)) as node:
        await node.ready()
        async with home.client() as client:
            for name, each in releases.items():
                await send(client, each.release)
                if name != "ed/tiny@v3":
                    line = sign_content(each.said, each.release.publisher.signer).line
                    await client.submit((each.release.publisher.announcement, line), ())
            for who in (publishers["desk"], stranger):
                line = sign_content(summarised(who, releases["ed/tiny@v1"]), who.signer).line
                await client.submit((who.announcement, line), ())
        keys = dict(_keys(folder, {**publishers, "stranger": stranger}))
        yield Scene(f"http://{http}", releases, keys, publishers["desk"].id)


def _keys(folder: Path, publishers: Mapping[str, Publisher]) -> Iterator[tuple[str, Path]]:
    for name, each in publishers.items():
        path = folder / f"{name}.pub"
        path.write_bytes(classical_half(each.signer.public).to_pem())
        yield name, path
    (path := folder / "quantum.pub").write_bytes(_quantum_half(publishers["ed"]).to_pem())
    yield "quantum", path


def _quantum_half(by: Publisher) -> PublicKey:
    return next(half for half in by.signer.public.halves if half.alg == "ml-dsa-65")


def run(*command: str) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout + done.stderr


def verify(url: str, what: SignedRelease, key: Path, *more: str, reference: str = "") -> tuple[int, str]:
    """What `docs/clients/oci.md` says to run."""
    image = f"{urlsplit(url).netloc}/{what.repository}{reference or f':{what.version}'}"
    flags = ("--private-infrastructure", "--allow-http-registry", "--key", str(key))
    return run(needs("cosign", unlock=UNLOCK), "verify", *flags, *more, image)


def named(what: SignedRelease) -> tuple[str, ...]:
    return ("--annotations", f"dev.comity.name={what.repository}@{what.version}")


async def served(scene: Scene, what: SignedRelease, key: str, *more: str) -> str:
    """What cosign says once the gateway has read the log."""
    said = ["cosign was not run"]

    async def accepted() -> bool:
        status, said[0] = verify(scene.url, what, scene.keys[key], *named(what), *more)
        return status == 0

    await until(accepted, what="a signature that cosign accepts")
    return said[0]


@pytest.mark.asyncio(loop_scope="module")
async def test_cosign_accepts_the_image_of_a_version_by_tag_and_by_digest(scene: Scene) -> None:
    first = scene.first
    said = await served(scene, first, "ed")
    assert "The signatures were verified against the specified public key" in said
    assert json.loads(said[said.index("[{") : said.index("}]") + 2])[0]["critical"]["image"] == {
        "docker-manifest-digest": f"sha256:{first.image}"
    }
    assert verify(scene.url, first, scene.keys["ed"], reference=f"@sha256:{first.image}")[0] == 0
    status, tree = run(
        needs("cosign", unlock=UNLOCK), "tree", "--allow-http-registry", f"{urlsplit(scene.url).netloc}/ed/tiny:v1"
    )
    assert status == 0 and first.tag in tree


@pytest.mark.asyncio(loop_scope="module")
async def test_cosign_accepts_a_key_on_p384_with_its_hash(scene: Scene) -> None:
    await served(scene, scene.releases["curve/tiny@v1"], "curve", "--signature-digest-algorithm", "sha384")


Change = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class Tamper:
    """What is changed between gateway and cosign: JSON of the image, of the manifest at the tag of its signatures, or
    one whole answer by another; with which key and which arguments it is asked for."""

    image: Change | None = None
    signature: Change | None = None
    payload: Callable[[Scene], bytes] | None = None
    instead: Mapping[str, str] | None = None
    gone: str = ""
    key: str = "ed"
    more: tuple[str, ...] = ()


def _layers(document: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = document["layers"]
    return found


def _notes(document: dict[str, Any]) -> dict[str, str]:
    """The annotations of the first layer."""
    found: dict[str, str] = _layers(document)[0].get("annotations", {}) if _layers(document) else {}
    return found


def _set(name: str, value: Any, at: int = 0) -> Change:
    return lambda document: _layers(document)[at].update({name: value})


def _noted(value: str) -> Change:
    return lambda document: _notes(document).update({SIGNED: value})


def _flipped(document: dict[str, Any]) -> None:
    made = bytearray(base64.b64decode(_notes(document)[SIGNED]))
    made[10] ^= 1
    _notes(document)[SIGNED] = base64.b64encode(made).decode()


def _payload(scene: Scene, **changed: Any) -> bytes:
    said = replace(scene.first.said, **changed)
    return cosign_payload(said.name, said.artifact, said.image)


OTHER: Final = f"sha256:{'1' * 64}"
TAMPERS: Final[Mapping[str, Tamper]] = {
    "a layer with another digest": Tamper(image=_set("digest", OTHER)),
    "a layer with another size": Tamper(image=_set("size", 7)),
    "a layer under another path": Tamper(
        image=lambda d: _layers(d)[0]["annotations"].update({"org.cncf.model.filepath": "x"})
    ),
    "a layer of another type": Tamper(image=_set("mediaType", "application/vnd.cncf.model.code.v1.raw")),
    "a layer less": Tamper(image=lambda d: _layers(d).pop()),
    "a layer more": Tamper(image=lambda d: _layers(d).append(dict(_layers(d)[0]))),
    "layers in another order": Tamper(image=lambda d: _layers(d).reverse()),
    "another configuration": Tamper(image=lambda d: d["config"].update({"digest": OTHER})),
    "another artifact in the annotation": Tamper(
        image=lambda d: d["annotations"].update({"dev.comity.artifact": OTHER})
    ),
    "another artifact type": Tamper(image=lambda d: d.update({"artifactType": "application/x"})),
    "an image without a signature under the tag": Tamper(instead={"manifests/v1": "v3"}),
    "a signed image of another version under the tag": Tamper(instead={"manifests/v1": "v2"}, more=("v1",)),
    "the key of a stranger": Tamper(key="stranger"),
    "the key of another publisher": Tamper(key="curve"),
    "the post-quantum half of the key": Tamper(key="quantum"),
    "no signature at the tag": Tamper(gone="sig"),
    "no payload": Tamper(gone="payload"),
    "the signature of another version": Tamper(instead={"sig": "v2.sig"}),
    "no layer at the tag": Tamper(signature=lambda d: d.update({"layers": []})),
    "a signature with one other bit": Tamper(signature=_flipped),
    "an empty signature": Tamper(signature=_noted("")),
    "a signature that is no base64": Tamper(signature=_noted("!")),
    "no signature in the annotations": Tamper(signature=lambda d: _layers(d)[0].pop("annotations")),
    "a payload about another image": Tamper(payload=lambda s: _payload(s, image="2" * 64)),
    "a payload with another name": Tamper(payload=lambda s: _payload(s, name=Name.parse("ed/tiny@v2"))),
    "a payload about another artifact": Tamper(payload=lambda s: _payload(s, artifact="2" * 64)),
    "the signature of the bundle at the tag": Tamper(signature=_noted("envelope")),
    "another name than the policy asks for": Tamper(more=("v9",)),
}


def lie_of(scene: Scene, tamper: Tamper, real: Mapping[str, bytes]) -> Callable[[Answer], Answer]:
    """Changes answers as the tamper says; digests and sizes of what is changed are right."""
    first, payload = scene.first, real["payload"]
    image, sig = json.loads(real["v1"]), json.loads(real["sig"])
    if tamper.image is not None:
        tamper.image(image)
    if tamper.payload is not None:
        payload = tamper.payload(scene)
        _layers(sig)[0].update(digest=f"sha256:{hashlib.sha256(payload).hexdigest()}", size=len(payload))
    if tamper.signature is not None:
        tamper.signature(sig)
        if _notes(sig).get(SIGNED) == "envelope":
            key = classical_half(first.release.publisher.signer.public)
            _notes(sig)[SIGNED] = b64encode(foreign_signature(key, first.said.envelope))
    made = json.dumps(image).encode() if tamper.image else real["v1"]
    digest = hashlib.sha256(made).hexdigest()
    signatures = json.dumps(sig).encode() if tamper.signature or tamper.payload else real["sig"]
    answers = {
        "manifests/v1": made,
        f"manifests/sha256:{digest}": made,
        f"manifests/{first.tag}": signatures,
        f"manifests/sha256-{digest}.sig": signatures,
        f"manifests/sha256:{hashlib.sha256(signatures).hexdigest()}": signatures,
        f"blobs/sha256:{hashlib.sha256(payload).hexdigest()}": payload,
    }
    for path, other in (tamper.instead or {}).items():
        answers[f"manifests/{first.tag}" if path == "sig" else path] = real[other]
    gone = {"sig": f"manifests/{first.tag}", "payload": f"blobs/sha256:{hashlib.sha256(payload).hexdigest()}"}

    def lie(answer: Answer) -> Answer:
        path = answer.path.removeprefix("/v2/ed/tiny/")
        if tamper.gone and path == gone[tamper.gone]:
            return replace(answer, status=404, body=b"", length=0)
        if path not in answers:
            return answer
        data = answers[path]
        media = "application/octet-stream" if path.startswith("blobs") else json.loads(data)["mediaType"]
        headers = {"Content-Type": media, "Docker-Content-Digest": f"sha256:{hashlib.sha256(data).hexdigest()}"}
        return replace(
            answer, status=200, headers=headers, length=len(data), body=b"" if answer.method == "HEAD" else data
        )

    return lie


async def _real(scene: Scene) -> dict[str, bytes]:
    """What the gateway serves: images of the versions, manifests at the tags of signatures, and a payload."""
    import httpx2

    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    first, second = scene.first, scene.releases["ed/tiny@v2"]
    found: dict[str, bytes] = {}
    async with httpx2.AsyncClient(base_url=f"{scene.url}/v2/ed/tiny/", timeout=60) as http:
        paths = {each: each for each in ("v1", "v2", "v3")} | {"sig": first.tag, "v2.sig": second.tag}
        for name, reference in paths.items():
            answer = await http.get(f"manifests/{reference}", headers=accept)
            assert answer.status_code == 200, f"{name}: {answer.text}"
            found[name] = answer.content
        (layer,) = json.loads(found["sig"])["layers"]
        listed = await http.get(f"referrers/sha256:{first.image}", params={"artifactType": BUNDLE})
        bundles = {each["annotations"][PREDICATE_NOTE]: each for each in listed.json()["manifests"]}
        referrer = bundles[COSIGN_PREDICATE]
        (bundle,) = (await http.get(f"manifests/{referrer['digest']}", headers=accept)).json()["layers"]
        found["bundle"] = (await http.get(f"blobs/{bundle['digest']}")).content
        found["payload"] = (await http.get(f"blobs/{layer['digest']}")).content
    return found


@pytest.mark.asyncio(loop_scope="module")
async def test_cosign_refuses_whatever_is_changed_missing_or_of_somebody_else(scene: Scene) -> None:
    """The same proxy without a change is accepted, so that it is the change that is refused."""
    await served(scene, scene.first, "ed")
    await served(scene, scene.releases["ed/tiny@v2"], "ed")
    real = await _real(scene)
    accepted: list[str] = []
    for name, tamper in {"nothing": Tamper(more=("v1",)), **TAMPERS}.items():
        more = named(replace(scene.first, version=tamper.more[0])) if tamper.more else ()
        with lying_proxy(scene.url, lie_of(scene, tamper, real)) as url:
            status, said = verify(url, scene.first, scene.keys[tamper.key], *more)
        if status == 0:
            accepted.append(name)
        else:
            assert "rror" in said, said
    assert accepted == ["nothing"]
    assert len(TAMPERS) >= 20


@pytest.mark.asyncio(loop_scope="module")
async def test_cosign_accepts_the_bundle_that_refers_to_an_image_and_no_other(scene: Scene, tmp_path: Path) -> None:
    """cosign 2 reads bundles from files; the image manifest is the blob that they are about."""
    await served(scene, scene.first, "ed")
    real = await _real(scene)
    for name in ("v1", "v2", "bundle"):
        (tmp_path / name).write_bytes(real[name])
    (tmp_path / "root.json").write_text('{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}')

    def checked(image: str, key: str) -> bool:
        """Without a network: the trusted root has nothing in it, and no time stamp or log is asked for."""
        files = ("--bundle", str(tmp_path / "bundle"), "--trusted-root", str(tmp_path / "root.json"))
        flags = (
            "--new-bundle-format",
            "--private-infrastructure",
            "--insecure-ignore-tlog",
            "--type",
            COSIGN_PREDICATE,
        )
        words = (*flags, *files, "--key", str(scene.keys[key]), str(tmp_path / image))
        return run(needs("cosign", unlock=UNLOCK), "verify-blob-attestation", *words)[0] == 0

    assert checked("v1", "ed")
    assert not checked("v2", "ed"), "another image"
    assert not checked("v1", "stranger")


def attested(url: str, what: SignedRelease, key: Path, *more: str) -> tuple[int, str]:
    """`cosign verify-attestation`, as `docs/clients/image-signatures.md` says to run it."""
    image = f"{urlsplit(url).netloc}/{what.repository}:{what.version}"
    flags = ("--private-infrastructure", "--allow-http-registry", "--key", str(key))
    return run(needs("cosign", unlock=UNLOCK), "verify-attestation", *flags, *more, image)


@pytest.mark.asyncio(loop_scope="module")
async def test_cosign_accepts_the_summary_of_a_verifier_and_a_policy_can_ask_who_verified(
    scene: Scene, tmp_path: Path
) -> None:
    first, key = scene.first, scene.keys["desk"]

    async def accepted() -> bool:
        return attested(scene.url, first, key, *SUMMARIES)[0] == 0

    await until(accepted, what="a summary that cosign accepts")
    for verifier, status in ((scene.verifier, 0), ("0" * 64, 1)):
        (tmp_path / "ministry.cue").write_text(
            f'predicate: {{verifier: id: "urn:comity:identity:{verifier}", verificationResult: "PASSED"}}\n'
            f'predicate: policy: digest: sha256: "{POLICY}"\n'
        )
        policy = ("--policy", str(tmp_path / "ministry.cue"))
        assert bool(attested(scene.url, first, key, *SUMMARIES, *policy)[0]) is bool(status)
    assert attested(scene.url, first, scene.keys["ed"], *SUMMARIES)[0] != 0, "the publisher said nothing of the kind"
    assert attested(scene.url, first, scene.keys["stranger"], *SUMMARIES)[0] != 0, "no member"
    assert attested(scene.url, scene.releases["ed/tiny@v2"], key, *SUMMARIES)[0] != 0, "another image"
    assert attested(scene.url, first, key, "--type", "https://example.org/v1")[0] != 0, "another type"
    tag = first.tag.replace(".sig", ".att")
    for change in (_flipped_bit, _without_layers):
        with lying_proxy(scene.url, partial(change, tag)) as url:
            assert attested(url, first, key, *SUMMARIES)[0] != 0


def _without_layers(tag: str, answer: Answer) -> Answer:
    if not answer.path.endswith(tag) or not answer.body:
        return answer
    body = json.dumps(json.loads(answer.body) | {"layers": []}).encode()
    headers = answer.headers | {"docker-content-digest": f"sha256:{hashlib.sha256(body).hexdigest()}"}
    return replace(answer, headers=headers, body=body, length=len(body))


def _flipped_bit(tag: str, answer: Answer) -> Answer:
    """Changes an envelope on its way, which its digest shows."""
    if b'"payloadType"' not in answer.body:
        return answer
    return replace(answer, body=answer.body.replace(b'"sig":"', b'"sig":"A', 1)[: answer.length])


@pytest.mark.asyncio(loop_scope="module")
async def test_an_unsigned_version_has_no_signature(scene: Scene) -> None:
    await served(scene, scene.first, "ed")
    status, said = verify(scene.url, scene.releases["ed/tiny@v3"], scene.keys["ed"])
    assert status != 0 and "no signatures found" in said, said


@pytest.mark.asyncio(loop_scope="module")
async def test_a_copy_in_another_registry_keeps_its_signature(scene: Scene, tmp_path: Path) -> None:
    """`docker-registry` knows nothing of Comity; both the image and the tag of its signatures are copied by skopeo."""
    skopeo = needs("skopeo", unlock="apt-get install skopeo")
    program, address = needs("docker-registry", unlock="apt-get install docker-registry"), f"127.0.0.1:{free_port()}"
    await served(scene, scene.first, "ed")
    settings = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": address, "secret": "of this test"},
    }
    (tmp_path / "registry.yml").write_text(json.dumps(settings))
    process = subprocess.Popen([program, "serve", str(tmp_path / "registry.yml")], stderr=subprocess.DEVNULL)
    try:
        await until(lambda: _answers(address), what="the other registry")
        first, source = scene.first, f"docker://{urlsplit(scene.url).netloc}/ed/tiny"
        for tag in ("v1", first.tag):
            copied = (
                "--src-tls-verify=false",
                "--dest-tls-verify=false",
                f"{source}:{tag}",
                f"docker://{address}/x/y:{tag}",
            )
            status, said = run(skopeo, "copy", "--preserve-digests", *copied)
            assert status == 0, said
        moved = replace(first, repository="x/y")
        assert verify(f"http://{address}", moved, scene.keys["ed"], *named(first))[0] == 0
        assert verify(f"http://{address}", moved, scene.keys["stranger"])[0] != 0
    finally:
        process.terminate()
        process.wait(timeout=30)


async def _answers(address: str) -> bool:
    import httpx2

    with contextlib.suppress(httpx2.HTTPError):
        async with httpx2.AsyncClient() as http:
            return (await http.get(f"http://{address}/v2/")).status_code == 200
    return False
