"""Which URLs and secrets a request to a webhook may have, and its signature."""

from __future__ import annotations

import pytest
from comity.trust.errors import Malformed
from comity.webhook_requests import check_url, parse_secret, signature


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of the libraries of standardwebhooks.com."""
    key = parse_secret(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    made = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


BAD_URLS = (
    *("ftp://a.example/", "https://", "http://a.example/", "http://10.0.0.1/", "https://user:pass@a.example/"),
    *("https://a.example/#x", "https://a.example:0/", "https://a.example:99999/", "https://a b/", "//a.example"),
    *("https://a.example/\r\nX: y", "https://é.example/", "http://127.0.0.1.evil.example/", f"https://a/{'x' * 2000}"),
)


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_url_that_is_not_safe_is_refused(url: str) -> None:
    with pytest.raises(Malformed):
        check_url(url)


@pytest.mark.parametrize("url", ["https://a.example", "http://127.0.0.1:8080/x", "http://[::1]/", "http://localhost/x"])
def test_https_and_this_machine_are_accepted(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize("data", [b"", b"whsec_", b"whsec_AAAA", b"secret", b"\xff" * 50, b"whsec_" + b"A" * 4000])
def test_an_invalid_secret_is_refused_without_being_shown(data: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        parse_secret(data)
    assert "AAAA" not in f"{refused.value} {refused.value.why}"
