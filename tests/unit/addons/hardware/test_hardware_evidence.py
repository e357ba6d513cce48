"""Documents and statements of hardware evidence: typed and bounded before a report is parsed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from comity.addons.hardware.appraisal import HardwarePins, appraise
from comity.addons.hardware.evidence_files import read_gpu_list
from comity.rules.hardware_evidence import (
    KINDS,
    MAX_CERTIFICATE,
    MAX_CERTIFICATES,
    MAX_DEVICES,
    MAX_EVIDENCE,
    MAX_REPORT,
    NVIDIA,
    AppraisalRow,
    Attested,
    Challenge,
    Device,
    DeviceResult,
    HardwareEvidence,
)
from comity.rules.signing import sign_content
from comity.trust.encoding import Fields, b64decode, b64encode, canonical, sha256
from comity.trust.errors import Malformed
from comity.trust.statement import SideObject, Subject
from support.case import nodes
from support.hardware import AT, gpu, gpu_list, revocation_list, snp, tdx, vendor

NONCE = bytes(range(32))
CA = vendor()
GPU = gpu(CA, NONCE)
PINS = HardwarePins(roots=dict.fromkeys(KINDS, (CA.above[0].der,)))
NODE = nodes(1)[0]
CHALLENGE = Challenge(sha256(b"offer"), NODE.record.origin, 7, sha256(b"root"), NODE.record.node.id)
EVIDENCE = SideObject(sha256(b"evidence"), MAX_EVIDENCE)
ATTESTED = Attested(NODE.record.node, CHALLENGE, EVIDENCE)
STATEMENT = ATTESTED.statement()
SMALL = Device(NVIDIA, b"x", (b"y",))


def document(**change: Any) -> bytes:
    return canonical({**json.loads(HardwareEvidence((SMALL,)).encode()), **change})


def device(**change: Any) -> bytes:
    return document(devices=[{**SMALL.to_json(), **change}])


def base64_of(size: int) -> str:
    return b64encode(bytes(size))


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (document(), document(schema="comity/hardware-evidence/v2")),
        (document(), document(more=1)),
        (document(devices=[SMALL.to_json()] * MAX_DEVICES), document(devices=[SMALL.to_json()] * (MAX_DEVICES + 1))),
        (document(), document(devices=[])),
        (device(), device(more=1)),
        (device(kind="intel-tdx"), device(kind="other")),
        (device(report=base64_of(MAX_REPORT)), device(report=base64_of(MAX_REPORT + 2))),
        (device(), device(report="")),
        (device(certificates=[]), device(certificates=["!"])),
        (
            device(certificates=[base64_of(MAX_CERTIFICATE)] * MAX_CERTIFICATES),
            device(certificates=[base64_of(1)] * (MAX_CERTIFICATES + 1)),
        ),
        (device(certificates=[base64_of(1)]), device(certificates=[base64_of(1), base64_of(MAX_CERTIFICATE + 1)])),
    ],
)
def test_a_document_of_evidence_is_bounded_in_every_part(good: bytes, bad: bytes) -> None:
    read = HardwareEvidence.parse(good)
    assert HardwareEvidence.parse(read.encode()) == read
    with pytest.raises(Malformed):
        HardwareEvidence.parse(bad)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"log": "x" * 255}, {"log": "x" * 256}),
        ({"log": "node-ch/log"}, {"log": "two words"}),
        ({"size": 1}, {"size": 0}),
        ({}, {"more": 1}),
        ({}, {"root": ""}),
    ],
)
def test_a_challenge_is_bounded_in_every_part(good: dict[str, Any], bad: dict[str, Any]) -> None:
    def read(change: dict[str, Any]) -> Challenge:
        return Challenge.read(Fields({**CHALLENGE.to_json(), **change}, "challenge"), subject=CHALLENGE.subject)

    assert read(good).to_json() == {**CHALLENGE.to_json(), **good}
    with pytest.raises(Malformed):
        read(bad)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"predicate": "attested-too"}, id="another predicate"),
        pytest.param({"by": None}, id="no author"),
        pytest.param({"by": replace(NODE.record.node, kind="identity")}, id="by an identity"),
        pytest.param({"subjects": (Subject("", CHALLENGE.subject),) * 2}, id="two subjects"),
        pytest.param({"objects": (EVIDENCE, SideObject.of(b"more"))}, id="a second side object"),
        pytest.param({"body": {**STATEMENT.body, "more": 1}}, id="an unknown member"),
    ],
)
def test_a_statement_of_evidence_is_of_a_node_with_one_side_object(change: dict[str, Any]) -> None:
    assert Attested.parse(STATEMENT) == ATTESTED
    with pytest.raises(Malformed):
        Attested.parse(replace(STATEMENT, **change))


def test_too_much_evidence_and_the_challenge_of_another_key_are_not_stated() -> None:
    for change in (
        {"evidence": replace(EVIDENCE, size=MAX_EVIDENCE + 1)},
        {"challenge": replace(CHALLENGE, key=sha256(b"another"))},
    ):
        with pytest.raises(Malformed):
            sign_content(replace(ATTESTED, **change), NODE.online)


def listed(change: Callable[[dict[str, Any]], None]) -> bytes:
    items = json.loads(gpu_list(GPU))
    change(items[0])
    return json.dumps(items).encode()


LONGEST = MAX_CERTIFICATES * MAX_CERTIFICATE * 2 // 4 * 3
"""Bytes of a PEM text whose base64 is as long as is read."""


def padded(item: dict[str, Any], size: int) -> str:
    return b64encode(b64decode(item["certificate"]).ljust(size, b"\n"))


def test_the_list_that_tools_write_is_read() -> None:
    assert read_gpu_list(gpu_list(GPU, GPU)) == HardwareEvidence((GPU, GPU))
    assert read_gpu_list(listed(lambda item: item.update(more=1))) == HardwareEvidence((GPU,))
    many = json.dumps(json.loads(gpu_list(GPU)) * MAX_DEVICES).encode()
    assert len(read_gpu_list(many).devices) == MAX_DEVICES
    largest = replace(GPU, report=GPU.report.ljust(MAX_REPORT, b"\0"))
    assert read_gpu_list(gpu_list(largest)) == HardwareEvidence((largest,))
    assert read_gpu_list(listed(lambda item: item.update(certificate=padded(item, LONGEST)))).devices == (GPU,)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(json.dumps(json.loads(gpu_list(GPU)) * (MAX_DEVICES + 1)).encode(), id="many"),
        pytest.param(b"[]", id="none"),
        pytest.param(b'"x"', id="a text"),
        pytest.param(b"5", id="a number"),
        pytest.param(listed(lambda item: item.update(nonce="00" * 32)), id="another nonce"),
        pytest.param(listed(lambda item: item.update(nonce=item["nonce"][:-2])), id="a part of the nonce"),
        pytest.param(listed(lambda item: item.update(nonce=item["nonce"].upper())), id="another form of the nonce"),
        pytest.param(listed(lambda item: item.update(nonce="no hex")), id="no nonce"),
        pytest.param(gpu_list(replace(GPU, report=GPU.report.ljust(MAX_REPORT + 2, b"\0"))), id="a large report"),
        pytest.param(listed(lambda item: item.update(certificate=padded(item, LONGEST + 1))), id="a long text"),
        pytest.param(listed(lambda item: item.update(certificate=base64_of(9))), id="no certificate"),
    ],
)
def test_a_list_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_gpu_list(data)


@pytest.mark.parametrize("data", [b"[]", b'"x"', b"5", b"{}"])
def test_what_is_no_list_of_gpus_is_refused_as_evidence(data: bytes) -> None:
    with pytest.raises(Malformed, match="1 to 64 GPUs") as caught:
        read_gpu_list(data)
    assert caught.value.code == "HARDWARE-EVIDENCE"


@pytest.mark.parametrize(
    ("states", "state", "signed"),
    [
        ({"chain": "pass", "kind": "pass", "signature": "pass", "challenge": "pass"}, "verified", True),
        ({"chain": "pass", "signature": "pass", "challenge": "pass"}, "claimed", True),
        ({"chain": "pass", "kind": "unknown", "signature": "pass", "challenge": "pass"}, "claimed", True),
        ({"chain": "pass", "kind": "fail", "signature": "pass", "challenge": "pass"}, "failed", True),
        ({"chain": "unknown", "signature": "pass", "challenge": "pass"}, "claimed", True),
        ({"chain": "pass", "signature": "pass", "challenge": "fail"}, "failed", False),
        ({"chain": "pass", "signature": "fail", "challenge": "pass"}, "failed", False),
        ({"chain": "fail", "signature": "pass", "challenge": "pass"}, "failed", True),
        ({"signature": "pass", "challenge": "pass"}, "claimed", True),
        ({}, "claimed", False),
    ],
)
def test_the_state_of_a_device_follows_from_its_rows(states: dict[str, Any], state: str, signed: bool) -> None:
    result = DeviceResult("x", None, "", (), tuple(AppraisalRow(name, found, "") for name, found in states.items()))
    assert (result.state, result.signed_challenge) == (state, signed)


@pytest.mark.parametrize("made", [GPU, snp(CA, NONCE), tdx(CA, NONCE)], ids=["gpu", "snp", "tdx"])
def test_a_part_of_what_was_signed_is_another_challenge(made: Device) -> None:
    for nonce, failed in ((NONCE, []), (NONCE[:31], ["challenge"]), (b"", ["challenge"])):
        (result,) = appraise(HardwareEvidence((made,)), nonce, PINS, AT)
        assert [row.name for row in result.findings if row.state == "fail"] == failed


def test_a_chain_names_its_root_and_its_length() -> None:
    (result,) = appraise(HardwareEvidence((GPU,)), NONCE, PINS, AT)
    rows = {row.name: row for row in result.findings}
    assert rows["chain"] == AppraisalRow("chain", "pass", "4 certificates, up to the pinned CN=Vendor root")


def test_revocation_data_pass_grow_stale_or_are_absent() -> None:
    of_root, at_due = revocation_list(CA.above[0]), AT + 30 * 86_400
    data = (revocation_list(CA), of_root)
    for revocations, at, state, text in (
        (data, AT, "pass", "no certificate is revoked"),
        (data, at_due + 1, "unknown", "; newer data are due"),
        ((of_root,), AT, "unknown", "no revocation data at hand for CN=GH100 A01 GSP BROM"),
    ):
        (result,) = appraise(HardwareEvidence((GPU,)), NONCE, replace(PINS, revocations=revocations), at)
        (row,) = (row for row in result.findings if row.name == "revocation")
        assert row.state == state and text in row.text


def test_devices_that_cannot_be_read_are_not_the_same_device() -> None:
    broken = replace(GPU, report=b"")
    results = appraise(HardwareEvidence((broken, broken)), NONCE, PINS, AT)
    assert [[row.name for row in result.findings] for result in results] == [["evidence"], ["evidence"]]


def test_reference_values_are_judged_one_by_one_in_the_order_of_their_names() -> None:
    reference = {"driver": frozenset({"550.90.07"}), "VBIOS": frozenset({"1"}), "nothing": frozenset({"1"})}
    (result,) = appraise(HardwareEvidence((GPU,)), NONCE, replace(PINS, reference={NVIDIA: reference}), AT)
    rows = [(row.name, row.state, row.text) for row in result.findings if row.name.startswith("reference")]
    vbios = dict(result.facts)["VBIOS"]
    assert rows == [
        ("reference VBIOS", "fail", f"VBIOS {vbios} is no reference value"),
        ("reference driver", "pass", "driver 550.90.07 is a reference value"),
        ("reference nothing", "unknown", "the report does not state nothing"),
    ]
    (result,) = appraise(HardwareEvidence((GPU,)), NONCE, PINS, AT)
    assert result.findings[-1] == AppraisalRow("reference values", "unknown", "no reference values at hand")
