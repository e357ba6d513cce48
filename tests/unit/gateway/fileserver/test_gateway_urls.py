"""Signed URLs: each is valid for one blob, for a short time, in this process only."""

from __future__ import annotations

import pytest
from comity.gateway.fileserver.http1 import SignedUrls, file_name, peer_of
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, Refused

BLOB, OTHER = sha256(b"blob"), sha256(b"other")
NOW = 1_795_000_000


class Clock:
    now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def urls(clock: Clock) -> SignedUrls:
    return SignedUrls(bytes(32), clock)


def test_a_url_opens_its_blob_until_it_expires(urls: SignedUrls, clock: Clock) -> None:
    url = urls.sign(BLOB, seconds=60)
    clock.now += 60
    assert urls.check(url) == BLOB
    clock.now += 1
    with pytest.raises(Refused) as refused:
        urls.check(url)
    assert refused.value.code == "URL-EXPIRED"


def test_no_character_of_a_url_can_be_changed(urls: SignedUrls) -> None:
    url = urls.sign(BLOB, seconds=60, name="model.gguf", peer="node-ch.example")
    for at, character in enumerate(url):
        for other in ("0", "A", "_", "%", ""):
            changed = url[:at] + other + url[at + 1 :]
            if other == character:
                continue
            with pytest.raises(Refused) as refused:
                urls.check(changed)
            assert refused.value.code == "URL-FORGED"


def test_a_url_opens_no_other_blob(urls: SignedUrls) -> None:
    with pytest.raises(Refused):
        urls.check(urls.sign(BLOB, seconds=60).replace(BLOB, OTHER))


def test_a_url_ends_with_the_process_that_signed_it(urls: SignedUrls, clock: Clock) -> None:
    with pytest.raises(Refused) as refused:
        SignedUrls(bytes(31) + b"\1", clock).check(urls.sign(BLOB, seconds=60))
    assert refused.value.code == "URL-FORGED"


def test_a_url_lives_a_day_at_most(urls: SignedUrls, clock: Clock) -> None:
    url = urls.sign(BLOB, seconds=1e12)
    clock.now += 86_401
    with pytest.raises(Refused):
        urls.check(url)


@pytest.mark.parametrize(
    "name", ["model-00001-of-00002.safetensors", "Ünïcode & mac=.bin", "a/b?c#d\r\nX: y", '"quoted"']
)
def test_any_file_name_is_sent_unchanged(urls: SignedUrls, name: str) -> None:
    url = urls.sign(BLOB, seconds=60, name=name)
    assert urls.check(url) == BLOB
    assert file_name(url) == name
    assert url.isascii() and url.isprintable() and " " not in url


def test_a_url_names_the_client_that_got_it(urls: SignedUrls) -> None:
    assert peer_of(urls.sign(BLOB, seconds=60, peer="node-ch.example")) == "node-ch.example"
    assert peer_of(urls.sign(BLOB, seconds=60, name="a&peer=b")) == ""


def test_too_long_a_file_name_is_refused(urls: SignedUrls) -> None:
    with pytest.raises(Malformed):
        urls.sign(BLOB, seconds=60, name="ü" * 128)


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_a_key_of_another_length_is_a_mistake_of_the_caller(key: bytes, clock: Clock) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SignedUrls(key, clock)
