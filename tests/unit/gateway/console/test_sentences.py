"""Sentences of a verdict on a page in another language: each that a row can say has a template and a translation."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from itertools import product
from types import ModuleType

import pytest
from comity.gateway.console.directions import settled
from comity.gateway.console.languages import LANGUAGES
from comity.gateway.console.sentences import SENTENCES, in_language, template_of
from comity.gateway.console.words import translations
from comity.trust import verify
from comity.trust.key_validity import BEFORE, CURRENT, UNKNOWN
from comity.trust.rows import approvals, content, publication

VALUE = "1"
"""Stands for a value in an example of a sentence, a number or a text."""
ENDS = {"counts_text", "shown", "_first_refusal(found)"}
"""Values that are clauses of their own, or empty: they are examples of their own."""
PARTS = {
    "needed": [f"{VALUE} required", f"{VALUE} required in {VALUE} jurisdictions"],
    "outside": ["", f" outside {VALUE}"],
    "key_algorithms(chosen.publication.signer)": [f"{VALUE} of {VALUE} keys ({VALUE})"],
    "whole": [f"{VALUE}/{VALUE} files hashed here", f"{VALUE}/{VALUE} files as model.sig lists them"],
}
"""Values that are parts of a sentence."""
MADE_ELSEWHERE = {
    VALUE,
    f"{VALUE} ({VALUE} in all)",
    f"{VALUE} ({VALUE} differ, {VALUE} missing)",
    f"{VALUE} ({VALUE} wrong, {VALUE} missing)",
    f"{VALUE} says {VALUE}",
    f"{VALUE}: {VALUE}",
    f"no manifest can list these files: {VALUE}",
    f"the manifest is not valid: {VALUE}",
    f"signed by {VALUE}: {VALUE}",
}
"""Sentences with a message of another part of the kernel in them, such as an error about a file: English."""


NEVER = {
    f"{VALUE}/{VALUE} files as model.sig lists them, {VALUE} bytes",
    f"{VALUE}/{VALUE} files hashed here, but the policy does not list the signer",
    *(
        f"{VALUE} member{plural} mirrored it from its upstream, {needed} required"
        for plural, needed in product(("", "s"), PARTS["needed"])
    ),
}
"""Examples with `whole` or `needed` of another function."""


def examples(module: ModuleType) -> Iterator[str]:
    """Examples of what the rows of a module can say: the clauses of each text that is given to `Row`."""
    for function in ast.walk(ast.parse(inspect.getsource(module))):
        if not isinstance(function, ast.FunctionDef):
            continue
        calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Row"]
        texts = [call.args[2] for call in calls if len(call.args) > 2]
        names = {text.id for text in texts if isinstance(text, ast.Name)} | ENDS
        for node in ast.walk(function):
            if calls and isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in names:
                texts.append(node.value)
        for text in texts:
            for example in _examples(text):
                yield from (clause for clause in example.split("; ") if clause)


def _examples(text: ast.expr) -> Iterator[str]:
    if isinstance(text, ast.IfExp):
        yield from _examples(text.body)
        yield from _examples(text.orelse)
    elif isinstance(text, ast.Constant) and isinstance(text.value, str):
        yield text.value
    elif isinstance(text, ast.JoinedStr):
        parts = [[str(part.value)] if isinstance(part, ast.Constant) else _values(part) for part in text.values]
        yield from ("".join(chosen) for chosen in product(*parts))


def _values(part: ast.expr) -> list[str]:
    assert isinstance(part, ast.FormattedValue)
    if isinstance(part.value, ast.IfExp):
        return [*_examples(part.value)]
    said = ast.unparse(part.value)
    if said.startswith("'s' * "):
        return ["", "s"]
    return [""] if said in ENDS else PARTS.get(said, [VALUE])


def test_every_sentence_that_a_row_can_say_has_a_template() -> None:
    said = {example for module in (approvals, content, publication, verify) for example in examples(module)}
    assert len(said) > 50
    assert sorted(each for each in said - MADE_ELSEWHERE - NEVER if template_of(each) is None) == []
    assert sorted(MADE_ELSEWHERE - said) == [], "no row says it any more"


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
@pytest.mark.parametrize(
    "said",
    [
        *(CURRENT, BEFORE, UNKNOWN, f"{CURRENT}; the rotation that the policy pins is missing"),
        "entry 4 of node-ch/log, the log of Institut (CH); tree of 5 entries",
        "no training-summary is named",
        "card, sha256 0123456789ab, 12 bytes: present",
        "vulnerability (high): see the notes says its publisher; 1 in all",
        "vulnerability (high): see the notes, says 0123456789ab",
        "Institut (CH) as node-ch/cosigner",
        "1 empty, 1 json, 2 safetensors; no active content",
        "yank (info): the tokenizer was the wrong one; use v2, says its publisher",
        "yank (info): it was wrong; use v2 says its publisher; 1 in all, for information",
        "unknown: more statements about it than were read",
        "no fresh cosignature: 2 cosigners saw it at most 9 days before as_of",
    ],
)
def test_facts_and_notices_that_most_pages_show_have_a_translation(language: str, said: str) -> None:
    assert in_language(said, translations(language)) is not None


def test_every_template_is_found_by_its_own_example() -> None:
    """A template with fewer words that stands before one with more would take its sentences."""
    for template in SENTENCES:
        example = template
        while "%(" in example:
            start = example.index("%(")
            example = f"{example[:start]}7{example[example.index(')s', start) + 2 :]}"
        assert template_of(example) == template, example


@pytest.mark.parametrize(
    ("summary", "french"),
    [
        ("all evidence verified", "toutes les preuves sont vérifiées"),
        (
            "entry 4 of node-ch/log, the log of Institut (CH)",
            "entrée 4 de node-ch/log, le journal de Institut (CH)",
        ),
        ("2 (1 required): A (CH), B (ES)", "2 (1 exigés)\u00a0: A (CH), B (ES)"),
        (
            "none here; their absence cannot be proven offline",
            "aucun ici\u00a0; leur absence ne peut pas être prouvée hors ligne",
        ),
        ("all evidence verified; something new", None),
        ("claimed by A (CH); something new", None),
        ("something 1 (1 required): A (CH)", None),
        ("short of cosigners: something new", None),
        (
            "short of cosigners: 1 counted, 2 required outside CH, publisher; have: A (ES)",
            "trop peu de cosignataires\u00a0: compté(s)\u00a0: 1, exigé(s)\u00a0: 2 hors de CH, "
            "la juridiction de l’éditeur\u00a0; présents\u00a0: A (ES)",
        ),
        (
            "yank (info): wrong; use v2 says its publisher; 1 in all",
            "yank (info)\u00a0: wrong; use v2, dit son éditeur\u00a0; 1 en tout",
        ),
        ("claimed by A" + "; claimed by A" * 16, None),
        ("x" * 3_000, None),
        ("", None),
    ],
)
def test_a_sentence_is_written_with_its_values_or_not_at_all(summary: str, french: str | None) -> None:
    assert in_language(summary, translations("fr")) == french
    assert in_language(summary, translations("en")) is None


def test_sentences_of_an_arabic_page_have_arabic_signs_between_them_and_values_apart() -> None:
    found = in_language("1 json; no statement about a/b is here", translations("ar"))
    assert found is not None and settled(found) == "<bdi>1 json</bdi>؛ لا إفادة هنا عن <bdi>a/b</bdi>"


def test_values_of_strangers_are_no_templates() -> None:
    hostile = "claimed by %(members)s %s %(x)d {0} <b>"
    assert in_language(hostile, translations("fr")) == "déclaré par %(members)s %s %(x)d {0} &lt;b&gt;"
