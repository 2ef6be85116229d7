"""Damage every file of a cache in every way, and see what verify, training and repair make of it."""

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.harness import options, report
from benchmarks.harness.fault_suite import import_from_tests
from benchmarks.harness.folders import emptied
from hskcache import console

if TYPE_CHECKING:
    from damages import Damage
    from material import Material

STALE = ("stale", "manifest")


def try_one(root: Path, whole: list[str], damage: "Damage", train: bool) -> dict[str, bool]:
    """Verdicts on a damage: ``detected``, and where it was trained on, ``refused`` or ``harmless``."""
    from judged import is_detected, trained_on

    found = {"detected": is_detected(root, damage)}
    if train:
        verdict = trained_on(root, whole, "host")
        found["trained"] = True
        found["refused"] = verdict == "refused"
        # What training does not read may leave it as it is, but never other than it is.
        found["wrong"] = verdict == "other batches" or (damage.read and verdict != "refused")
    return found


def is_of_the_owner(damage: "Damage") -> bool:
    """True for a damage that no repair may undo on its own."""
    return damage.region == "folder" or damage.kind == "a folder instead" or (damage.kind, damage.region) == STALE


def repairs(damages: "list[Damage]", root: Path, material: "Material") -> tuple[int, list[str]]:
    """Mend one damage of each kind and region from another copy, and by the teacher what it can compute.

    Left out are folders and links in the place of files, which repair leaves for their owner to move away, and the
    manifest of another cache, which makes it that one.

    Returns:
        How many repairs were tried, and those that did not bring back every byte.
    """
    from commands_said import hskcache
    from damages import restore
    from scenarios import visible

    mendable = [damage for damage in damages if not is_of_the_owner(damage)]
    first = {(damage.kind, damage.region): damage for damage in reversed(mendable)}.values()
    whole, tried, failed = visible(material.grown), 0, []
    by_teacher = ("own shard", *material.source_flags(material.data))
    with console.progress("repairs") as bar:
        task = bar.add_task("repair", total=len(first))
        for damage in first:
            own = damage.touched[0].partition("/")[0] in {"inputs", "logits", "hidden", "attention"}
            computed = [by_teacher] if own and damage.region != "folder" else []
            for means, *flags in [("another copy", "--from", material.grown), *computed]:
                damage.apply(root)
                tried += 1
                try:
                    hskcache("repair", root, *flags, "--remove-extra")
                    found = visible(root)
                    odd = sorted(path for path in whole.keys() | found.keys() if whole.get(path) != found.get(path))
                    if odd:
                        failed.append(f"{damage.kind}: {damage.what}: by {means}: {', '.join(odd)} differs")
                except AssertionError as error:
                    failed.append(f"{damage.kind}: {damage.what}: by {means}: {error}")
                shutil.rmtree(root)
                shutil.copytree(material.grown, root)
            bar.advance(task)
            restore(root, material.grown, damage)
    return tried, failed


@click.command()
@options.count("--positions", 40, "Of each region of a shard.")
@options.count("--lengths", 20, "To cut each file to.")
@options.count("--small-positions", 0, "Of other files; 0: all bytes.", at_least=0)
@options.count("--train-every", 8, "Train on one of so many of the damages.")
@click.option("--repair/--no-repair", default=True, show_default=True, help="Mend one damage of each kind and region.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of what is drawn.")
@options.work
@options.as_json
def main(work: Path, as_json: bool, **given: Any) -> None:
    """Count the damages that were tried, that verify named by file, field and shard, and that training refused.

    Every byte of manifest, pages of records and tokenizer gets a flipped bit, and of shards some bytes of every region:
    headers, documents, chunks, checksums, directory. Files are cut, emptied, zeroed, doubled, swapped, taken from an
    older build, removed, replaced by folders and links; and others are put beside them.
    """
    import_from_tests()
    import torch
    from damages import Cut, Suite, restore
    from judged import batches
    from material import SPEC, Material

    from hskcache.spec import Width

    torch.set_num_threads(1)
    folder = emptied(work / "damage")
    material = Material(emptied(folder / "material"))
    material.warm()
    assert SPEC.hidden is not None
    older = SPEC.hidden.model_copy(update={"width": Width(scheme="random", fraction=0.25, seed=1)})
    older_dir = material.built("older", SPEC.model_copy(update={"hidden": older}))
    small = Cut(given["small_positions"] or None, given["lengths"])
    suite = Suite(material.grown, older_dir, small, Cut(given["positions"], given["lengths"]), given["seed"])
    root = Path(shutil.copytree(material.grown, folder / "damaged"))
    whole, damages = list(batches(material.grown)), list(suite.damages())
    draw = random.Random(given["seed"])  # noqa: S311  (nothing here is secret)
    kinds: dict[str, Counter[str]] = {}
    regions: dict[str, Counter[str]] = {}
    missed: list[str] = []
    with console.progress("damages") as bar:
        task = bar.add_task("damage", total=len(damages))
        for damage in damages:
            damage.apply(root)
            found = try_one(root, whole, damage, draw.random() * given["train_every"] < 1)
            restore(root, material.grown, damage)
            for counts, key in ((kinds, damage.kind), (regions, damage.region)):
                counts.setdefault(key, Counter())["tried"] += 1
                counts[key].update(name for name, is_so in found.items() if is_so)
            if not found["detected"] or found.get("wrong"):
                missed.append(f"{damage.kind}: {damage.what}: {'trained on' if found['detected'] else 'not detected'}")
            bar.advance(task)
    mended, failed = repairs(damages, root, material) if given["repair"] else (0, [])
    targets = [report.Target(f"repaired to the byte of {mended} damages", mended - len(failed), mended, at_least=True)]
    facts = {"settings": given, "kinds": kinds, "regions": regions, "missed": missed, "not_repaired": failed}
    conclude(facts, targets, as_json)


def conclude(facts: dict[str, Any], targets: list[report.Target], as_json: bool) -> None:
    """Print two tables, by kind and by region, and exit."""
    kinds, regions = facts["kinds"], facts["regions"]
    columns = ("tried", "detected", "trained", "refused", "wrong")
    header = ("tried", "detected by verify", "trained on", "refused by training", "trained wrongly")
    total: Counter[str] = sum(kinds.values(), Counter())
    texts = []
    for title, counts in (("by kind", kinds), ("by file and region", regions)):
        rows = [[name, *(found[column] for column in columns)] for name, found in counts.items()]
        texts.append(report.table(title, ("damage", *header), [*rows, ["all", *(total[name] for name in columns)]]))
    targets = [
        *targets,
        report.Target(f"detected of {total['tried']} damages", total["detected"], total["tried"], at_least=True),
        report.Target(f"trained wrongly of {total['trained']} that were trained on", total["wrong"], 0),
    ]
    report.conclude(facts, [*texts, *facts["missed"], *facts["not_repaired"]], targets, as_json)
