"""The page that says what a file is: its sentences, and hostile texts in them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from comity.gateway.console.directions import settled
from comity.gateway.console.identify import FileAnswer, NamedFile
from comity.gateway.console.languages import LANGUAGES
from comity.gateway.console.state import FrontEndView
from comity.gateway.console.words import environment
from comity.trust.encoding import Digest
from support.console import HOSTILE, check_page

FILE = Digest("ab" * 32)
KNOWN = NamedFile("swiss/tiny@v1", "/swiss/tiny/tree/sha256:0", "Swiss [0123]", paths=("model.gguf",), size=2_400_000)


def shown(answer: FileAnswer | None, language: str = "en", **more: Any) -> str:
    reader = SimpleNamespace(prefix="", language=language, chosen=False, session=None, in_language=lambda code: "?")
    values: dict[str, Any] = {"reader": reader, "link": lambda path, **query: path, "languages": LANGUAGES}
    values |= {"node": "node", "statements": {}, "log_id": lambda vkey: "0", "state": None, "signs_in": False}
    values |= {"sentence": lambda text: None, "given": "", "malformed": False, "answer": answer, "most": 16_000_000}
    text = environment(language).get_template("identify.html").render(**{**values, **more})
    page = check_page(settled(text) if LANGUAGES[language].direction == "rtl" else text)
    return " ".join(page.text.split())


def answer(*found: NamedFile, more: bool = False, unread: int = 0, limited: bool = False) -> FileAnswer:
    return FileAnswer(FILE, found, more, 2_500, unread, limited)


def test_the_answer_is_a_sentence_that_says_what_whose_and_how_this_node_judges() -> None:
    text = shown(answer(KNOWN))
    assert "This is the file model.gguf of swiss/tiny@v1, published by Swiss [0123]." in text
    assert "Accepted by the policy of this node" in text and "2.4 MB" in text
    mirrored = NamedFile("org/m@0123", "/org/m", "", paths=("a", "b"), size=1, other_names=("x/y@z",))
    text = shown(answer(mirrored, more=True))
    assert "which members mirrored from a hub and no publisher signed" in text
    assert "other paths in the artifact: b" in text and "other names of the artifact: x/y@z" in text
    assert "More artifacts have this file than are shown here." in text


def test_what_the_policy_refuses_or_nobody_can_judge_is_not_called_accepted() -> None:
    for refused, words in ((True, "Refused by the policy"), (False, "cannot judge it now")):
        each = NamedFile("a/b@c", "/a/b", "x", paths=("f",), refusal="not met: cosigners", refused=refused)
        text = shown(answer(each))
        assert words in text and "not met: cosigners" in text
        assert "Accepted" not in text and "The page of the artifact" not in text


def test_a_warning_stands_by_its_artifact() -> None:
    each = NamedFile("a/b@c", "/a/b", "x", True, (("advisory", "malware (high): eats disks"),), paths=("f",))
    text = shown(answer(each))
    assert "malware (high): eats disks" in text and "withdrawn by its publisher" in text


@pytest.mark.parametrize(
    ("given", "said", "not_said"),
    [
        ({}, "No publication that this node has read names these bytes.", "could not read"),
        ({"more": True}, "This node could not read all publications", "No publication"),
        ({"unread": 7}, "Statements left: 7", "looked at all statements that it verified"),
        ({"limited": True}, "Only repositories that you may read", "Statements left"),
    ],
)
def test_unknown_says_how_far_the_node_has_read(given: dict[str, Any], said: str, not_said: str) -> None:
    text = shown(answer(**given))
    assert said in text and not_said not in text
    assert "says nothing about what is in it" in text


def test_a_page_without_a_question_has_the_forms_alone_and_a_front_end_has_none() -> None:
    text = shown(None)
    assert "Ask about a file" in text and "Unknown" not in text
    assert "This is no SHA-256" in shown(None, malformed=True, given="x")
    state = SimpleNamespace(front_end=FrontEndView(True, ""), situation="running", now=0, alerts=(), body=None)
    text = shown(None, state=state)
    assert "The writer of this node knows" in text and "Ask about a file" not in text


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_text(text: str, language: str) -> None:
    notices = (("advisory", text), (text, text))
    each = NamedFile(text, "/a/b", text, True, notices, text, True, (text, text), 10**20, (text, text))
    shown(answer(each, NamedFile(text, "/a/b", "", paths=(text,))), language, given=text, malformed=True)
