"""Signed notes (C2SP signed-note)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from comity.trust.errors import Malformed, Untrusted
from comity.trust.keys import PrivateKey, PublicKey
from comity.trust.tlog.note import (
    ED25519_COSIGNATURE,
    NoteSignature,
    SignedNote,
    VerifierKey,
    log_verifier_key,
    sign_note,
    verify_note,
)
from support.world import private_key

NAME = "node-a.example/log"
TEXT = "node-a.example/log\n1\nsomething\n"
KEY = private_key("note", "ed25519")
VKEY = log_verifier_key(NAME, KEY.public)
LINE = sign_note(TEXT, NAME, KEY)
NOTE = SignedNote(TEXT, (LINE,))


def forged(signature: NoteSignature) -> NoteSignature:
    return NoteSignature(signature.name, signature.key_id, bytes(len(signature.signature)))


def test_a_signed_note_verifies_after_a_round_trip() -> None:
    note = SignedNote.parse(NOTE.encode())
    assert note == NOTE
    assert verify_note(note, [VKEY]) == (VKEY,)


def test_the_printed_note_is_text_then_an_empty_line_then_em_dash_lines() -> None:
    assert NOTE.encode().startswith(TEXT.encode() + b"\n\xe2\x80\x94 node-a.example/log ")


def test_a_note_is_split_at_its_last_empty_line() -> None:
    text = "a\n\n— fake AAAAAAA=\n\n"
    note = SignedNote(text, (sign_note(text, NAME, KEY),))
    assert SignedNote.parse(note.encode()) == note


@pytest.mark.parametrize(
    "mutate",
    [
        pytest.param(lambda data: data[:-1], id="without final newline"),
        pytest.param(lambda data: data.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(lambda data: data.replace("—".encode(), b"-"), id="hyphen for the em dash"),
        pytest.param(lambda data: data.replace(b"\n\n", b"\n"), id="without the empty line"),
        pytest.param(lambda data: data + b"\n", id="trailing empty line"),
        pytest.param(lambda data: data[: data.rindex("—".encode())], id="without signatures"),
        pytest.param(lambda data: b"\xff" + data, id="not UTF-8"),
        pytest.param(lambda data: b"\t" + data, id="a tab in the text"),
        pytest.param(lambda data: data[:-3] + b"=\n", id="base64 without full padding"),
        pytest.param(lambda data: data[:-1] + b" \n", id="trailing space"),
        pytest.param(lambda data: data.replace(b"\n\n\xe2\x80\x94 ", b"\n\n\xe2\x80\x94  "), id="two spaces"),
        pytest.param(lambda data: data.replace(b"\x80\x94 node", b"\x80\x94 no+de"), id="plus in a name"),
        pytest.param(lambda data: data + "— name AAAA\n".encode(), id="a signature too short for a key ID"),
        pytest.param(lambda data: data + "— name AAAAAA==\n".encode(), id="a key ID and no signature"),
        pytest.param(lambda data: b"", id="nothing"),
        pytest.param(lambda data: b"a" * 1_000_001, id="too large"),
    ],
)
def test_a_note_in_another_spelling_is_refused(mutate: Callable[[bytes], bytes]) -> None:
    data = mutate(NOTE.encode())
    assert data != NOTE.encode()
    with pytest.raises(Malformed):
        SignedNote.parse(data)


def test_base64_with_a_second_spelling_is_refused() -> None:
    line = str(LINE)
    assert line.endswith("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    sibling = alphabet[alphabet.index(line[-2]) ^ 1]
    with pytest.raises(Malformed):
        NoteSignature.parse(f"{line[:-2]}{sibling}=")


def test_a_hundred_signatures_are_read_and_one_more_is_not() -> None:
    lines = tuple(NoteSignature(f"cosigner-{i}", b"1234", b"x") for i in range(101))
    assert len(SignedNote.parse(SignedNote(TEXT, lines[:100]).encode()).signatures) == 100
    with pytest.raises(Malformed) as refusal:
        SignedNote.parse(SignedNote(TEXT, lines).encode())
    assert refusal.value.code == "NOTE-SIGNATURES"
    assert len(SignedNote.parse(SignedNote(TEXT, lines).encode(), max_signatures=101).signatures) == 101


@pytest.mark.parametrize("text", ["", "no line feed", "a\r\n", "\ud800\n", "nul\0\n"])
def test_a_text_that_could_not_be_parsed_back_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        SignedNote(text, (LINE,))


def test_a_note_without_signatures_is_refused() -> None:
    with pytest.raises(Malformed):
        SignedNote(TEXT, ())


@pytest.mark.parametrize(
    "name", ["", "a b", "a+b", "a\u00a0b", "a\u2003b", "a\nb", "a\x1fb", "\ud800", "x" * 256, "é" * 128]
)
def test_a_bad_key_name_is_refused(name: str) -> None:
    with pytest.raises(Malformed) as refusal:
        NoteSignature(name, b"1234", b"x")
    assert refusal.value.code == "NOTE-NAME"
    with pytest.raises(Malformed):
        VerifierKey(name, VKEY.type, VKEY.public)


@pytest.mark.parametrize("name", ["a", "x" * 255, "é" * 127, "sigsum.org/v1/tree/00", "—"])
def test_a_key_name_of_up_to_255_bytes_is_accepted(name: str) -> None:
    key = log_verifier_key(name, KEY.public)
    assert VerifierKey.parse(str(key)) == key
    note = SignedNote(TEXT, (sign_note(TEXT, name, KEY),))
    assert verify_note(SignedNote.parse(note.encode()), [key]) == (key,)


def test_a_key_whose_base64_holds_a_plus_is_parsed() -> None:
    key = log_verifier_key(NAME, PublicKey("ed25519", bytes([0, 0] + [0xFB, 0xEF, 0xBE] * 10)))
    assert str(key).count("+") > 2
    assert VerifierKey.parse(str(key)) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+00000000",
        str(VKEY).replace(VKEY.key_id.hex(), "00000000"),
        str(VKEY).replace(VKEY.key_id.hex(), VKEY.key_id.hex().upper() + "0"),
        str(VKEY)[:-1],
        str(VKEY) + "=",
        f"{NAME}+{VKEY.key_id.hex()}+",
    ],
)
def test_a_verifier_key_in_another_spelling_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        VerifierKey.parse(text)


@pytest.mark.parametrize("kind", [0x00, 0x02, 0x05, 0x65, 0xFF])
def test_an_unknown_kind_of_key_is_refused(kind: int) -> None:
    with pytest.raises(Malformed) as refusal:
        VerifierKey(NAME, kind, VKEY.public)
    assert refusal.value.code == "NOTE-KEY-TYPE"


def test_only_an_ed25519_key_signs_for_a_log() -> None:
    key = PrivateKey.generate("ecdsa-p256")
    with pytest.raises(Malformed):
        sign_note(TEXT, NAME, key)


def test_a_failing_signature_of_a_known_key_rejects_the_note_although_another_verifies() -> None:
    other = PrivateKey.generate("ed25519")
    second = sign_note(TEXT, "other", other)
    keys = [VKEY, log_verifier_key("other", other.public)]
    assert verify_note(NOTE.with_signatures(second), keys) == tuple(keys)
    with pytest.raises(Untrusted) as refusal:
        verify_note(NOTE.with_signatures(forged(second)), keys)
    assert refusal.value.code == "NOTE-SIGNATURE"


def test_a_second_line_of_a_known_key_is_checked_too() -> None:
    with pytest.raises(Untrusted):
        verify_note(NOTE.with_signatures(forged(LINE)), [VKEY])


def test_a_line_that_matches_a_known_key_only_in_name_or_only_in_id_is_passed_over() -> None:
    strangers = (NoteSignature(NAME, b"0000", b"x"), NoteSignature("other", LINE.key_id, b"x"))
    assert verify_note(NOTE.with_signatures(*strangers), [VKEY]) == (VKEY,)
    with pytest.raises(Untrusted) as refusal:
        verify_note(SignedNote(TEXT, strangers), [VKEY])
    assert refusal.value.code == "NOTE-UNSIGNED"


def test_a_cosigner_key_does_not_count_as_a_signer_of_the_note() -> None:
    cosigner = VerifierKey(NAME, ED25519_COSIGNATURE, KEY.public.raw)
    line = NoteSignature(NAME, cosigner.key_id, KEY.sign(TEXT.encode()))
    with pytest.raises(Untrusted):
        verify_note(SignedNote(TEXT, (line,)), [cosigner])


def test_the_signature_covers_the_last_line_feed() -> None:
    with pytest.raises(Untrusted):
        verify_note(SignedNote(TEXT + "\n", (LINE,)), [VKEY])


def test_adding_keeps_each_line_once_and_in_order() -> None:
    other = NoteSignature("other", b"1234", b"x")
    assert NOTE.with_signatures(other, LINE, other).signatures == (LINE, other)


def test_a_note_may_be_as_large_as_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = NOTE.encode()
    monkeypatch.setattr("comity.trust.tlog.note.MAX_NOTE", len(data))
    assert SignedNote.parse(data) == NOTE
    monkeypatch.setattr("comity.trust.tlog.note.MAX_NOTE", len(data) - 1)
    with pytest.raises(Malformed, match="too large"):
        SignedNote.parse(data)


@pytest.mark.parametrize("key_id", [b"", b"123", b"12345"])
def test_a_key_id_has_four_bytes(key_id: bytes) -> None:
    with pytest.raises(Malformed):
        NoteSignature(NAME, key_id, b"signature")


def test_keys_of_the_wrong_length_and_of_other_algorithms_are_no_log_keys() -> None:
    for public in (VKEY.public[:-1], VKEY.public + b"x", b""):
        with pytest.raises(Malformed):
            VerifierKey(NAME, VKEY.type, public)
    with pytest.raises(Malformed, match="ed25519"):
        log_verifier_key(NAME, private_key("note", "ml-dsa-44").public)


@pytest.mark.parametrize("line", ["— onlyname", "— ", "name AAAAAAA="])
def test_a_signature_line_has_a_dash_a_name_and_a_signature(line: str) -> None:
    with pytest.raises(Malformed):
        NoteSignature.parse(line)


def test_a_text_without_an_empty_line_is_no_note() -> None:
    for data in (b"\n", b"text\n", f"{LINE}\n".encode(), b"text\n" + f"{LINE}\n".encode()):
        with pytest.raises(Malformed, match="an empty line"):
            SignedNote.parse(data)
