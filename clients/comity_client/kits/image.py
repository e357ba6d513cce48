"""The image of a kit: an OCI image layout in its folder `image`, made of the kit's own parts on a base.

The base is the file `image.toml` in the recipe, or one that is given to the build. It names packages of Debian by their
hashes, and the layer that they give:

    schema = "comity/kit-image/v1"
    arch = "x86_64"
    python = "3.13"                                 # whose wheels are in the image
    program = "/usr/bin/python3.13"                 # of the packages
    site = "usr/local/lib/python3.13/dist-packages" # where it imports from
    layer = "sha256 of the layer of the base"
    packages = [{ name = "libc6", version = "2.41-12", sha256 = "…" }]
    omit = ["usr/share/man"]                        # what of the packages is left out: paths that begin so

An image has three layers: the base; the wheels of its Python; the engine's files and all licence texts, in the folder
`/kit`. The weights are not in it: they are mounted at `/kit/weights` from the folder of the kit, whose bytes they would
double. Neither time nor machine is in it, so it is equal wherever it is made. A kit with an image has the layer of its
base, and needs the packages no more. Source: docs/kits.md; OCI image specification 1.1.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, ClassVar, Final
from urllib.parse import quote

from comity.bounded_file import read_bounded
from comity.rules.kits.description import ARCHITECTURES, ENGINE, PATH, KitEngine
from comity.rules.model_pack import IMAGE_CONFIG, IMAGE_INDEX, IMAGE_MANIFEST, TITLE, descriptor
from comity.trust.codec import ABSENT, JsonItems, JsonObject, JsonRead, JsonText, JsonWord
from comity.trust.encoding import Digest, Json, canonical, sha256
from comity.trust.errors import ComityError, Malformed, Unavailable
from comity.trust.frozen import frozen
from comity.verifier import hash_file

from comity_client.cyclonedx import Component, sha256_hashes
from comity_client.kits.fetching import files_by_hash, ignore_count
from comity_client.kits.layers import MERGED, Layer, bad_image
from comity_client.kits.wheels import interpreter_tags, named_wheel, platform_tags

IMAGE_FILE: Final = "image.toml"
MAX_IMAGE_FILE: Final = 1024 * 1024
MAX_PACKAGES: Final = 2_000
BLOBS: Final = "blobs/sha256"
LICENCES: Final = "licences"
DEB: Final = (".deb",)
PORT: Final = 8080
NOBODY: Final = "65534:65534"
"""The user and group as which an engine runs in a container."""
_OCI_ARCHITECTURES: Final[Mapping[str, str]] = {"x86_64": "amd64", "aarch64": "arm64"}
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_PROGRAM: Final = re.compile(r"(?:/[A-Za-z0-9._+\-]+)+\Z")


def _form(form: re.Pattern[str], what: str) -> JsonRead:
    def read(text: str) -> str:
        if not form.match(text):
            raise Malformed("the base is malformed", why=f"{text[:60]!r} is no {what}")
        return text

    return JsonRead(read, form, most=200)


@frozen
class BasePackage(JsonObject):
    """A package of Debian, by the SHA-256 of its file."""

    name: Annotated[str, _form(re.compile(r"[a-z0-9][a-z0-9+.\-]+\Z"), "name of a package")]
    version: Annotated[str, _form(re.compile(r"[A-Za-z0-9.+:~\-]+\Z"), "version of a package")]
    sha256: Digest

    def component(self, arch: str) -> Component:
        """It in a bill of parts. The texts of its licences are in the layer."""
        purl = f"pkg:deb/debian/{quote(self.name, safe='')}@{quote(self.version, safe='')}?arch={arch}"
        return {
            "type": "library",
            "bom-ref": f"package:{self.name}",
            "name": self.name,
            "version": self.version,
            "purl": purl,
            "hashes": sha256_hashes(self.sha256),
        }


@frozen
class ImageBase(JsonObject):
    """What the first layer of an image is made of, and the Python in it. `layer` is its SHA-256."""

    constants: ClassVar = {"schema": "comity/kit-image/v1"}
    arch: Annotated[str, JsonWord(tuple(each for each in ARCHITECTURES if each != "any"))]
    python: Annotated[str, _form(re.compile(r"3\.[1-9]?[0-9]\Z"), "version of Python")]
    program: Annotated[str, _form(_PROGRAM, "path of a program")]
    site: Annotated[str, PATH]
    layer: Digest
    packages: Annotated[tuple[BasePackage, ...], JsonItems(MAX_PACKAGES, 1)]
    omit: Annotated[tuple[str, ...] | None, JsonItems(MAX_PACKAGES, of=JsonText()), ABSENT] = None

    @property
    def architecture(self) -> str:
        """As OCI and Debian call it."""
        return _OCI_ARCHITECTURES[self.arch]

    @property
    def components(self) -> list[Component]:
        """Its packages, for a bill of parts."""
        return [package.component(self.architecture) for package in self.packages]


@frozen
class ImageParts:
    """Of what an image is made: the folder of a kit, and the paths of its wheels in it."""

    name: str
    base: ImageBase
    engine: KitEngine
    folder: Path
    wheels: tuple[str, ...]


def read_base(file: Path) -> ImageBase:
    """Read `image.toml`. Raises NotFound, Unavailable, Malformed (KIT-IMAGE)."""
    try:
        return ImageBase.from_json(tomllib.loads(read_bounded(file, MAX_IMAGE_FILE).decode()))
    except Malformed as error:
        raise _bad_base(file, error.why or str(error)) from error
    except (ValueError, RecursionError) as error:  # no TOML, or no UTF-8
        raise _bad_base(file, str(error)[:200]) from error


def add_base(base: ImageBase, folders: Sequence[Path], image: Path) -> None:
    """Put the layer of a base into an image layout: the layer itself from one of the folders, else made of its packages
    there. Blocking. Raises Unavailable (KIT-PACKAGES-MISSING), Malformed (KIT-IMAGE)."""
    target = _blob(image, base.layer)
    target.parent.mkdir(parents=True)
    made = next((each for folder in folders if (each := folder / base.layer).is_file()), None)
    if made is not None:
        shutil.copyfile(made, target)
        found = hash_file(target, ignore_count)[1]
    else:
        found = _make_base(base, files_by_hash(folders, DEB), target)
    if found != base.layer:
        why = f"the layer of its base has the digest {found}, and {IMAGE_FILE} names {base.layer}"
        raise bad_image(why)


def write_image(parts: ImageParts, image: Path) -> None:
    """Write all of an image into the folder of its layout, in which the layer of its base is. Blocking. Raises
    Malformed (KIT-IMAGE)."""
    for path, made in _make(parts, image, image).items():
        if isinstance(made, bytes):
            place = image / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(made)


def image_problems(parts: ImageParts, found: Mapping[str, Digest]) -> tuple[str, ...]:
    """What of an image is not as its parts give it, a line for each file; empty if all is. Nothing is written.

    Args:
        found: the digests of the files below `image/` of the kit, by their paths there.
    """
    try:
        made = _make(parts, parts.folder / "image", None)
    except ComityError as error:
        return (error.why or error.what,)
    except OSError as error:
        return (f"its layer of the base cannot be read: {error.strerror}",)
    wanted = {path: sha256(each) if isinstance(each, bytes) else each for path, each in made.items()}
    missing = [f"image/{path} is missing" for path in wanted if path not in found]
    other = [f"image/{path} is not what the parts of the kit give" for path in found
             if found[path] != wanted.get(path)]  # fmt: skip
    return (*missing, *other)


def _make(parts: ImageParts, base_in: Path, out: Path | None) -> dict[str, bytes | Digest]:
    """All files of a layout by path: small ones as their bytes; layers by their digests, written to `out`, if given."""
    base, files = parts.base, dict[str, bytes | Digest]()
    descriptors = [descriptor(_LAYER, base.layer, _blob(base_in, base.layer).stat().st_size)]
    with ExitStack() as opened:
        for layer in (_wheels(parts, opened), _own(parts, opened)):
            digest, size = _write_layer(layer, out)
            descriptors.append(descriptor(_LAYER, digest, size))

    def blob(media: str, content: Json) -> dict[str, Json]:
        data = canonical(content)
        files[f"{BLOBS}/{sha256(data)}"] = data
        return descriptor(media, sha256(data), len(data))

    files.update({f"{BLOBS}/{_of(each)}": _of(each) for each in descriptors})
    platform: dict[str, Json] = {"architecture": base.architecture, "os": "linux"}
    layers: list[Json] = [each["digest"] for each in descriptors]
    config = blob(
        IMAGE_CONFIG, {**platform, "config": _settings(parts), "rootfs": {"type": "layers", "diff_ids": layers}}
    )
    said: dict[str, Json] = {TITLE: parts.name}
    manifest = blob(
        IMAGE_MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": IMAGE_MANIFEST,
            "config": config,
            "layers": [*descriptors],
            "annotations": said,
        },
    )
    named: list[Json] = [{**manifest, "platform": platform}]
    files["index.json"] = canonical({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": named})
    files["oci-layout"] = canonical({"imageLayoutVersion": "1.0.0"})
    return files


def _settings(parts: ImageParts) -> dict[str, Json]:
    """How a container runs the engine: it listens at all addresses of its own network, maybe a loopback alone."""
    values = {"python": parts.base.program, "kit": "/kit", "host": "0.0.0.0", "port": str(PORT)}
    command: list[Json] = [re.sub(r"\{(\w+)\}", lambda found: values[found[1]], word) for word in parts.engine.command]
    own = {"HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    environment: list[Json] = [f"{name}={value}" for name, value in sorted({**own, **parts.engine.environment}.items())]
    ports: dict[str, Json] = {f"{PORT}/tcp": {}}
    return {
        "Entrypoint": command,
        "Env": environment,
        "ExposedPorts": ports,
        "User": NOBODY,
        "WorkingDir": "/kit",
    }


def _wheels(parts: ImageParts, opened: ExitStack) -> Layer:
    """The wheels that the Python of the base takes."""
    layer, base, taken = Layer(opened), parts.base, set[str]()
    tags = interpreter_tags(base.python, platform_tags(base.arch))
    for path in sorted(parts.wheels):
        name, _, own = named_wheel(Path(path).name)
        if own.isdisjoint(tags):
            continue
        if name in taken:
            raise bad_image(f"two wheels of {name} are for CPython {base.python}")
        taken.add(name)
        layer.add_wheel(parts.folder / path, base.site)
    lacking = {named_wheel(Path(path).name)[0] for path in parts.wheels} - taken
    if lacking:
        raise bad_image(f"no wheel of {', '.join(sorted(lacking))} is for CPython {base.python} on {base.arch}")
    return layer


def _own(parts: ImageParts, opened: ExitStack) -> Layer:
    """The engine's files, the licences, and an empty folder for the weights."""
    layer = Layer(opened)
    layer.add("kit/weights", None)
    for name, mode in ((ENGINE, 0o755), (LICENCES, 0o644)):
        for path in (each for each in (parts.folder / name).rglob("*") if each.is_file()):
            layer.add_file(f"kit/{path.relative_to(parts.folder).as_posix()}", path, mode)
    return layer


def _make_base(base: ImageBase, found: Mapping[Digest, Path], target: Path) -> Digest:
    """Raises Unavailable (KIT-PACKAGES-MISSING) that names the packages that are in no folder."""
    missing = [each for each in base.packages if each.sha256 not in found]
    if missing:
        words = " ".join(f"{each.name}={each.version}" for each in missing)
        why = f"no file in the folders of --packages has the hash of {', '.join(each.name for each in missing[:5])}"
        hint = f"apt-get download {words}; or name the folder image/blobs/sha256 of a kit on the same base"
        what = f"{len(missing)} packages of the base are missing"
        raise Unavailable(what, why=why, hint=hint, code="KIT-PACKAGES-MISSING")
    with ExitStack() as opened:
        layer = Layer(opened)
        for name in MERGED:
            layer.add(name, f"usr/{name}")
        layer.add("tmp", None)
        for package in base.packages:
            layer.add_package(found[package.sha256], base.omit or ())
        with target.open("wb") as file:
            digest, _ = layer.write(file)
    return digest


def _write_layer(layer: Layer, out: Path | None) -> tuple[Digest, int]:
    """The digest and the size of a layer, which is written to `out` under its digest, if that is given."""
    if out is None:
        return layer.write(None)
    with tempfile.NamedTemporaryFile(dir=out, delete=False) as file:
        digest, size = layer.write(file)
    written = Path(file.name)
    written.chmod(0o644)
    written.replace(_blob(out, digest))
    return digest, size


def _blob(image: Path, digest: str) -> Path:
    return image / BLOBS / digest


def _of(descriptor: Mapping[str, Json]) -> Digest:
    return Digest(str(descriptor["digest"]).removeprefix("sha256:"))


def _bad_base(file: Path, why: str) -> Malformed:
    return Malformed(f"{file.name} cannot be used", why=why, hint="compare it with docs/kits.md", code="KIT-IMAGE")
