"""What `comity import` makes of URLs of upstreams."""

from __future__ import annotations

import click
import pytest
from comity.trust.errors import Malformed
from comity_cli.commands.import_ import UpstreamOptions, _of_url

NONE = UpstreamOptions(endpoint="", hosts=(), terms=None, claimed="")


@pytest.mark.parametrize(
    ("url", "name", "endpoint"),
    [
        ("https://Models.example:8443/pub/tiny/", "https:models.example/tiny", "https://Models.example:8443/pub"),
        ("https://models.example/tiny@main", "https:models.example/tiny@main", "https://models.example"),
        ("s3://s3.example/bucket/lab/tiny", "s3:s3.example/tiny", "https://s3.example/bucket/lab"),
        ("oci://r.example/org/tiny@v1", "oci:r.example/tiny@v1", "https://r.example/org"),
        ("git+https://g.example/org/tiny.git@a/b", "git:g.example/tiny@a/b", "https://g.example/org"),
    ],
)
def test_a_url_gives_the_name_and_its_endpoint(url: str, name: str, endpoint: str) -> None:
    found, options = _of_url(url, NONE)
    assert (found, options.endpoint) == (name, endpoint)


@pytest.mark.parametrize("url", ["https://", "https:///x", "s3://[::1/x", "oci://h", "https://user@h/x"])
def test_a_url_without_a_host_and_a_name_is_refused(url: str) -> None:
    with pytest.raises(Malformed) as caught:
        _of_url(url, NONE)
    assert caught.value.code == "BAD-ENDPOINT"


def test_a_url_beside_an_endpoint_is_refused() -> None:
    with pytest.raises(click.UsageError):
        _of_url("https://a.example/tiny", UpstreamOptions("https://b.example", (), None, ""))
