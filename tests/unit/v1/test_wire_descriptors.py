"""What the wire contract can express: read from the descriptors, so that a new call cannot be added unnoticed."""

from __future__ import annotations

import re

import pytest
from comity.v1 import (
    artifact_pb2,
    audit_pb2,
    blob_pb2,
    bundle_pb2,
    charter_pb2,
    log_pb2,
    news_pb2,
    node_pb2,
    offer_pb2,
    operator_pb2,
    pin_pb2,
    publish_pb2,
    types_pb2,
    upstream_pb2,
)
from google.protobuf.descriptor import MethodDescriptor

FILES = [
    module.DESCRIPTOR
    for module in (
        artifact_pb2,
        audit_pb2,
        blob_pb2,
        bundle_pb2,
        charter_pb2,
        log_pb2,
        news_pb2,
        node_pb2,
        offer_pb2,
        operator_pb2,
        pin_pb2,
        publish_pb2,
        types_pb2,
        upstream_pb2,
    )
]
CALLS: list[MethodDescriptor] = [
    method for file in FILES for service in file.services_by_name.values() for method in service.methods
]

READS = {"Audit", "Find", "Get", "List", "Read", "Resolve", "Search", "Stat"}
APPENDS = {"Adopt", "Allocate", "Ask", "Check", "Decide", "Import", "Load", "Submit", "Upload"}
FORBIDDEN = re.compile(
    "delete|remove|hide|overwrite|replace|purge|revoke|drop|truncate|reset|update|set_", re.IGNORECASE
)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.full_name)
def test_i7_no_call_deletes_hides_or_overwrites(call: MethodDescriptor) -> None:
    verb = re.match("[A-Z][a-z]+", call.name)
    assert verb is not None
    assert verb.group() in READS | APPENDS
    assert not FORBIDDEN.search(call.name)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.full_name)
def test_i7_no_request_has_a_field_to_delete_hide_or_overwrite(call: MethodDescriptor) -> None:
    pending, seen = [call.input_type], set()
    while pending:
        message = pending.pop()
        seen.add(message.full_name)
        for field in message.fields:
            assert not FORBIDDEN.search(field.name), field.full_name
            if field.message_type is not None and field.message_type.full_name not in seen:
                pending.append(field.message_type)


def test_the_contract_has_these_services_and_no_other() -> None:
    assert {call.containing_service.name for call in CALLS} == {
        "ArtifactService",
        "AuditService",
        "BlobService",
        "BundleService",
        "CharterService",
        "LogService",
        "NewsService",
        "NodeService",
        "OfferService",
        "OperatorService",
        "PinService",
        "PublishService",
        "UpstreamService",
    }


def test_only_asking_publishing_and_operating_append() -> None:
    appending = {call.full_name for call in CALLS if re.match("[A-Z][a-z]+", call.name)[0] in APPENDS}  # type: ignore[index]  # it matches
    assert appending == {
        "comity.v1.AuditService.AskChallenges",
        "comity.v1.AuditService.CheckAnswer",
        "comity.v1.AuditService.CheckCopies",
        "comity.v1.AuditService.DecideHold",
        "comity.v1.BundleService.LoadBundle",
        "comity.v1.CharterService.Ask",
        "comity.v1.OfferService.Allocate",
        "comity.v1.OperatorService.Adopt",
        "comity.v1.OperatorService.AllocateSignIn",
        "comity.v1.OperatorService.DecideAsk",
        "comity.v1.PinService.DecidePin",
        "comity.v1.PublishService.Submit",
        "comity.v1.PublishService.Upload",
        "comity.v1.PublishService.UploadObjects",
        "comity.v1.UpstreamService.CheckUpstream",
        "comity.v1.UpstreamService.DecideImport",
        "comity.v1.UpstreamService.ImportRepository",
    }
