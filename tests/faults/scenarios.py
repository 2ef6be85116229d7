"""Commands that write a cache, and what must hold when they were killed: a table with a line for each.

Every command works in a folder of its own. It is run to the end once, which shows its steps and what it leaves; then,
for any moment of it, it is killed in a fresh folder of the same name, looked at, and given again.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from commands_said import hskcache
from material import Material
from steps import Moment, Step, killed_at, recorded, run
from stored import shard_file

from hskcache.cache import open_cache
from hskcache.errors import CacheError
from hskcache.store.files import sha256_hex
from hskcache.store.ledger import TOKENIZER, Ledger
from hskcache.store.pages import INDEX
from hskcache.store.publishing import MANIFEST
from hskcache.verify import verify

CACHE = "c"
"""Name of the cache within a scenario's folder."""
_PLACE = "place"


@dataclass(frozen=True, eq=False)
class Scenario:
    """A command that may be killed.

    Attributes:
        prepare: makes what the command starts from in an empty folder.
        command: works in that folder, in a child; what it needs beside is in memory already.
        between: called after a kill with the folder and the one of a run that nothing disturbed; raises AssertionError
            where something unfinished is taken for whole.
    """

    prepare: Callable[[Path], object]
    command: Callable[[Path], object]
    between: Callable[[Path, Path], None]


@dataclass(frozen=True, eq=False)
class Whole:
    """A run that nothing disturbed: its steps, its folder and what is in it."""

    steps: list[Step]
    folder: Path
    contents: dict[str, str]


def undisturbed(scenario: Scenario, folder: Path) -> Whole:
    """Run a scenario to the end in a new folder."""
    place = _prepared(scenario, folder / _PLACE)
    steps = recorded(lambda: scenario.command(place), place, folder / "steps.json")
    # Elsewhere, so that a command finds the same paths whenever it is run.
    whole = place.rename(folder / "whole")
    return Whole(steps, whole, contents(whole))


def recover(scenario: Scenario, whole: Whole, moment: Moment) -> None:
    """Kill a scenario at a moment, look at what is there, and give the command again.

    Raises:
        AssertionError: what the kill left is taken for whole, or the second run ends with anything else than a run
            that nothing disturbed.
    """
    shutil.rmtree(whole.folder.parent / _PLACE, ignore_errors=True)
    place = _prepared(scenario, whole.folder.parent / _PLACE)
    killed_at(lambda: scenario.command(place), place, moment)
    scenario.between(place, whole.folder)
    run(lambda: scenario.command(place))
    assert_same(contents(place), whole.contents)


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder, and the folders."""
    return {
        path.relative_to(folder).as_posix(): sha256_hex(path.read_bytes()) if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


def assert_same(found: dict[str, str], expected: dict[str, str]) -> None:
    """See that two folders hold the same bytes under the same names."""
    odd = sorted(path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path))
    assert not odd, f"other files than without a fault: {', '.join(odd)}"


def never_complete(place: Path, whole: Path) -> None:
    """Nothing opens or verifies a cache that is not whole, beside what its build has still to remove."""
    _see(place / CACHE, [whole / CACHE])


def always_complete(before: Path) -> Callable[[Path, Path], None]:
    """At any moment there is a whole cache for readers: the one before or the one after."""

    def between(place: Path, whole: Path) -> None:
        assert _see(place / CACHE, [before, whole / CACHE]), "cannot be opened meanwhile"

    return between


def _see(root: Path, states: list[Path]) -> bool:
    """Whether a cache opens; if so, it must be one of these, with all that its manifest names."""
    files = visible(root)
    try:
        ok = verify(root).ok
    except CacheError:
        ok = False
    assert not ok or any(files == visible(state) for state in states), "verify takes it for whole"
    try:
        cache = open_cache(root)
    except CacheError:
        return False
    same = [state for state in states if open_cache(state).id == cache.id]
    assert same, f"opens as {cache.id}, which is none that it may be"
    named = _named(root)
    expected = visible(same[0])
    odd = sorted(path for path in named if files.get(path) != expected[path])
    assert not odd, f"opens, but does not hold {', '.join(odd)}"
    return True


def visible(root: Path) -> dict[str, str]:
    """Digest of every file of a cache, without what hubs and locks add."""
    found = contents(root) if root.exists() else {}
    return {path: digest for path, digest in found.items() if digest != "folder" and not path.startswith(".")}


def _named(root: Path) -> list[str]:
    """Files that a manifest stands for."""
    manifest = Ledger(root).manifest()
    paths = [path.relative_to(root).as_posix() for path in (root / TOKENIZER).rglob("*") if path.is_file()]
    return [*paths, *(file.path for file in manifest.index), *(record.path for record in manifest.records)]


def never_seen(name: str) -> Callable[[Path, Path], None]:
    """A file stands there whole or not at all."""

    def between(place: Path, whole: Path) -> None:
        path = place / name
        assert not path.exists() or path.read_bytes() == (whole / name).read_bytes(), f"{name} is not whole"

    return between


def never_healthy(place: Path, whole: Path) -> None:
    """A damaged cache keeps its id, and verify does not take it for whole before it is."""
    root, states = place / CACHE, [visible(whole / CACHE)]
    assert not verify(root).ok or visible(root) in states, "verify takes it for whole"


def _prepared(scenario: Scenario, folder: Path) -> Path:
    folder.mkdir(parents=True)
    scenario.prepare(folder)
    return folder


def _nothing(_folder: Path) -> None:
    """Start from an empty folder."""


def _copy_of(cache: Path) -> Callable[[Path], object]:
    """Start from a whole cache."""
    return lambda folder: shutil.copytree(cache, folder / CACHE)


def _damaged(cache: Path) -> Callable[[Path], object]:
    """Start from a cache with a shard of each field damaged, and a page of records and the manifest gone."""

    def prepare(folder: Path) -> None:
        ledger = Ledger(Path(shutil.copytree(cache, folder / CACHE)))
        shard_file(ledger.root, "hidden", 1).unlink()
        shard_file(ledger.root, "attention", 2).write_bytes(b"")
        path = shard_file(ledger.root, "inputs", 0)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        next((ledger.root / "logits" / INDEX).iterdir()).unlink()
        (ledger.root / MANIFEST).unlink()

    return prepare


def _build(material: Material) -> Scenario:
    return Scenario(
        _nothing, lambda folder: hskcache("build", *material.flags, "--out", folder / CACHE), never_complete
    )


def _corpus(material: Material) -> Scenario:
    def command(folder: Path) -> None:
        hskcache("build", *material.corpus_flags, "--out", folder / CACHE)

    return Scenario(_nothing, command, never_complete)


def _add_field(material: Material) -> Scenario:
    before = material.built()

    def command(folder: Path) -> None:
        kept = ("--keep", "2l_3t_0.5h", "--width", "uniform", "--student-layers", 2)
        added = ("--add-field", "hidden", "--name", "more", *kept)
        hskcache("build", "--teacher", material.other_dir, "--device", "cpu", *added, "--out", folder / CACHE)

    return Scenario(_copy_of(before), command, always_complete(before))


def _append(material: Material) -> Scenario:
    before = material.built()

    def command(folder: Path) -> None:
        hskcache("append", folder / CACHE, *material.source_flags(material.more))

    return Scenario(_copy_of(before), command, always_complete(before))


def _repair(material: Material) -> Scenario:
    def command(folder: Path) -> None:
        hskcache("repair", folder / CACHE, *material.source_flags(material.data))

    return Scenario(_damaged(material.built()), command, never_healthy)


def _repair_from(material: Material) -> Scenario:
    before = material.grown
    return Scenario(
        _damaged(before), lambda folder: hskcache("repair", folder / CACHE, "--from", before), never_healthy
    )


def _extract(material: Material) -> Scenario:
    view = ("--view", "1l,attention=1l,rows=7")
    before = material.built()
    return Scenario(
        _nothing, lambda folder: hskcache("extract", before, *view, "--out", folder / CACHE), never_complete
    )


def _export(material: Material) -> Scenario:
    before = material.grown
    return Scenario(_nothing, lambda folder: hskcache("export", before, folder / "c.h5"), never_seen("c.h5"))


def _import(material: Material) -> Scenario:
    file = material.folder / "import.h5"
    run(lambda: hskcache("export", material.grown, file))
    return Scenario(_nothing, lambda folder: hskcache("import", file, folder / CACHE), never_complete)


def _pack(material: Material) -> Scenario:
    before = material.grown
    return Scenario(_nothing, lambda folder: hskcache("pack", before, folder / "c.tar"), never_seen("c.tar"))


def _unpack(material: Material) -> Scenario:
    file = material.folder / "unpack.tar"
    run(lambda: hskcache("pack", material.grown, file))
    return Scenario(_nothing, lambda folder: hskcache("unpack", file, folder / CACHE), never_complete)


def _push(material: Material) -> Scenario:
    before = material.grown
    return Scenario(
        _nothing, lambda folder: hskcache("push", before, f"file://{folder / CACHE}", "--jobs", 1), never_complete
    )


def _pull(material: Material) -> Scenario:
    url = f"file://{material.grown}"
    return Scenario(_nothing, lambda folder: hskcache("pull", url, folder / CACHE, "--jobs", 1), never_complete)


SCENARIOS: dict[str, Callable[[Material], Scenario]] = {
    "build": _build,
    "build --corpus": _corpus,
    "build --add-field": _add_field,
    "append": _append,
    "repair --teacher": _repair,
    "repair --from": _repair_from,
    "extract": _extract,
    "export": _export,
    "import": _import,
    "pack": _pack,
    "unpack": _unpack,
    "push": _push,
    "pull": _pull,
}
