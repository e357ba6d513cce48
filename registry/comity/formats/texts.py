"""What is active in files that are text: configurations that ask for code, templates, notebooks, objects in YAML.

A configuration is parsed, within bounds, since JSON has many spellings of one key; nothing is rendered or imported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final, TypeAlias

from comity.formats.source import Source

MAX_TEXT: Final = 4 * 1024 * 1024
"""Bytes of a text that is looked through. Configurations have thousands; what is larger, loaders do not read as one."""
MAX_VALUES: Final = 200_000
CODE: Final = frozenset({".py", ".pyw", ".pyc", ".pyo", ".pyi", ".pyx", ".ipynb"})
SCRIPTS: Final = frozenset({".sh", ".bash", ".bat", ".cmd", ".ps1", ".js", ".mjs", ".lua", ".rb", ".pl"})
TEMPLATES: Final = frozenset({".jinja", ".jinja2", ".j2"})
CONFIGURATIONS: Final = frozenset(
    {
        *("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"),
        *("image_processor_config.json", "video_preprocessor_config.json", "feature_extractor_config.json"),
        *("generation_config.json", "adapter_config.json", "model_index.json", "modules.json", "chat_template.json"),
    }
)
"""Files from which loaders take what to import and how to talk: one that cannot be looked through is a finding."""

_ESCAPE: Final = re.compile(
    rb"__(class|subclasses|globals|builtins|import|mro|bases?|init|getattribute|dict|code|reduce|loader)__"
    rb"|\|\s*attr\s*\(|\b(lipsum|cycler|joiner|namespace)\s*\.\s*_|\bos\s*\.\s*(system|popen)\b"
)
_WORTH_PARSING: Final = re.compile(rb"auto_map|chat_template|class_name|nbformat|\\\\u00[4-7]")
"""The keys that matter, or a letter in disguise."""
_YAML_OBJECT: Final = re.compile(rb"!!python/|tag:yaml\.org,2002:python/")
_YAML: Final = (".yaml", ".yml")

Findings: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]
"""What is active, and what is wrong."""


def active_by_name(path: str) -> tuple[str, ...]:
    """What the name alone says, before there are bytes to look at."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in CODE:
        return ("python",)
    if suffix in SCRIPTS:
        return ("script",)
    return ("chat-template",) if suffix in TEMPLATES else ()


def active_in_text(source: Source, path: str) -> Findings:
    """What is active in a text beyond what its name says. Raises OSError where the file does."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix == ".json":
        return active_in_json(source, path)
    if suffix not in (*TEMPLATES, *_YAML):
        return (), ()
    text = source.at(0, MAX_TEXT)
    wrong = (f"more than {MAX_TEXT} bytes of text",) if source.size > MAX_TEXT else ()
    if suffix in TEMPLATES:
        return tuple(active_in_template(text)), wrong
    found = _YAML_OBJECT.search(text) is not None
    return ("python: YAML that makes objects when it is loaded unsafely",) if found else (), wrong


def active_in_template(template: bytes) -> Iterator[str]:
    if match := _ESCAPE.search(template):
        yield f"template-escape: {match[0][:40].decode('ascii', 'replace')}"


def active_in_json(source: Source, path: str) -> Findings:
    """What is active, or wrong, in a file of JSON. Raises OSError where the file does."""
    important = PurePosixPath(path).name in CONFIGURATIONS
    if source.size > MAX_TEXT:
        return (), (f"more than {MAX_TEXT} bytes of configuration",) if important else ()
    text = source.at(0, MAX_TEXT)
    if not _WORTH_PARSING.search(text) and not important:
        return (), ()
    members = Members()
    if sum(text.count(mark) for mark in (b"{", b"[", b",")) > MAX_VALUES:  # before memory is spent on them
        return (), (f"more than {MAX_VALUES} values of configuration",) if important else ()
    try:
        json.loads(text.decode("utf-8-sig"), object_pairs_hook=members)
    except (ValueError, RecursionError) as error:
        return (), (f"not JSON: {str(error)[:80]}",) if important else ()
    return tuple(dict.fromkeys(members.active)), ()


class Members:
    """Sees each member of each object in a JSON document, also of a name that is given twice."""

    def __init__(self) -> None:
        self.active: list[str] = []
        self._readers: Mapping[str, Callable[[Any], Iterator[str]]] = {
            "auto_map": _imports,
            "chat_template": _templates,
            "class_name": lambda value: iter(("keras-lambda",) if value == "Lambda" else ()),
            "nbformat": lambda value: iter(("python: a notebook",)),
        }

    def __call__(self, members: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, value in members:
            if reader := self._readers.get(name):
                self.active.extend(reader(value))
        return dict(members)


def _imports(value: object) -> Iterator[str]:
    names = sorted(str(item) for item in value.values()) if isinstance(value, dict) else [str(value)]
    if value:
        yield f"remote-code: auto_map imports {', '.join(names[:3])[:120]}{', …' if len(names) > 3 else ''}"


def _templates(value: object) -> Iterator[str]:
    """A template, or a list of named ones."""
    texts = [item.get("template") for item in value if isinstance(item, dict)] if isinstance(value, list) else [value]
    for text in texts:
        if isinstance(text, str) and text:
            yield "chat-template"
            yield from active_in_template(text.encode("utf-8", "replace"))
