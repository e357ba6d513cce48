"""The URL of a gateway: which are valid, and their shortest spelling."""

from __future__ import annotations

import re

import pytest
from comity.trust.errors import Malformed
from comity.v1 import node_pb2
from comity.wire import limits
from comity.wire.addresses import GatewayUrl
from comity.wire.node import NodeService
from comity.wire.rpc import rpc_of
from hypothesis import example, given
from hypothesis import strategies as st

HOSTILE = (
    "",
    "models.example.org",
    "ftp://models.example.org",
    "HTTPS://models.example.org",
    "https://",
    "https:///hub",
    "https://models.example.org/",
    "https://models.example.org//hub",
    "https://models.example.org/../hub",
    "https://models.example.org/hub/.",
    "https://models.example.org?token=hf_x",
    "https://models.example.org#x",
    "https://user@models.example.org",
    "https://user:hf_x@models.example.org",
    "https://models.example.org:0",
    "https://models.example.org:99999",
    "https://models.example.org:",
    "https://models.example.org:٣",
    "https://2001:db8::1",
    "https://[::1",
    "https://models.example.org\n",
    "https://models.example.org/\nexport PATH=/elsewhere",
    "https://models.example.org/$(id)",
    "https://models.example.org/`id`",
    "https://models.example.org/;id",
    "https://models.example.org/&&id",
    "https://models.example.org/'\"",
    "https://models.example.org/\\",
    "https://models.example.org/a b",
    "https://models.example.org/%0a",
    "https://$(id)",
    "https://;id;/",
    "https://models.example.org/\x1b[2J",
    "https://models.example.org/\x00",
    "https://models.example.org/\u202e",
    "https://mödels.example.org",
    f"https://models.example.org/{'x' * limits.GATEWAY_URL}",
)
ALPHABET = "htps:/.[]@?#$`;&'\"\\ \n\x1b~%aé0٣-_"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("https://models.example.org", "models.example.org", 443),
        ("http://models.example.org", "models.example.org", 80),
        ("http://127.0.0.1:7480", "127.0.0.1", 7480),
        ("https://[2001:db8::1]", "2001:db8::1", 443),
        ("https://[2001:db8::1]:8443/a/b-c_d.e~f", "2001:db8::1", 8443),
        ("http://localhost:7480/...", "localhost", 7480),
    ],
)
def test_a_gateways_url_is_parsed_and_printed_back(text: str, host: str, port: int) -> None:
    url = GatewayUrl.parse(text)
    assert (str(url), url.address.host, url.address.port) == (text, host, port)


@pytest.mark.parametrize("text", HOSTILE)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Malformed) as refused:
        GatewayUrl.parse(text)
    assert refused.value.code == "GATEWAY-URL"


@pytest.mark.parametrize("text", [text for text in HOSTILE if text])
def test_a_node_with_an_invalid_gateway_url_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        rpc_of(NodeService.node).answer.decode(node_pb2.GetNodeResponse(origin="node.example/log", gateway=text))


def test_a_node_of_an_earlier_version_names_no_gateway() -> None:
    assert rpc_of(NodeService.node).answer.decode(node_pb2.GetNodeResponse(origin="node.example/log")).gateway is None


@given(st.text(ALPHABET, max_size=40).map("http://a.example".__add__) | st.text(ALPHABET, max_size=40) | st.text())
@example("http://a.example/~")
def test_an_accepted_url_prints_as_it_was_in_a_small_set_of_characters(text: str) -> None:
    try:
        url = GatewayUrl.parse(text)
    except Malformed:
        return
    assert str(url) == text
    assert re.fullmatch(r"https?://[A-Za-z0-9:/._~\[\]-]+", text)
