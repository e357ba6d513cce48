"""Witness policies (C2SP tlog-policy)."""

from __future__ import annotations

import pytest
from comity.rules.witness import MAX_POLICY, PolicyLog, TlogPolicy, WitnessGroup, WitnessKeyName
from comity.trust.errors import Malformed, PolicyNotMet, Untrusted
from comity.trust.keys import PrivateKey
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import (
    Checkpoint,
    NoteSignature,
    SignedNote,
    VerifierKey,
    cosign,
    cosigner_key,
    log_verifier_key,
    sign_note,
)

ORIGIN = "node-a.example/log"
LOG_KEY = PrivateKey.generate("ed25519")
LOG = log_verifier_key(ORIGIN, LOG_KEY.public)
CHECKPOINT = Checkpoint(ORIGIN, 1, leaf_hash(b"one"))
NOTE = CHECKPOINT.signed(LOG_KEY)
NOW = 1_795_162_000

KEYS = {
    name: PrivateKey.generate("ml-dsa-44" if name == "y3" else "ed25519") for name in ("x1", "x2", "x3", "y1", "y3")
}
WITNESSES = {name: cosigner_key(f"{name}.example", key.public) for name, key in KEYS.items()}
POLICY = f"""\
# An example in two levels
log {LOG} https://node-a.example/

witness X1 {WITNESSES["x1"]}
witness X2\t{WITNESSES["x2"]}   https://x2.example/submit
  witness X3 {WITNESSES["x3"]}
group X 2 X1 X2 X3
witness Y1 {WITNESSES["y1"]}
witness Y3 {WITNESSES["y3"]}
group Y any Y1 Y3
 # a comment line
group both all X Y
quorum both"""


def cosigned(*names: str) -> SignedNote:
    return NOTE.with_signatures(*(cosign(CHECKPOINT, f"{name}.example", KEYS[name], NOW) for name in names))


def test_a_policy_is_printed_without_comments_and_parsed_back() -> None:
    policy = TlogPolicy.parse(POLICY)
    assert str(policy).splitlines()[4:] == [
        "group X 2 X1 X2 X3",
        f"witness Y1 {WITNESSES['y1']}",
        f"witness Y3 {WITNESSES['y3']}",
        "group Y 1 Y1 Y3",
        "group both 2 X Y",
        "quorum both",
    ]
    assert TlogPolicy.parse(str(policy)) == policy


@pytest.mark.parametrize("names", [("x1", "x2", "y1"), ("x3", "x2", "y3"), tuple(KEYS)])
def test_a_quorum_through_groups_satisfies(names: tuple[str, ...]) -> None:
    result = TlogPolicy.parse(POLICY).satisfied(cosigned(*names))
    assert result.checkpoint == CHECKPOINT
    assert result.log == LOG
    assert result.cosigned == {name.upper(): NOW for name in names}


@pytest.mark.parametrize("names", [(), ("x1",), ("x1", "x2"), ("x1", "y1"), ("x1", "y1", "y3"), ("x1", "x2", "x3")])
def test_fewer_do_not_satisfy(names: tuple[str, ...]) -> None:
    with pytest.raises(PolicyNotMet) as refusal:
        TlogPolicy.parse(POLICY).satisfied(cosigned(*names))
    assert refusal.value.code == "QUORUM"


def test_one_cosigner_that_signs_twice_counts_once() -> None:
    note = cosigned("x1", "y1").with_signatures(cosign(CHECKPOINT, "x1.example", KEYS["x1"], NOW + 1))
    with pytest.raises(PolicyNotMet):
        TlogPolicy.parse(POLICY).satisfied(note)


def test_a_forged_line_of_a_listed_cosigner_rejects_the_note() -> None:
    forged = NoteSignature("x3.example", WITNESSES["x3"].key_id, bytes(72))
    with pytest.raises(Untrusted):
        TlogPolicy.parse(POLICY).satisfied(cosigned(*KEYS).with_signatures(forged))


def test_a_checkpoint_without_its_logs_signature_is_untrusted_with_any_cosigners() -> None:
    note = SignedNote(NOTE.text, cosigned(*KEYS).signatures[1:])
    with pytest.raises(Untrusted):
        TlogPolicy.parse(POLICY).satisfied(note)


def test_a_listed_log_does_not_sign_for_another() -> None:
    text = Checkpoint("node-b.example/log", 1, CHECKPOINT.root).text
    with pytest.raises(Untrusted):
        TlogPolicy.parse(f"log {LOG}\nquorum none\n").satisfied(SignedNote(text, (sign_note(text, ORIGIN, LOG_KEY),)))


def test_quorum_none_requires_a_log_only_which_the_caller_may_name() -> None:
    policy = TlogPolicy.parse("quorum none\n")
    assert policy.satisfied(NOTE, [LOG]).cosigned == {}
    with pytest.raises(Untrusted):
        policy.satisfied(NOTE)


def test_a_single_witness_may_be_the_quorum() -> None:
    policy = TlogPolicy.parse(f"log {LOG}\nwitness W {WITNESSES['y3']}\nquorum W\n")
    assert policy.satisfied(cosigned("y3")).cosigned == {"W": NOW}
    with pytest.raises(PolicyNotMet):
        policy.satisfied(cosigned("x1"))


def test_two_hundred_witnesses_fit() -> None:
    lines = [f"witness W{i} {VerifierKey(f'w{i}', 6, i.to_bytes(1312, 'big'))}" for i in range(200)]
    policy = TlogPolicy.parse("\n".join([*lines, f"group G 134 {' '.join(f'W{i}' for i in range(200))}", "quorum G"]))
    assert len(policy.witnesses) == 200


def test_names_are_opaque_bytes() -> None:
    data = f"witness \xff {WITNESSES['x1']}\nquorum \xff\n".encode("latin-1")
    policy = TlogPolicy.parse(data.decode("utf-8", "surrogateescape"))
    assert str(policy).encode("utf-8", "surrogateescape") == data


OTHER_LOG = log_verifier_key("other", LOG_KEY.public)
OTHER_WITNESS = cosigner_key("other", KEYS["x1"].public)
W1, W2 = f"witness W1 {WITNESSES['x1']}\n", f"witness W2 {WITNESSES['x2']}\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param(W1, id="no quorum"),
        pytest.param(W1 + "quorum W1\nquorum W1\n", id="two quorums"),
        pytest.param(W1 + "quorum W2\n", id="an undefined quorum"),
        pytest.param("quorum W1\n" + W1, id="a quorum defined later"),
        pytest.param("quorum\n", id="a quorum of nothing"),
        pytest.param("quorum none none\n", id="a quorum of two"),
        pytest.param(W1 + W1.replace("W1", "W2") + "quorum none\n", id="one key under two names"),
        pytest.param(W1 + f"witness W2 {OTHER_WITNESS}\nquorum none\n", id="one key, two vkeys"),
        pytest.param(f"log {LOG}\nlog {OTHER_LOG}\nquorum none\n", id="one key, two logs"),
        pytest.param(W1 + W2.replace("W2", "W1") + "quorum none\n", id="two witnesses of one name"),
        pytest.param(W1 + "group W1 1 W1\nquorum none\n", id="a group of a witness's name"),
        pytest.param(W1.replace("W1", "none") + "quorum none\n", id="a witness called none"),
        pytest.param(W1 + "group none 1 W1\nquorum none\n", id="a group called none"),
        pytest.param(W1 + "group G any none\nquorum none\n", id="none as a member"),
        pytest.param(W1 + "group G all W1 W1\nquorum none\n", id="a member twice"),
        pytest.param(W1 + "group G all W1\ngroup H all W1\nquorum none\n", id="a member of two groups"),
        pytest.param("group G all W1\n" + W1 + "quorum none\n", id="a member defined later"),
        pytest.param("group G all G\nquorum none\n", id="a member of itself"),
        pytest.param(W1 + "group G 0 W1\nquorum none\n", id="a threshold of zero"),
        pytest.param(W1 + "group G 2 W1\nquorum none\n", id="more than all"),
        pytest.param(W1 + "group G -1 W1\nquorum none\n", id="a negative threshold"),
        pytest.param(W1 + "group G 01 W1\nquorum none\n", id="a leading zero"),
        pytest.param(W1 + "group G any\nquorum none\n", id="a group without members"),
        pytest.param(W1 + "group G\nquorum none\n", id="a group of nothing"),
        pytest.param(f"log {WITNESSES['x1']}\nquorum none\n", id="a cosigner's key for a log"),
        pytest.param(f"witness W {LOG}\nquorum none\n", id="a log's key for a witness"),
        pytest.param("log\nquorum none\n", id="a log without key"),
        pytest.param(f"log {LOG} url more\nquorum none\n", id="too many words"),
        pytest.param(f"log {LOG}\r\nquorum none\n", id="CRLF"),
        pytest.param(f"Log {LOG}\nquorum none\n", id="upper case"),
        pytest.param("quorum none # comment\n", id="a comment after a line"),
        pytest.param("quorum none\n\x7f", id="DEL"),
        pytest.param("quorum none\n" + "#" * MAX_POLICY, id="too large"),
        pytest.param("# \x07\nquorum none\n", id="a bell in a comment"),
        pytest.param(W1.rstrip() + " url more\nquorum none\n", id="a witness of two addresses"),
    ],
)
def test_a_policy_that_breaks_a_rule_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        TlogPolicy.parse(text)


def test_a_policy_may_be_as_long_as_the_limit() -> None:
    text = "quorum none\n"
    assert TlogPolicy.parse(text + "#" * (MAX_POLICY - len(text))).quorum == "none"


def test_the_line_that_breaks_a_rule_is_named() -> None:
    with pytest.raises(Malformed, match="line 3 is not a definition"):
        TlogPolicy.parse("# comment\n\nnonsense\nquorum none\n")
    with pytest.raises(Malformed, match="no quorum line"):
        TlogPolicy.parse(W1)


def test_a_policy_that_is_built_has_a_quorum_that_is_defined() -> None:
    witness = WitnessKeyName("W1", WITNESSES["x1"])
    assert TlogPolicy((), (witness,), "W1").quorum == "W1"
    with pytest.raises(Malformed, match="is not defined"):
        TlogPolicy((), (witness,), "W2")


def test_of_two_keys_of_a_log_the_first_that_signed_is_named() -> None:
    second = PrivateKey.generate("ed25519")
    both = NOTE.with_signatures(sign_note(NOTE.text, ORIGIN, second))
    keys = (LOG, log_verifier_key(ORIGIN, second.public))
    for order in (keys, keys[::-1]):
        assert TlogPolicy(tuple(PolicyLog(key) for key in order), (), "none").satisfied(both).log == order[0]


@pytest.mark.parametrize("word", ["", "a b", "a\nquorum none", "\ud800"])
def test_a_name_that_could_not_be_parsed_back_is_refused(word: str) -> None:
    key = WITNESSES["x1"]
    for logs, parties in (
        ((), (WitnessKeyName(word, key),)),
        ((), (WitnessKeyName("w", key, word),)),
        ((), (WitnessKeyName("w", key), WitnessGroup(word, 1, ("w",)))),
        ((PolicyLog(LOG, word),), ()),
    ):
        with pytest.raises(Malformed):
            TlogPolicy(logs, parties, "none")
