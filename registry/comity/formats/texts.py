"""Active content of texts: JSON and YAML that make a loader call something, and templates.

JSON is decoded before its keys are compared, because one key can be spelled in many ways. Small documents are parsed as
a whole, larger ones string by string. In YAML each tag is resolved: percent signs, long forms and directives.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

from comity.formats import keras
from comity.formats.datasets import ZARR_METADATA, active_codec
from comity.formats.source import BoundedFile, NotInspected, Work
from comity.formats.templates import active_in_template

MAX_TEXT: Final = 4 * 1024 * 1024
"""Bytes of a document that is parsed as a whole. Configurations have thousands."""
MAX_VALUES: Final = 200_000
MAX_DOCUMENT: Final = 64 * 1024 * 1024
"""Bytes of a document that is read string by string."""
MAX_PLAIN: Final = 32 * 1024 * 1024
"""Bytes of a text that no loader interprets which are read; of a larger one its beginning and its end."""
TAIL: Final = 64 * 1024
CHUNK: Final = 1024 * 1024
CONFIGURATION_FILES: Final = frozenset(
    {
        *("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"),
        *("image_processor_config.json", "video_preprocessor_config.json", "feature_extractor_config.json"),
        *("generation_config.json", "adapter_config.json", "model_index.json", "modules.json", "chat_template.json"),
        *ZARR_METADATA,
    }
)
"""Files that tell loaders what to import or which template to use: one that cannot be parsed is a finding."""
TEMPLATE_SUFFIXES: Final = frozenset({".jinja", ".jinja2", ".j2"})
YAML_SUFFIXES: Final = frozenset({".yaml", ".yml"})
YAML_NAMES: Final = frozenset({"mlmodel"})
LINES_SUFFIXES: Final = frozenset({".jsonl", ".ndjson"})

TextFindings: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]
"""Active content, and problems."""
_JSON: Final = re.compile(rb'(\xef\xbb\xbf)?\s*(\{\s*["}]|\[\s*["{\[\]\-0-9tfn])')
_NOT_TEXT: Final = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]")


def is_text(source: BoundedFile) -> bool:
    """Whether the file is UTF-8 without zero bytes, or another 8-bit encoding without control characters. Raises
    OSError if the file does."""
    if source.size <= MAX_PLAIN:
        return _is_text(source, 0, source.size)
    return _is_text(source, 0, CHUNK) and _is_text(source, source.size - TAIL, TAIL)


def _is_text(source: BoundedFile, start: int, length: int) -> bool:
    decoder, in_utf8, printable = codecs.getincrementaldecoder("utf-8")(), True, True
    for at in range(start, start + length, CHUNK):
        data = source.read_at(at, min(CHUNK, start + length - at))
        printable = printable and _NOT_TEXT.search(data) is None
        if in_utf8:
            try:
                decoder.decode(data if at > start or start == 0 else data.lstrip(_CONTINUATION))
            except UnicodeDecodeError:
                in_utf8 = False
        if b"\0" in data or not (in_utf8 or printable):
            return False
    return True


_CONTINUATION: Final = bytes(range(0x80, 0xC0))


def is_wide_text(source: BoundedFile, path: str) -> bool:
    """Whether the file is UTF-16 with a mark, under a name that no loader interprets. Raises OSError if the file
    does."""
    mark = source.read_at(0, 2)
    name = PurePosixPath(path)
    if mark not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or source.size > MAX_PLAIN:
        return False
    if name.suffix.lower() not in PLAIN_SUFFIXES and name.name not in PLAIN_NAMES:
        return False
    decoder = codecs.getincrementaldecoder("utf-16")()
    for at in range(0, source.size, CHUNK):
        data = source.read_at(at, CHUNK)
        try:
            text = decoder.decode(data, final=at + len(data) == source.size)
        except UnicodeDecodeError:
            return False
        if _NOT_PLAIN.search(text):
            return False
    return True


PLAIN_SUFFIXES: Final = frozenset({".txt", ".md", ".csv", ".tsv", ".srt", ".vtt"})
PLAIN_NAMES: Final = frozenset({"LICENSE", "README", "NOTICE"})
_NOT_PLAIN: Final = re.compile("[\0-\x08\x0e-\x1a\x1c-\x1f]")


def has_controls(head: bytes) -> bool:
    """Whether there are bytes that a printable text has not."""
    return _NOT_TEXT.search(head) is not None


def looks_like_json(head: bytes) -> bool:
    return _JSON.match(head) is not None


def read_document(source: BoundedFile) -> bytes:
    """A text that is interpreted as a whole. Raises NotInspected."""
    if source.size > MAX_DOCUMENT:
        raise NotInspected(f"more than {MAX_DOCUMENT >> 20} MiB of text that a loader interprets")
    return source.read_at(0, source.size)


def active_in_text(source: BoundedFile, path: str) -> TextFindings:
    """Active content in a text that is not JSON, in addition to what its name says. Raises NotInspected."""
    name = PurePosixPath(path).name.lower()
    suffix = PurePosixPath(name).suffix
    if suffix in TEMPLATE_SUFFIXES:
        return tuple(active_in_template(read_document(source), source.work)), ()
    if suffix in YAML_SUFFIXES or name in YAML_NAMES:
        return tuple(dict.fromkeys(active_in_yaml(read_document(source), source.work))), ()
    if suffix == ".pth" and _PATH_FILE.search(read_document(source)):
        return ("python: lines that Python runs when it starts",), ()
    return (), ()


_PATH_FILE: Final = re.compile(rb"(?:^|[\r\n])\xef?\xbb?\xbf?import[ \t]")


def active_in_json(source: BoundedFile, path: str) -> TextFindings:
    """Active content and problems in a JSON file. Raises NotInspected."""
    name = PurePosixPath(path).name
    important = name in CONFIGURATION_FILES
    if important and source.size > MAX_TEXT:
        return (), (f"more than {MAX_TEXT} bytes of configuration",)
    text = read_document(source)
    problem, values = "", sum(text.count(mark) for mark in (b"{", b"[", b","))
    if source.size > MAX_TEXT or values > MAX_VALUES:
        problem = f"more than {MAX_VALUES} values of configuration"  # asked before the parser allocates memory
    else:
        source.work.step(values)
        members = JsonMembers(name, source.work)
        try:
            json.loads(text.decode("utf-8-sig"), object_pairs_hook=members)
            return tuple(dict.fromkeys(members.active)), ()
        except (ValueError, RecursionError) as error:
            problem = f"not JSON: {str(error)[:80]}"
    active = dict.fromkeys(active_in_keys(text, source.work))
    if b"!" in text[:MAX_TEXT]:
        active |= dict.fromkeys(active_tags(text, source.work))
    return tuple(active), (problem,) if important else ()


_STRING: Final = re.compile(rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)(?:"(\s*+:)?|\\?\Z)', re.DOTALL)
"""One without an end goes to the end of the text: else each quote in it would begin another search."""
PASSES: Final = 4
"""Searches of the whole text."""
PASSES_FOR_TAGS: Final = 12
STEPS_OF_ESCAPED_KEY: Final = 2
QUOTES: Final = 16
"""Quotation marks whose strings are read in the time of one step."""
_KEYS: Final = {
    "auto_map": "remote-code: auto_map",
    "auto_mapping": "remote-code: auto_mapping",
    "_target_": "remote-code: _target_",
    "nbformat": "python: a notebook",
    "class_name": "not-inspected: class_name in a document that is too large to parse, or is not JSON",
    "chat_template": "chat-template",
}


def active_in_keys(text: bytes, work: Work) -> Iterator[str]:
    """Active content by the keys of a document that is not parsed as a whole. Raises NotInspected."""
    work.search(PASSES * len(text))
    work.step(text.count(b'"') // QUOTES)
    template = False
    for match in _STRING.finditer(text):
        if template:
            template = False
            yield from active_in_template(_decode_string(match[1]).encode("utf-8", "replace"), work)
        if match[2] is None or len(match[1]) > 96:
            continue
        if b"\\" in match[1]:
            work.step(STEPS_OF_ESCAPED_KEY)
            key = _decode_string(match[1])
        else:
            key = match[1].decode("utf-8", "replace")
        if key in _KEYS:
            yield _KEYS[key]
            template = key == "chat_template"


def _decode_string(raw: bytes) -> str:
    try:
        return str(json.loads(b'"' + raw + b'"', strict=False))
    except ValueError:
        return raw.decode("utf-8", "replace")


class JsonMembers:
    """Collects active content from each member of each object in a JSON document, including duplicate names."""

    def __init__(self, name: str, work: Work) -> None:
        self.active: list[str] = []
        self._readers: dict[str, Callable[[Any], Iterator[str]]] = {
            "auto_map": _imports,
            "auto_mapping": _base_library,
            "chat_template": lambda value: _templates(value, work),
            "nbformat": lambda value: iter(("python: a notebook",) if isinstance(value, int) else ()),
            "_target_": _target,
        }
        if name == "modules.json":
            self._readers["type"] = _module_type
        self._index = name == "model_index.json"
        self._zarr = name in ZARR_METADATA

    def __call__(self, members: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, value in members:
            if reader := self._readers.get(name):
                self.active.extend(reader(value))
            if self._index:
                self.active.extend(_component(name, value))
            if self._zarr:
                self.active.extend(active_codec(name, value))
        self.active.extend(keras.active_in_object(members))
        return dict(members)


def _imports(value: object) -> Iterator[str]:
    names = sorted(str(item) for item in value.values()) if isinstance(value, dict) else [str(value)]
    if value:
        yield f"remote-code: auto_map imports {', '.join(names[:3])[:120]}{', …' if len(names) > 3 else ''}"


def _base_library(value: object) -> Iterator[str]:
    """PEFT imports the library of the base model."""
    library = value.get("parent_library") if isinstance(value, dict) else None
    if isinstance(library, str) and library.partition(".")[0] not in _LIBRARIES:
        yield f"remote-code: auto_mapping imports {library[:120]}"


_LIBRARIES: Final = frozenset({"transformers", "diffusers", "peft", "sentence_transformers", "optimum", "timm"})


def _target(value: object) -> Iterator[str]:
    """Hydra calls what `_target_` names."""
    if isinstance(value, str) and not value.startswith(_TARGETS):
        yield f"remote-code: _target_ calls {value[:120]}"


_TARGETS: Final = ("nemo.collections.", "torch.nn.", "torch.optim.")


def _module_type(value: object) -> Iterator[str]:
    """sentence-transformers imports the class of each module."""
    if isinstance(value, str) and not value.startswith("sentence_transformers."):
        yield f"remote-code: modules.json imports {value[:120]}"


def _component(name: str, value: object) -> Iterator[str]:
    """diffusers imports the library of each component of a pipeline."""
    if name == "_class_name" and isinstance(value, list):
        yield f"remote-code: model_index.json imports {str(value)[:120]}"
    match value:
        case [str(library), str(made)] if not name.startswith("_") and library not in _COMPONENTS:
            yield f"remote-code: model_index.json imports {library[:60]}.{made[:60]}"


_COMPONENTS: Final = _LIBRARIES | {
    *("stable_diffusion", "latent_diffusion", "paint_by_example", "wuerstchen", "kandinsky", "kandinsky3", "unclip"),
    *("audioldm2", "musicldm", "versatile_diffusion", "deepfloyd_if", "shap_e", "stable_cascade", "flux", "lumina"),
    *("deprecated", "onnxruntime", "unidiffuser", "pixart_alpha", "k_diffusion", "stable_audio", "hunyuandit"),
}


def _templates(value: object, work: Work) -> Iterator[str]:
    """One template or a list of named templates."""
    texts = [item.get("template") for item in value if isinstance(item, dict)] if isinstance(value, list) else [value]
    if isinstance(value, dict):
        texts = list(value.values())
    for text in texts:
        if isinstance(text, str) and text:
            yield from active_in_template(text.encode("utf-8", "replace"), work)


MAX_YAML: Final = 16 * 1024 * 1024
"""Bytes of a YAML document."""
MAX_ESCAPES: Final = 200_000
"""Backslashes in it: each escape that is replaced takes some hundred bytes."""
_BREAK: Final = rb"(?:^|[\r\n]|\xc2\x85|\xe2\x80[\xa8\xa9])"
"""Where a line begins: YAML has three line breaks beyond ASCII, written here in UTF-8."""
_TAG_DIRECTIVE: Final = re.compile(_BREAK + rb"(?:\xef\xbb\xbf)?%TAG\b")
_GLOBAL_TAG: Final = re.compile(
    rb"(?:" + _BREAK + rb"|[\s,\[\]{}:?\-&*]|\xef\xbb\xbf)(!<[^>\r\n]{0,400}>?|![\w-]*+![^\s,\[\]{}]*)"
)
_LOCAL_TAG: Final = re.compile(
    rb"(?:" + _BREAK + rb"[ \t]*+(?:- ++|\? ++)*+|[:\-?] ++|[\[{,][ \t]*+|&[^\s&]++ ++)"
    rb"(![A-Za-z][\w:./-]*)(?=[\s,\[\]{}]|\Z)"
)
_CORE_TAGS: Final = frozenset(
    {
        *("null", "bool", "int", "float", "binary", "timestamp", "omap", "pairs", "set", "str", "seq", "map"),
        *("merge", "value"),
    }
)
_LONG: Final = "tag:yaml.org,2002:"
_CALLING: Final = rb"_target_|loader_module"
_YAML_KEY: Final = re.compile(
    rb"""(?:^|[\n,{])[ \t]*+(?:- ++)*+["']?(""" + _CALLING + rb""")["']?[ \t]*:[ \t]*["']?([\w.]+)"""
)
_YAML_WORD: Final = re.compile(_CALLING)
_YAML_ESCAPE: Final = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|u00([0-9a-fA-F]{2})|U000000([0-9a-fA-F]{2})|\r?\n[ \t]*+)")


def active_in_yaml(text: bytes, work: Work) -> Iterator[str]:
    """Active content of YAML by its tags, and by the keys with which Hydra and MLflow name what they call. Raises
    NotInspected."""
    if len(text) > MAX_YAML:
        raise NotInspected(f"YAML of more than {MAX_YAML >> 20} MiB")
    if text.count(b"\\") > MAX_ESCAPES:
        raise NotInspected(f"YAML with more than {MAX_ESCAPES} escapes")
    plain = _YAML_ESCAPE.sub(_yaml_character, text)
    known = 0
    for key, value in ((match[1], match[2].decode("utf-8", "replace")) for match in _YAML_KEY.finditer(text)):
        found = list(_target(value) if key == b"_target_" else _loader_module(value))
        known += not found
        yield from found[:1]
    if sum(1 for _ in _YAML_WORD.finditer(plain)) > known:
        yield "remote-code: a key that makes a loader call something, in a spelling that is not read"
    yield from active_tags(text, work)


def active_tags(text: bytes, work: Work) -> Iterator[str]:
    """Active content of YAML by its tags. Raises NotInspected."""
    work.search(PASSES_FOR_TAGS * len(text))
    _check_utf8(text)
    if _TAG_DIRECTIVE.search(text):
        yield "python: YAML whose directives rename tags"
    for tag in (match[1].decode("utf-8", "replace") for match in _GLOBAL_TAG.finditer(text)):
        work.step()
        if not _is_core(tag):
            yield f"python: YAML that creates objects when loaded unsafely: {tag[:60]}"
            break
    if match := _LOCAL_TAG.search(text):
        yield f"python: YAML with a tag that a program defines: {match[1].decode('utf-8', 'replace')[:60]}"


def _check_utf8(text: bytes) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for at in range(0, len(text), CHUNK):
            decoder.decode(text[at : at + CHUNK], final=at + CHUNK >= len(text))
    except UnicodeDecodeError as error:
        raise NotInspected("YAML that is not UTF-8") from error


def _yaml_character(match: re.Match[bytes]) -> bytes:
    digits = match[1] or match[2] or match[3]
    return bytes([int(digits, 16)]) if digits else b""


def _loader_module(value: str) -> Iterator[str]:
    """MLflow imports the module of a model."""
    if not value.startswith("mlflow."):
        yield f"remote-code: loader_module imports {value[:120]}"


def _is_core(tag: str) -> bool:
    name = unquote(tag)
    if name.startswith("!<"):
        name = name[2:].removesuffix(">")
        return name.removeprefix(_LONG) in _CORE_TAGS and name.startswith(_LONG)
    return name.startswith("!!") and name[2:] in _CORE_TAGS
