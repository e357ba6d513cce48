"""What a store calls its things, and at which paths these have files whose bytes it keeps elsewhere, under their
digests.

    a cache of the Hub      models--ORG--NAME/snapshots/REVISION/…, links to blobs
    an Ollama store         manifests/HOST/NAMESPACE/MODEL/TAG names blobs/sha256-…
    an OCI image layout     index.json names manifests, and these their layers, in blobs/sha256/…; a layer has a path
                            by its annotation, or is an archive of files
    LM Studio               models/PUBLISHER/REPOSITORY/…

For each thing of a store that names files by digest there are further `DiskFile`s below a folder with the path of the
document that names them and `!`, as for an archive. A document is believed in nothing but names: the bytes of each file
are what was hashed. Sources: huggingface_hub, file_download.py; Ollama, types/model/name.go; OCI image specification
1.1, image-layout.md, manifest.md and annotations.md; CNCF ModelPack, docs/annotations.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from comity.bounded_file import read_bounded
from comity.trust.artifact import MAX_FILES, check_path
from comity.trust.encoding import Digest, parse_json, sha256
from comity.trust.errors import ComityError, Malformed
from comity.trust.frozen import frozen

from comity_client.identify.archives import ArchivedFiles
from comity_client.identify.disk import HUB_REPOSITORIES, UNPACKED, DiskFile, held_within

MAX_DOCUMENT: Final = 1024 * 1024
"""Bytes of an index, a manifest or a configuration."""
MAX_THINGS: Final = 1_000
"""Manifests of one OCI layout."""
MAX_LAYERS: Final = 10_000
"""Layers of one manifest."""
MAX_INDICES: Final = 3
"""Indices of an OCI layout, each of which is named by the one before."""
DIGITS: Final = 12
"""Digits of a digest or revision in the name of a thing that has no other name."""
LM_STUDIO: Final = ("/.lmstudio/models/", "/lm-studio/models/")
"""Where LM Studio keeps models."""
OLLAMA_HOST: Final = "registry.ollama.ai"
TITLES: Final = ("org.cncf.model.filepath", "org.opencontainers.image.title")
"""The annotations of a layer with its path."""
REF_NAME: Final = "org.opencontainers.image.ref.name"
_REMOVED: Final = ".wh."
"""How the name of a file begins that says that a file of a lower layer is not there."""


@frozen
class _NamedBlob:
    """Bytes that a document names by digest. `path`: where the thing has them; empty if it does not say."""

    digest: Digest
    path: str
    kind: str
    annotations: Mapping[str, object]


def with_layouts(files: Sequence[DiskFile], unpack: Callable[[DiskFile], ArchivedFiles]) -> list[DiskFile]:
    """The files, each with what a store calls the thing that it is of, and the files of things of stores at the paths
    that they have there.

    Args:
        unpack: hashes the files in an archive.
    """
    here = {str(each.path): each for each in files}
    layers = dict[Digest | None, ArchivedFiles]()

    def unpack_once(file: DiskFile) -> ArchivedFiles:
        if file.sha256 not in layers:
            layers[file.sha256] = unpack(file)
        return layers[file.sha256]

    named, opened = list[DiskFile](), set[Path]()
    for text, file in here.items():
        if file.within is not None or file.sha256 is None:
            continue
        if "manifests/" in text and file.path.parts[-5:-4] == ("manifests",):
            named += _Store(file, here, unpack_once, opened).ollama()
        elif file.path.name == "index.json" and str(file.path.with_name("oci-layout")) in here:
            named += islice(_Store(file, here, unpack_once, opened).oci(), MAX_FILES)
    names = _FolderNames()
    return [*(names.of(replace(each, opened=True) if each.path in opened else each) for each in files), *named]


class _FolderNames:
    """What stores of folders call the thing that a file is of."""

    def __init__(self) -> None:
        self._known = dict[str, str]()

    def of(self, file: DiskFile) -> DiskFile:
        folder, text = "", str(file.path)
        if "/snapshots/" in text:
            repository, _, rest = text.partition("/snapshots/")
            if repository.rpartition("/")[2].startswith(HUB_REPOSITORIES) and "/" in rest:
                folder = f"{repository}/snapshots/{rest.partition('/')[0]}"
        elif place := next((each for each in LM_STUDIO if each in text), ""):
            start, _, rest = text.partition(place)
            if rest.count("/") >= 2:
                folder = start + place + "/".join(rest.split("/")[:2])
        if not folder:
            return file
        if folder not in self._known:
            self._known[folder] = (
                _hub_name(Path(folder)) if "/snapshots/" in text else "/".join(Path(folder).parts[-2:])
            )
        return replace(file, stored_as=self._known[folder])


def _hub_name(snapshot: Path) -> str:
    """The repository, and the branches or tags that the cache has for this revision, else the revision."""
    repository = snapshot.parent.parent
    name = repository.name.partition("--")[2].replace("--", "/")
    try:
        references = sorted(islice((repository / "refs").iterdir(), MAX_THINGS))
    except OSError:
        references = []
    found = [each.name for each in references if _content(each) == snapshot.name]
    return f"{name}@{found[0] if found else snapshot.name[:DIGITS]}"


def _content(reference: Path) -> str:
    try:
        return read_bounded(reference, 256).decode("ascii", "replace").strip() if reference.is_file() else ""
    except ComityError:
        return ""


class _Store:
    """A document of a store, and the files that it names. Documents that were read are added to `opened`."""

    def __init__(
        self,
        document: DiskFile,
        here: Mapping[str, DiskFile],
        unpack: Callable[[DiskFile], ArchivedFiles],
        opened: set[Path],
    ) -> None:
        self._document = document
        self._here = here
        self._unpack = unpack
        self._opened = opened

    def ollama(self) -> Iterator[DiskFile]:
        """The files of a model, which is named by the path of its manifest; none if it is no manifest."""
        path = self._document.path
        try:
            manifest = _manifest(self._read(self._document))
        except ComityError:
            return
        host, namespace, model, tag = path.parts[-4:]
        short = [part for part in (host, namespace) if part not in (OLLAMA_HOST, "library")]
        self._opened.add(path)
        yield from self._thing(manifest, "/".join([*short, f"{model}:{tag}"]), _below(path), path.parents[4] / "blobs")

    def oci(self) -> Iterator[DiskFile]:
        """The files of all things in a layout; a line for what cannot be read."""
        path = self._document.path
        blobs = path.parent / "blobs" / "sha256"
        self._pass_over(path.with_name("oci-layout"))
        try:
            manifests = list(islice(self._manifests(self._document, blobs, MAX_INDICES), MAX_THINGS))
        except ComityError as error:
            yield DiskFile(_below(path), problem=error.why or str(error), within=path)
            return
        for each in manifests:
            folder = _below(path) / _tag(each)
            try:
                file = self._blob(blobs, each.digest)
                manifest = _manifest(self._read(file))
            except ComityError as error:
                yield DiskFile(folder, problem=error.why or str(error), within=path, stored_as=_tag(each))
                continue
            self._opened.add(file.path)
            yield from self._thing(manifest, _tag(each), folder, blobs)

    def _manifests(self, index: DiskFile, blobs: Path, depth: int) -> Iterator[_NamedBlob]:
        """The manifests that an index and the indices in it name. Raises ComityError."""
        if not depth:
            raise Malformed("not read further", why=f"more than {MAX_INDICES} indices in one another")
        items = _items(self._read(index), "manifests")
        self._opened.add(index.path)
        for each in items:
            if "index" in each.kind or "manifest.list" in each.kind:
                yield from self._manifests(self._blob(blobs, each.digest), blobs, depth - 1)
            else:
                yield each

    def _thing(
        self, manifest: tuple[_NamedBlob | None, list[_NamedBlob]], name: str, folder: Path, blobs: Path
    ) -> Iterator[DiskFile]:
        """The files of a manifest: its layers, and those in layers that are archives. Its configuration describes
        them."""
        config, layers = manifest
        found, count = dict[Path, DiskFile](), Counter[str]()
        if config is not None:
            self._pass_over(self._place(blobs, config.digest))
        for layer in layers:
            path = folder / (layer.path or _free(layer.kind, count))
            try:
                file = self._blob(blobs, layer.digest)
            except Malformed as error:
                found[path] = DiskFile(path, problem=error.why)
                continue
            if "tar" in layer.kind.replace("+", ".").split("."):
                for each in self._held(file, folder):
                    _lay_over(found, each)
            else:
                found[path] = replace(file, path=path, named=bool(layer.path), opened=False)
        yield from (replace(each, within=self._document.path, stored_as=name) for each in found.values())

    def _held(self, file: DiskFile, folder: Path) -> Iterator[DiskFile]:
        held = self._unpack(file)
        if not held.problem:
            self._opened.add(file.path)
        return held_within(file, held, folder)

    def _pass_over(self, path: Path) -> None:
        """Name a document that describes files no unknown file, if it is JSON."""
        file = self._here.get(str(path))
        if file is not None and file.sha256 is not None:
            with suppress(ComityError):
                self._read(file)
                self._opened.add(path)

    def _place(self, blobs: Path, digest: Digest) -> Path:
        return blobs / (digest if blobs.name == "sha256" else f"sha256-{digest}")

    def _blob(self, blobs: Path, digest: Digest) -> DiskFile:
        """The file whose name is a digest. Raises Malformed if it is not here, or has another digest."""
        path = self._place(blobs, digest)
        file = self._here.get(str(path))
        if file is None or file.sha256 is None:
            raise Malformed("no file", why=f"the store names it, and it was not read: {path.name}")
        if file.sha256 != digest:
            raise Malformed("other bytes", why=f"its bytes are not those that its name says: {path.name}")
        return file

    def _read(self, file: DiskFile) -> dict[str, Any]:
        """A document as it was hashed. Raises ComityError."""
        data = read_bounded(file.path, MAX_DOCUMENT)
        if sha256(data) != file.sha256:
            raise Malformed("document refused", why=f"{file.path.name} changed while it was read")
        value = parse_json(data, limit=MAX_DOCUMENT, what=file.path.name, text_fractions=True)
        if not isinstance(value, dict):
            raise Malformed("document refused", why=f"{file.path.name} is no object")
        return value


def _manifest(document: dict[str, Any]) -> tuple[_NamedBlob | None, list[_NamedBlob]]:
    """(configuration, layers). Raises Malformed."""
    config = document.get("config")
    return (_item(config) if isinstance(config, dict) else None), _items(document, "layers")


def _items(document: dict[str, Any], member: str) -> list[_NamedBlob]:
    items = document.get(member)
    if not isinstance(items, list) or len(items) > MAX_LAYERS:
        raise Malformed("document refused", why=f"it has no {member}, or too many")
    return [_item(each) for each in items]


def _item(value: object) -> _NamedBlob:
    found = value if isinstance(value, dict) else {}
    algorithm, _, digits = str(found.get("digest", "")).partition(":")
    if algorithm != "sha256" or len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        raise Malformed("document refused", why="it names a file by no SHA-256")
    said = found.get("annotations")
    annotations = said if isinstance(said, dict) else {}
    titles = (annotations.get(title) for title in TITLES)
    path = next((each for each in titles if isinstance(each, str) and _is_path(each)), "")
    return _NamedBlob(Digest(digits), path, str(found.get("mediaType", ""))[:256], annotations)


def _is_path(text: str) -> bool:
    try:
        return bool(check_path(text))
    except Malformed:
        return False


def _tag(manifest: _NamedBlob) -> str:
    """The name of a thing in an OCI layout: its tag, else the first digits of its digest."""
    said = manifest.annotations.get(REF_NAME)
    return said if isinstance(said, str) and _is_path(said) else manifest.digest[:DIGITS]


def _below(document: Path) -> Path:
    return document.with_name(document.name + UNPACKED)


def _free(kind: str, count: Counter[str]) -> str:
    """A name for a file that has none: the last word of its media type, and a number from the second one on."""
    word = "".join(sign for sign in kind.rpartition("/")[2].rpartition(".")[2] if sign.isalnum()) or "file"
    count[word] += 1
    return word if count[word] == 1 else f"{word}-{count[word]}"


def _lay_over(found: dict[Path, DiskFile], file: DiskFile) -> None:
    """Add a file of a layer: it takes the place of one below, or says that there is none any more."""
    if file.path.name.startswith(_REMOVED) and file.sha256 is not None:
        found.pop(file.path.with_name(file.path.name.removeprefix(_REMOVED)), None)
    else:
        found[file.path] = file
