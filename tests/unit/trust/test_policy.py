"""Policies: their fields, pins and defaults, and the errors of a wrong one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comity.trust.encoding import format_id, sha256, short
from comity.trust.errors import ComityError, Malformed, NotFound, Untrusted
from comity.trust.home_logs import OriginOwners
from comity.trust.policy import (
    DEFAULT_REQUIRED,
    PUBLISHER,
    ROWS,
    CosignerRule,
    Freshness,
    Policy,
    impossible_rows,
    most_cosigners,
)
from comity.trust.policy_file import parse_policy
from comity.trust.policy_table import PolicyLines, PolicyTable
from comity.trust.statement import parse_entry
from comity.trust.verify import verify
from support.case import case, nodes
from support.world import found, identity, node

GOOD = case()
SWISS_AI, OTHER = identity("Swiss AI", "CH").id, identity("Other").id
FEDERATION = found(nodes(3), {"swiss-ai": SWISS_AI})
FULL = f"""
schema = "comity/policy/v1"
[[pin]]
file = "federation.json"
body = "{FEDERATION.body.digest}"
[publishers]
accept = ["{SWISS_AI}", "sha256:{OTHER}"]
names = {{ "swiss-ai" = "{SWISS_AI}" }}
[cosigners]
at_least = 1
jurisdictions = 1
outside = ["publisher", "CH", "ES"]
post_quantum = true
[licences]
accept = ["Apache-2.0", "MIT"]
[advisories]
refuse_from = ["{OTHER}"]
[time]
as_of = 2026-11-24T01:00:00+01:00
max_age_days = 7
[rows]
require = ["bytes", "key policy", "time"]
"""


def parse(text: str, **files: bytes) -> Policy:
    def read(name: str) -> bytes:
        if name not in files:
            raise NotFound(f"no file {name}")
        return files[name]

    return parse_policy(text.encode(), read)


def pinning(text: str) -> Policy:
    return parse(text, **{"federation.json": FEDERATION.encode()})


def test_every_field_of_a_policy_is_read() -> None:
    assert pinning(FULL) == Policy(
        pins=(FEDERATION.body,),
        publishers=frozenset({SWISS_AI, OTHER}),
        bindings={"swiss-ai": SWISS_AI},
        cosigners=CosignerRule(1, 1, ("publisher", "CH", "ES"), True),
        licences=frozenset({"apache-2.0", "mit"}),
        refuse_from=frozenset({OTHER}),
        freshness=Freshness(1_795_478_400, 7 * 86_400),
        require=("bytes", "key policy", "time"),
        digest=sha256(FULL.encode()),
        origins=OriginOwners({member.origin: member.seat.id for member in nodes(3)}),
    )


def test_an_empty_policy_pins_nothing_and_requires_the_default_rows() -> None:
    assert parse("") == Policy(digest=sha256(b""))
    assert parse("").require == DEFAULT_REQUIRED
    assert parse("").cosigners == CosignerRule(2, 0, (PUBLISHER,), False)


def test_a_policy_may_pin_the_rotation_of_an_identity() -> None:
    text = f'[publishers.rotations]\n"{SWISS_AI}" = "{OTHER}"\n'
    assert parse(text).rotations == {SWISS_AI: OTHER}
    for wrong in (text.replace(OTHER, "2"), text.replace(SWISS_AI, "swiss-ai"), "[publishers]\nrotations = []"):
        with pytest.raises(Malformed) as refusal:
            parse(wrong)
        assert refusal.value.code == "POLICY-SYNTAX"


@pytest.mark.parametrize(
    ("wrong", "guess"),
    [
        ("[cosigners]\nat_lest = 3", "did you mean 'at_least'?"),
        ("[cosigner]\nat_least = 3", "did you mean 'cosigners'?"),
        ("[publishers]\naccepts = []", "did you mean 'accept'?"),
        ("[licenses]\naccept = []", "did you mean 'licences'?"),
        ("[advisories]\nrefuse = []", "did you mean 'refuse_from'?"),
        ("[time]\nas-of = 2026-11-24T00:00:00Z", "did you mean 'as_of'?"),
        ("[rows]\nrequired = []", "did you mean 'require'?"),
        ("[rows]\nrequire = ['signature']", "did you mean 'signatures'?"),
        ("[rows]\nrequire = ['xyz']", "rows are artifact, bytes"),
        ("[[pin]]\nfile = 'federation.json'\nboddy = ''", "did you mean 'body'?"),
        ("[weather]\nsunny = true", "known keys: "),
    ],
)
def test_an_unknown_key_is_an_error_with_a_guess(wrong: str, guess: str) -> None:
    with pytest.raises(Malformed) as refusal:
        pinning(wrong)
    assert guess in refusal.value.why
    assert refusal.value.code == "POLICY-SYNTAX"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("schema = 'comity/policy/v2'", id="another schema"),
        pytest.param("schema = 1", id="a schema that is no text"),
        pytest.param("pin = 'federation.json'", id="a pin that is no table"),
        pytest.param("pin = ['federation.json']", id="pins that are no tables"),
        pytest.param("[[pin]]\nbody = ''", id="a pin without a file"),
        pytest.param("[[pin]]\nfile = 'federation.json'\nbody = 'x'", id="a pin on no digest"),
        pytest.param("[time]\nas_of = 2026-11-24T00:00:00Z\nmax_age_days = true", id="an age that is no number"),
        pytest.param("publishers = []", id="publishers that are no table"),
        pytest.param("[publishers]\naccept = 'me'", id="accept that is no list"),
        pytest.param("[publishers]\naccept = [5]", id="a publisher that is no text"),
        pytest.param("[publishers]\naccept = ['Swiss AI']", id="a publisher that is no id"),
        pytest.param("[publishers]\nnames = { 'a b' = '" + SWISS_AI + "' }", id="an invalid name"),
        pytest.param("[publishers]\nnames = { a = 5 }", id="a binding that is no id"),
        pytest.param("[cosigners]\nat_least = -1", id="a negative count"),
        pytest.param("[cosigners]\nat_least = true", id="a count that is no number"),
        pytest.param("[cosigners]\nat_least = 2.5", id="a fraction of a cosigner"),
        pytest.param("[cosigners]\njurisdictions = -1", id="negative jurisdictions"),
        pytest.param("[cosigners]\noutside = ['Switzerland']", id="no jurisdiction"),
        pytest.param("[cosigners]\npost_quantum = 1", id="a switch that is no boolean"),
        pytest.param("[time]\nas_of = 2026-11-24T00:00:00", id="a time without offset"),
        pytest.param("[time]\nas_of = 2026-11-24", id="a day"),
        pytest.param("[time]\nas_of = '2026-11-24T00:00:00Z'", id="a time in quotes"),
        pytest.param("[time]\nas_of = 2026-11-24T00:00:00Z\nmax_age_days = -1", id="a negative age"),
        pytest.param("[time]\nmax_age_days = 7", id="an age without a time"),
        pytest.param("[rows]\nrequire = ['policy']", id="the policy row requires itself"),
        pytest.param("[rows]\nrequire = ['disputes and advisories']", id="a row that cannot pass"),
        pytest.param("[rows]\nrequire = ['artifact', 'licence']", id="a licence row without licences"),
        pytest.param("[rows]\nrequire = ['artifact', 'time']", id="a time row without a time"),
        pytest.param("[rows]\nrequire = ['artifact', 'documents']", id="a documents row without documents"),
        pytest.param("[safety]\nallow = ['pickel']", id="an unknown kind"),
        pytest.param("[safety]\nallow = ['sha256:12']", id="a truncated digest"),
        pytest.param("[safety]\nalow = ['pickle']", id="an unknown safety key"),
        pytest.param("[documents]\nrequire = ['diploma']", id="an unknown document"),
        pytest.param("[licences]\naccept = [5]", id="a licence that is no text"),
        pytest.param("[licences]\naccepts = []", id="an unknown licence key"),
        pytest.param("[lineage]\nparents = true", id="an unknown lineage key"),
        pytest.param("[documents]\nrequired = []", id="an unknown documents key"),
        pytest.param("[model_signing]\nkey = []", id="an unknown signing key"),
        pytest.param(
            "[model_signing]\nsigstore_root = 'federation.json'\nidentity = [{ identity = 'a', issuer = 'b', x = 1 }]",
            id="an unknown identity key",
        ),
        pytest.param("[upstream]\ncorroborate = 1", id="an unknown upstream key"),
        pytest.param("[upstream]\ncorroborated = 2\n[rows]\nrequire = ['bytes']", id="corroborated, and no artifact"),
        pytest.param("a = [", id="no TOML"),
        pytest.param("a = " + "9" * 5000, id="a number beyond the library's limit"),
        pytest.param("a = " + "[" * 20_000, id="nesting beyond the stack"),
        pytest.param("a = 1\na = 2", id="a key twice"),
        pytest.param("# " + "x" * 2**20, id="too large"),
    ],
)
def test_an_invalid_policy_is_refused(text: str) -> None:
    with pytest.raises(Malformed) as refusal:
        pinning(text)
    assert refusal.value.code == "POLICY-SYNTAX"


def test_a_federation_file_can_be_read_in_pieces() -> None:
    data = FEDERATION.encode()

    def read(name: str) -> bytes:
        raise NotFound(f"no file {name}")

    def read_chunks(name: str) -> list[bytes]:
        return [data[:100], data[100:]]

    assert parse_policy(FULL.encode(), read, read_chunks) == pinning(FULL)


def test_the_key_that_is_wrong_is_named() -> None:
    with pytest.raises(
        Malformed, match=r"policy\.publishers is malformed: line 2: 'accept': 'Swiss AI' is no digest or id"
    ):
        pinning("[publishers]\naccept = ['Swiss AI']")


def test_a_policy_is_utf8() -> None:
    with pytest.raises(Malformed):
        parse_policy(b"# \xff", lambda _: b"")


def test_a_pin_that_does_not_hold_is_refused() -> None:
    with pytest.raises(Untrusted) as refusal:
        pinning(f"[[pin]]\nfile = 'federation.json'\nbody = '{SWISS_AI}'")
    assert refusal.value.code == "PIN"
    with pytest.raises(NotFound):
        parse("[[pin]]\nfile = 'elsewhere.json'")
    with pytest.raises(ComityError):
        parse("[[pin]]\nfile = 'federation.json'", **{"federation.json": FEDERATION.encode()[:-100]})


def test_the_owners_binding_has_priority_over_the_charters() -> None:
    assert pinning("[[pin]]\nfile = 'federation.json'").bound_publisher("swiss-ai") == SWISS_AI
    bound = pinning(f"[[pin]]\nfile = 'federation.json'\n[publishers]\nnames = {{ swiss-ai = '{OTHER}' }}")
    assert bound.bound_publisher("swiss-ai") == OTHER
    assert bound.bound_publisher("elsewhere") is None


def test_a_namespace_that_two_pinned_bodies_bind_differently_is_unbound() -> None:
    rival = found(nodes(3), {"swiss-ai": OTHER})
    text = "[[pin]]\nfile = 'one'\n[[pin]]\nfile = 'two'"
    assert parse(text, one=FEDERATION.encode(), two=rival.encode()).bound_publisher("swiss-ai") is None


def test_a_namespace_is_bound_in_every_spelling() -> None:
    policy = pinning(f"[[pin]]\nfile = 'federation.json'\n[publishers]\nnames = {{ Other = '{OTHER}' }}")
    assert policy.bound_publisher("Swiss-AI") == SWISS_AI
    assert policy.bound_publisher("OTHER") == OTHER


def test_every_row_that_can_pass_can_be_required() -> None:
    judged = [row for row in ROWS if row not in ("disputes and advisories", "policy")]
    officers = f"[approvals]\nscope = 'a'\nat_least = 1\nofficers = {{ Anna = '{OTHER}' }}\n"
    assert pinning(
        FULL.partition("[rows]")[0] + f"[documents]\nrequire = ['card']\n{officers}[rows]\nrequire = {judged}"
    ).require == tuple(judged)


@pytest.mark.parametrize(
    ("code", "fix"),
    [("UK", "GB"), ("usa", "US"), ("us", "US"), ("Ch", "CH"), ("switzerland", "CH"), ("publsher", "publisher")],
)
def test_an_impossible_jurisdiction_is_refused_with_its_line_and_the_fix(code: str, fix: str) -> None:
    with pytest.raises(Malformed) as refused:
        pinning(f'[[pin]]\nfile = "federation.json"\n[cosigners]\nat_least = 1\noutside = [\n  "SG",\n  "{code}",\n]\n')
    assert refused.value.code == "POLICY-SYNTAX"
    assert refused.value.why.startswith("line 7: ")
    assert refused.value.hint == f'write "{fix}"'


def test_a_jurisdiction_may_be_a_name_that_a_pinned_charter_uses() -> None:
    special = found([node(identity("Observatory", "deep-sea", kind="member")), *nodes(3)])
    text = '[[pin]]\nfile = "f"\n[cosigners]\nat_least = 1\noutside = ["deep-sea"]\n'
    assert parse(text, f=special.encode()).cosigners.outside == ("deep-sea",)
    with pytest.raises(Malformed) as refused:
        parse(text.replace("deep-sea", "deep-see"), f=special.encode())
    assert refused.value.hint == 'write "deep-sea"'


@pytest.mark.parametrize("rows", ["[]", '["bytes"]', '["artifact", "bytes", "file safety", "crypto health"]'])
def test_a_policy_under_which_nothing_need_be_signed_is_refused_with_its_line(rows: str) -> None:
    with pytest.raises(Malformed) as refused:
        parse(f"[safety]\n\n[rows]\nrequire = {rows}\n")
    assert refused.value.why.startswith("line 4: ")
    assert refused.value.hint == 'add "signatures" to rows.require'


def test_a_corroborated_observation_needs_no_signature_of_a_publisher() -> None:
    assert parse('[upstream]\ncorroborated = 2\n[rows]\nrequire = ["artifact"]\n').require == ("artifact",)


@pytest.mark.parametrize("row", ["signatures", "key policy", "transparency", "cosigners", "licence", "time"])
def test_no_row_that_counts_for_a_signature_passes_without_one(row: str) -> None:
    claims = tuple(line for line in GOOD.claims if parse_entry(line).statement.predicate != "published")
    policy = replace(GOOD.policy, require=(row,), cosigners=CosignerRule(0))
    assert not verify(replace(GOOD.evidence, claims=claims, proofs=()), policy).accepted


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("at_least = 3", 4),
        ('at_least = 2\noutside = ["publisher", "CH", "SG"]', 4),
        ("at_least = 1\njurisdictions = 3", 5),
    ],
)
def test_cosigners_that_the_pinned_charters_do_not_have_are_refused_with_the_line_and_the_fix(
    rule: str, line: int
) -> None:
    with pytest.raises(Malformed) as refused:
        pinning(f'[[pin]]\nfile = "federation.json"\n[cosigners]\n{rule}\n')
    assert f"line {line}: it can never match" in refused.value.why
    assert "at_least" in refused.value.hint


def test_an_error_in_a_value_names_its_line() -> None:
    with pytest.raises(Malformed) as refused:
        parse('[publishers]\n\naccept = ["abc"]\n')
    assert refused.value.why.startswith("line 3: ")


def test_corroboration_by_more_members_than_there_are_is_refused() -> None:
    with pytest.raises(Malformed) as refused:
        pinning('[[pin]]\nfile = "federation.json"\n[upstream]\ncorroborated = 4\n')
    assert refused.value.why.startswith("line 4: it can never match: 4 members")
    assert "3 or less" in refused.value.hint
    pinning('[[pin]]\nfile = "federation.json"\n[upstream]\ncorroborated = 3\n')


def test_an_unknown_file_format_is_refused() -> None:
    with pytest.raises(Malformed) as refused:
        parse('[safety]\nformats = ["gguf", "safetensor"]\n')
    assert refused.value.why.startswith("line 2: ")
    assert refused.value.hint == 'write "safetensors"'


def test_a_key_policy_cannot_be_required_without_a_named_publisher() -> None:
    text = '[[pin]]\nfile = "federation.json"\n[rows]\nrequire = ["signatures", "key policy"]\n'
    with pytest.raises(Malformed) as refused:
        parse(text, **{"federation.json": found(nodes(3)).encode()})
    assert "line 4: it could not pass" in refused.value.why
    pinning(text)


def test_counts_and_sizes_may_be_as_small_and_as_large_as_the_limits() -> None:
    rule = parse("[cosigners]\nat_least = 0\njurisdictions = 0\noutside = []\n").cosigners
    assert rule == CosignerRule(0, 0, (), False)
    moment = "[time]\nas_of = 1970-01-01T00:00:10Z\n"
    assert parse(moment).freshness == Freshness(10, 30 * 86_400)
    assert parse(moment + "max_age_days = 0\n").freshness == Freshness(10, 0)
    for corroborated in (0, 100):
        assert parse(f"[upstream]\ncorroborated = {corroborated}\n").upstream.corroborated == corroborated
    for refused in ("-1", "101", "true"):
        with pytest.raises(Malformed):
            parse(f"[upstream]\ncorroborated = {refused}\n")
    assert parse("#" * 2**20).require == DEFAULT_REQUIRED
    with pytest.raises(Malformed, match="bytes"):
        parse("#" * (2**20 + 1))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[a]\nx = 1\n[b]\nx = 2\n", 4),
        ("[b]\n\nx = 2\nx = 3\n", 3),
        ("[b]\nxy = 1\n", None),
        ("x = 1\n[a]\nx = 2\n", None),
        ('[b] # comment\n"x" = 2\n', 2),
        ("[b]\nx.y = 2\n", 2),
        ("", None),
    ],
)
def test_the_line_of_a_key_is_that_in_its_table(text: str, line: int | None) -> None:
    assert PolicyLines(text).find("b", "x") == line


def test_the_line_of_a_value_is_behind_its_key_and_in_its_table() -> None:
    lines = PolicyLines('y = ["v"]\n[b]\ny = ["v"]\nx = [\n  "u",\n  "v",\n]\n[c]\nx = ["w"]\n')
    assert lines.find("b", "x", "v") == 6
    assert lines.find("b", "x", "u") == 5
    assert lines.find("b", "x", "w") == 4, "the value is missing: the line of the key"
    assert lines.find("", "y", "v") == 1
    assert lines.find("", "y", "u") == 1
    assert lines.find("c", "x", "w") == 9


def test_impossible_numbers_of_cosigners_are_refused_with_the_possible_maximum() -> None:
    again = node(identity("Institute again", "CH", kind="member"), "again.example")
    pins = (found([*nodes(2), again]).body,)
    codes = [member.jurisdiction for member in pins[0].members]
    assert sorted(codes) == sorted([*(each.seat.inception.jurisdiction for each in nodes(2)), "CH"])

    def most(at_least: int, jurisdictions: int, *outside: str) -> tuple[int, int] | None:
        return most_cosigners(CosignerRule(at_least, jurisdictions, outside), pins)

    assert most(2, 2) is None and most(2, 0) is None
    assert most(3, 1) == (2, 2) == most(1, 3)
    assert most(2, 1, PUBLISHER) is None, "the log of the member that is alone in its jurisdiction"
    assert most(2, 2, PUBLISHER) == (2, 1)
    assert most(1, 2, "SG") == (2, 1) and most(1, 1, "SG") is None
    assert most_cosigners(CosignerRule(0, 0), ()) is None and most_cosigners(CosignerRule(1, 0), ()) == (0, 0)


def test_a_member_and_its_successor_in_two_pinned_charters_are_one_cosigner() -> None:
    federation = found(nodes(3))
    heir = replace(federation.body.members[0], id=sha256(b"heir"), successor_of=federation.body.members[0].id)
    later = replace(federation.body, members=(heir, *federation.body.members[1:]))
    assert most_cosigners(CosignerRule(3, 0, ()), (federation.body, later)) == (2, 2)
    observer = replace(federation.body.members[0], status="observer")
    fewer = replace(federation.body, members=(observer, *federation.body.members[1:]))
    assert most_cosigners(CosignerRule(2, 0, ()), (fewer,)) == (1, 1)


def test_the_required_cosigners_are_written_out() -> None:
    for rule, wanted, hint in (
        ("at_least = 3", "3 cosigners in 1 jurisdictions", "set at_least to 2 and jurisdictions to 2 or less"),
        ("at_least = 1\njurisdictions = 3", "1 cosigners in 3 jurisdictions", "set at_least to 2"),
    ):
        with pytest.raises(Malformed) as refused:
            pinning(f'[[pin]]\nfile = "federation.json"\n[cosigners]\n{rule}\n')
        assert f"{wanted} are required, and the pinned charters have at most 2 in 2" in refused.value.why
        assert refused.value.hint.startswith(hint)
    unpinned = "[cosigners]\nat_least = 99\n"
    assert parse(unpinned).cosigners.at_least == 99, "without a pinned charter the answer is unknown"
    kept = '[[pin]]\nfile = "federation.json"\n[cosigners]\nat_least = 9\n[rows]\nrequire = ["signatures"]\n'
    assert pinning(kept).cosigners.at_least == 9, "the row is not required"


def test_rows_that_cannot_pass_are_reported_with_the_reason() -> None:
    full = pinning(FULL)
    always = {"disputes and advisories", "approvals"}
    assert set(impossible_rows(full)) == always | {"documents"}
    assert set(impossible_rows(replace(full, documents=("card",), licences=frozenset()))) == always | {"licence"}
    assert set(impossible_rows(replace(full, documents=("card",), freshness=None))) == always | {"time"}
    nameless = replace(full, documents=("card",), publishers=frozenset(), bindings={})
    assert set(impossible_rows(nameless)) == always, "the pinned charter names one"
    unnamed = replace(nameless, pins=(found(nodes(3)).body,))
    assert set(impossible_rows(unnamed)) == always | {"key policy"}
    assert set(impossible_rows(replace(unnamed, bindings={"a": OTHER}))) == always
    assert set(impossible_rows(replace(unnamed, publishers=frozenset({OTHER})))) == always
    assert set(impossible_rows(replace(unnamed, pins=()))) == always


def test_content_is_allowed_by_kind_path_digest_and_format() -> None:
    rule = parse(
        f'[safety]\nallow = ["pickle", "weights/*.bin", "sha256:{OTHER}"]\nformats = ["gguf", "json"]\n'
    ).safety
    assert (rule.kinds, rule.paths) == (frozenset({"pickle"}), ("weights/*.bin",))
    assert (rule.files, rule.formats) == (frozenset({OTHER}), frozenset({"gguf", "json"}))
    assert rule.exempts("weights/a.bin", None) and rule.exempts("a.bin", OTHER)
    assert not rule.exempts("Weights/a.bin", SWISS_AI) and not rule.exempts("a.bin", None)
    both = parse('[safety]\nallow = ["a.bin", "*.x"]\n').safety
    assert both.exempts("a.bin", None) and both.exempts("b.x", None) and not both.exempts("b.bin", None)
    assert rule.accepts("pickle: a class") and not rule.accepts("chat-template")
    assert rule.accepts_format("gguf") and not rule.accepts_format("safetensors")
    assert parse("").safety.accepts_format("anything")
    for word in ("a.bin", "folder/", "*"):
        assert parse(f'[safety]\nallow = ["{word}"]\n').safety.paths == (word,)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ('identity = [{ identity = "a", issuer = "b" }]', "must be given together"),
        ('sigstore_root = "root"', "must be given together"),
        ('sigstore_root = "root"\nidentity = [{ identity = "a" }]', "needs 'issuer'"),
        ('sigstore_root = "root"\nidentity = [{ issuer = "a" }]', "needs 'issuer'"),
        ("require = true", "cannot be met"),
        ('unsigned = ["a//b"]', "not a path"),
        ('unsigned = [".."]', "not a path"),
        ('unsigned = ["./a"]', "not a path"),
        ('unsigned = ["/a"]', "not a path"),
    ],
)
def test_an_invalid_table_of_model_signing_is_refused(table: str, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        parse(f"[model_signing]\n{table}\n", root=b"{}")


def test_a_table_of_model_signing_names_signers_and_unsigned_files() -> None:
    table = 'sigstore_root = "root"\nrequire = true\nunsigned = ["a/b/", "c"]\n'
    signers = 'identity = [{ identity = "a", issuer = "b" }]\n'
    rule = parse(f"[model_signing]\n{table}{signers}", root=b"{}").model_signing
    assert (rule.require, rule.unsigned, rule.sigstore_root) == (True, ("a/b/", "c"), b"{}")
    assert [(each.identity, each.issuer) for each in rule.identities] == [("a", "b")]


def test_documents_are_required_each_once() -> None:
    assert parse('[documents]\nrequire = ["card", "evaluation", "card"]\n').documents == ("card", "evaluation")
    lineage = parse("[lineage]\nparents_by_digest = true\n").lineage
    assert (lineage.by_digest, lineage.no_conflicts) == (True, False)
    assert parse("[lineage]\nrefuse_licence_conflicts = true\n").lineage.no_conflicts


def test_the_keyword_for_the_publisher_excludes_no_jurisdiction_of_that_name() -> None:
    odd = [node(identity(f"Odd {at}", PUBLISHER, kind="member"), f"odd-{at}.example") for at in range(2)]
    pins = (found([*nodes(1), *odd]).body,)
    assert most_cosigners(CosignerRule(2, 1, (PUBLISHER,)), pins) is None, "in the log of the member in CH"
    assert most_cosigners(CosignerRule(3, 1, (PUBLISHER,)), pins) == (2, 1)


def test_a_country_may_be_excluded_that_no_pinned_charter_has() -> None:
    assert parse('[cosigners]\noutside = ["FR"]\n').cosigners.outside == ("FR",)
    assert PolicyLines('[b]\nx = [\n"ü",\n]\n').find("b", "x", "ü") == 3


def test_an_error_without_a_line_names_none() -> None:
    for text in ('rows = { require = ["xyz"] }', "publishers = { accept = [5] }", 'rows = { require = ["licence"] }'):
        with pytest.raises(Malformed) as refused:
            parse(text)
        assert not refused.value.why.startswith("line ")
    with pytest.raises(Malformed, match="must be strings"):
        PolicyTable({"x": [5]}, "policy.b").strings("x")


def test_an_unknown_kind_or_format_is_refused_with_all_known_ones() -> None:
    for text, told in (
        ('[safety]\nallow = ["pickel"]\n', "did you mean 'pickle'?"),
        ('[safety]\nallow = ["zzzz"]\n', "kinds are pickle, "),
    ):
        with pytest.raises(Malformed) as refused:
            parse(text)
        assert told in refused.value.why
    with pytest.raises(Malformed) as refused:
        parse('[safety]\nformats = ["zzzz"]\n')
    assert refused.value.hint.startswith("formats are ")


def test_one_of_the_pinned_charters_that_names_a_publisher_is_enough() -> None:
    full = pinning(FULL)
    both = replace(full, publishers=frozenset(), bindings={}, pins=(found(nodes(3)).body, FEDERATION.body))
    assert "key policy" not in impossible_rows(both)


def test_a_publisher_is_named_by_all_digits_by_its_spelled_form_or_by_enough_digits_of_a_pinned_one() -> None:
    pin = '[[pin]]\nfile = "federation.json"\n'
    ids = {m.id for m in FEDERATION.body.members} | set(FEDERATION.body.namespaces.values())
    for who in ids:
        for form in (who, f"sha256:{who}", format_id(who), who[:12], short(who)):
            made = pinning(f'{pin}[publishers]\naccept = ["{form}"]\nnames = {{ x = "{form}" }}\n')
            assert (made.publishers, made.bindings) == (frozenset({who}), {"x": who})
            assert pinning(f'{pin}[advisories]\nrefuse_from = ["{form}"]\n').refuse_from == frozenset({who})


@pytest.mark.parametrize("form", ["0" * 12, "51aa", "swiss-ai", "MFZWI3D"])
def test_digits_that_no_pin_explains_are_refused_at_their_line(form: str) -> None:
    with pytest.raises(Malformed) as caught:
        pinning(f'[[pin]]\nfile = "federation.json"\n[publishers]\naccept = ["{form}"]\n')
    assert caught.value.code == "POLICY-SYNTAX"
    assert "line 4" in caught.value.why
