"""What is at the tag of a model's signatures, and the bundles that refer to it: read as cosign reads them."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest
import yaml
from comity.addons.oci.manifests import attached_to, bundle_of, make_statements, signature_image, summary_image
from comity.gateway.hub.mirrored import LocalStatements
from comity.rules.image_signature import ImageSignature, ImageSigned, classical_half, sign_image
from comity.rules.image_summary import ImageSummary, ImageVerified, SaidOfImage, summarise_image
from comity.rules.model_pack import pack_image
from comity.rules.signing import sign_content
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256
from comity.trust.names import Name
from comity.trust.report import Verified
from comity.trust.statement import SideObject
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
    bundle = json.loads(bundle_of(one).data)
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
    found = make_statements(image.manifest, MANIFEST, LocalStatements((one.entry.line,)), SaidOfImage((one,))).referrers
    listed = [each for each in found.all if each.kind == "application/vnd.dev.sigstore.bundle.v0.3+json"]
    assert [each.annotations for each in listed] == [
        {
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1",
        }
    ]
    assert json.loads(listed[0].manifest.data)["subject"]["digest"] == f"sha256:{image.manifest.digest}"
    assert set(found.attached) == {"sig"}
    assert {found.attached["sig"].digest, *(each.digest for each in signature_image([one]))} <= set(found.documents)
    unsigned = make_statements(image.manifest, MANIFEST, LocalStatements((one.entry.line,)))
    assert unsigned.referrers.attached == {}, "a statement that does not count is no signature"


@pytest.mark.parametrize(
    ("tag", "found"),
    [
        (f"sha256-{'a' * 64}.sig", ("a" * 64, "sig")),
        (f"sha256-{'a' * 64}.att", ("a" * 64, "att")),
        (f"sha256-{'a' * 64}.sbom", None),
        (f"sha256-{'A' * 64}.sig", None),
        (f"sha256-{'a' * 63}.sig", None),
        ("v1.sig", None),
        (f"sha256-{'a' * 64}", None),
    ],
)
def test_only_tags_of_this_form_name_an_image(tag: str, found: tuple[str, str] | None) -> None:
    assert attached_to(tag) == found


def test_the_tag_of_summaries_has_an_envelope_for_each_that_the_key_verifies() -> None:
    image, keys = pack_image(MANIFEST), signer("images", ALGORITHMS[0])
    assert image is not None
    report = SideObject.of(b"{}")
    name, policy = "swiss-ai/tiny@v1", sha256(b"policy")
    verified = Verified(OWNER.id, name, MANIFEST.digest, 1_795_000_000, policy, True, (), (), report, "1.0")
    entry = sign_content(summarise_image(verified, image.manifest.digest, keys), keys)
    one = ImageSummary(entry, ImageVerified.parse(entry.statement), classical_half(keys.public))
    manifest, _, envelope = summary_image([one])
    (layer,) = json.loads(manifest.data)["layers"]
    assert layer["digest"] == f"sha256:{envelope.digest}"
    assert layer["annotations"]["predicateType"] == "https://slsa.dev/verification_summary/v1"
    document = json.loads(envelope.data)
    payload, kind = base64.b64decode(document["payload"]), document["payloadType"].encode()
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    verifies(one.key.to_pem(), base64.b64decode(document["signatures"][0]["sig"]), message)
    assert json.loads(payload)["subject"][0]["digest"]["sha256"] == image.manifest.digest
    said = SaidOfImage((), (one,))
    found = make_statements(image.manifest, MANIFEST, LocalStatements((entry.line,)), said).referrers
    assert set(found.attached) == {"att"} and envelope.digest in found.documents
    notes = [each.annotations.get("dev.sigstore.bundle.predicateType") for each in found.all]
    assert "https://slsa.dev/verification_summary/v1" in notes


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
