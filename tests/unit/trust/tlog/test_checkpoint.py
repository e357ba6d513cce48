"""Checkpoints of logs (C2SP tlog-checkpoint)."""

from __future__ import annotations

import pytest
from comity.trust.errors import Malformed, Untrusted
from comity.trust.keys import PrivateKey
from comity.trust.tlog.merkle import EMPTY_ROOT, leaf_hash
from comity.trust.tlog.note import Checkpoint, SignedNote, log_verifier_key, open_checkpoint, sign_note

ORIGIN = "node-a.example/log"
KEY = PrivateKey.generate("ed25519")
VKEY = log_verifier_key(ORIGIN, KEY.public)
CHECKPOINT = Checkpoint(ORIGIN, 300, leaf_hash(b""))


def test_a_checkpoint_is_three_lines() -> None:
    assert CHECKPOINT.text == f"{ORIGIN}\n300\nbjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=\n"
    assert Checkpoint.parse(CHECKPOINT.text) == CHECKPOINT


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n300\n", "\n0300\n"),
        ("\n300\n", "\n+300\n"),
        ("\n300\n", "\n-300\n"),
        ("\n300\n", "\n300 \n"),
        ("\n300\n", "\n\n"),
        ("\n300\n", "\n3e2\n"),
        ("\n300\n", "\n٣٠٠\n"),
        ("\n300\n", "\n9223372036854775808\n"),
        ("\n300\n", "\n99999999999999999999\n"),
        ("\n300\n", "\n00\n"),
        ("B0=\n", "B0\n"),
        ("B0=\n", "B1=\n"),
        ("B0=\n", "B0=\n\n"),
        ("B0=\n", "B0="),
        ("B0=\n", "B0=\r\n"),
        ("bjQLnP+z", ""),
        ("bjQLnP+z", "bjQLnP-z"),
        (ORIGIN, ""),
        (ORIGIN, "node a"),
        (ORIGIN, "node+a"),
        (ORIGIN, "x" * 256),
    ],
)
def test_a_checkpoint_in_another_spelling_is_refused(old: str, new: str) -> None:
    assert old in CHECKPOINT.text
    with pytest.raises(Malformed):
        Checkpoint.parse(CHECKPOINT.text.replace(old, new))


def test_an_extension_line_is_refused() -> None:
    with pytest.raises(Malformed) as refusal:
        Checkpoint.parse(CHECKPOINT.text + "extension\n")
    assert refusal.value.code == "CHECKPOINT-EXTENSION"


def test_an_empty_log_has_the_root_of_nothing() -> None:
    assert Checkpoint.parse(Checkpoint(ORIGIN, 0, EMPTY_ROOT).text).size == 0
    with pytest.raises(Malformed) as refusal:
        Checkpoint(ORIGIN, 0, leaf_hash(b""))
    assert refusal.value.code == "CHECKPOINT-EMPTY-ROOT"


@pytest.mark.parametrize(("size", "root"), [(-1, EMPTY_ROOT), (2**63, EMPTY_ROOT), (1, b"short")])
def test_a_checkpoint_that_cannot_be_parsed_back_cannot_be_made(size: int, root: bytes) -> None:
    with pytest.raises(Malformed):
        Checkpoint(ORIGIN, size, root)


def test_a_signed_checkpoint_opens_with_the_logs_key() -> None:
    note = SignedNote.parse(CHECKPOINT.signed(KEY).encode())
    assert open_checkpoint(note, VKEY) == CHECKPOINT


def test_a_checkpoint_does_not_open_with_another_key_of_the_same_name() -> None:
    stranger = log_verifier_key(ORIGIN, PrivateKey.generate("ed25519").public)
    with pytest.raises(Untrusted):
        open_checkpoint(CHECKPOINT.signed(KEY), stranger)


def test_a_log_cannot_sign_for_another_origin() -> None:
    text = Checkpoint("node-b.example/log", 300, CHECKPOINT.root).text
    with pytest.raises(Untrusted) as refusal:
        open_checkpoint(SignedNote(text, (sign_note(text, ORIGIN, KEY),)), VKEY)
    assert refusal.value.code == "CHECKPOINT-ORIGIN"


@pytest.mark.parametrize(
    "text", ["", "\n", "node.example/log\n", "node.example/log\n1\n", "node.example/log\n1\nAA==\nx"]
)
def test_a_checkpoint_has_three_lines_and_nothing_behind_them(text: str) -> None:
    with pytest.raises(Malformed, match="three lines"):
        Checkpoint.parse(text)
