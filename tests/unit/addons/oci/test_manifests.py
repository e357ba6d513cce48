"""What is at the tag of a model's signatures, and the bundles that refer to it: read as cosign reads them."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest
import yaml
from comity.addons.oci.manifests import make_statements, signature_bundle, signature_image, signed_digest
from comity.gateway.hub.mirrored import LocalStatements
from comity.rules.image_signature import ImageSignature, ImageSigned, classical_half, sign_image
from comity.rules.model_pack import pack_image
from comity.rules.signing import sign_content
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256
from comity.trust.names import Name
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from support import product
from support.world import identity, signer

MANIFEST = Manifest.of([FileEntry("config.json", 3, sha256(b"{}\n"))])
OWNER = identity("Swiss AI", "CH")
ALGORITHMS = (("ed25519", "ml-dsa-65"), ("ecdsa-p384", "ml-dsa-65"))


def signature(algs: tuple[str, ...] = ALGORITHMS[0]) -> ImageSignature:
    image, keys = pack_image(MANIFEST), signer("images", algs)
    assert image is not None
    made = sign_image(OWNER.id, Name.parse("swiss-ai/tiny@v1"), MANIFEST.digest, image.manifest.digest, keys)
    entry = sign_content(made, keys)
    return ImageSignature(entry, ImageSigned.parse(entry.statement), classical_half(keys.public))


def verifies(pem: bytes, made: bytes, message: bytes) -> None:
    key = load_pem_public_key(pem)
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(made, message, ec.ECDSA(hashes.SHA384()))
    else:
        assert isinstance(key, ed25519.Ed25519PublicKey)
        key.verify(made, message)


@pytest.mark.parametrize("algs", ALGORITHMS)
def test_the_tag_has_a_layer_for_each_signature_whose_annotation_signs_its_bytes(algs: tuple[str, ...]) -> None:
    first = signature(algs)
    manifest, config, payload = signature_image([first])
    document = json.loads(manifest.data)
    (layer,) = document["layers"]
    assert layer["digest"] == f"sha256:{payload.digest}" and layer["size"] == len(payload.data)
    made = base64.b64decode(layer["annotations"]["dev.cosignproject.cosign/signature"])
    verifies(first.key.to_pem(), made, payload.data)
    assert json.loads(config.data)["rootfs"]["diff_ids"] == [layer["digest"]]
    assert document["config"]["digest"] == f"sha256:{config.digest}"
    assert signature_image([]) == ()


@pytest.mark.parametrize("algs", ALGORITHMS)
def test_a_bundle_has_the_signed_statement_about_the_image(algs: tuple[str, ...]) -> None:
    one = signature(algs)
    bundle = json.loads(signature_bundle(one).data)
    envelope = bundle["dsseEnvelope"]
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    (made,) = envelope["signatures"]
    verifies(one.key.to_pem(), base64.b64decode(made["sig"]), message)
    assert json.loads(payload)["subject"][0]["digest"]["sha256"] == one.said.image
    hint = hashlib.sha256(one.key.to_der()).digest()
    assert base64.b64decode(bundle["verificationMaterial"]["publicKey"]["hint"]) == hint


def test_signatures_refer_to_the_model_and_every_document_of_them_is_served() -> None:
    image, one = pack_image(MANIFEST), signature()
    assert image is not None
    found = make_statements(image.manifest, MANIFEST, LocalStatements((one.entry.line,)), [one]).referrers
    listed = [each for each in found.all if each.kind == "application/vnd.dev.sigstore.bundle.v0.3+json"]
    assert [each.annotations for each in listed] == [
        {
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1",
        }
    ]
    assert json.loads(listed[0].manifest.data)["subject"]["digest"] == f"sha256:{image.manifest.digest}"
    assert found.signed is not None
    assert {found.signed.digest, *(each.digest for each in signature_image([one]))} <= set(found.documents)
    unsigned = make_statements(image.manifest, MANIFEST, LocalStatements((one.entry.line,)))
    assert unsigned.referrers.signed is None, "a statement that does not count is no signature"


@pytest.mark.parametrize(
    ("tag", "found"),
    [
        (f"sha256-{'a' * 64}.sig", "a" * 64),
        (f"sha256-{'a' * 64}.att", None),
        (f"sha256-{'A' * 64}.sig", None),
        (f"sha256-{'a' * 63}.sig", None),
        ("v1.sig", None),
        (f"sha256-{'a' * 64}", None),
    ],
)
def test_only_the_tag_of_signatures_names_an_image(tag: str, found: str | None) -> None:
    assert signed_digest(tag) == found


def test_the_policies_of_clusters_in_the_documents_are_yaml_with_a_key_that_can_be_read() -> None:
    page = (product.ROOT / "docs/clients/image-signatures.md").read_text("utf-8")
    policies = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert [policy["kind"] for policy in policies] == ["ClusterImagePolicy", "ClusterPolicy"]
    (authority,) = policies[0]["spec"]["authorities"]
    (rule,) = policies[1]["spec"]["rules"]
    (entry,) = rule["verifyImages"][0]["attestors"][0]["entries"]
    keys = [authority["key"]["data"], entry["keys"]["publicKeys"]]
    assert all(isinstance(load_pem_public_key(key.encode()), ed25519.Ed25519PublicKey) for key in keys)
    assert entry["annotations"] == {"dev.comity.name": "swiss-ai/apertus-8b@v1"}
