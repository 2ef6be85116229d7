"""Read caches that a stranger has lied in, with digests that fit, under limits of memory and time."""

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.harness import options, report
from benchmarks.harness.fault_suite import import_from_tests
from benchmarks.harness.folders import emptied
from benchmarks.harness.guarded import Limits, Outcome, guarded
from hskcache import console, units

if TYPE_CHECKING:
    from stories import Truth
    from strangers import Lie


class Telling:
    """Tells lies about a cache and does with it what one does with a stranger's.

    Args:
        truth: the cache without lies.
        told: the copy that they are told in.
        seed: of the lies.
        train_every: a student learns from one case of so many.
    """

    def __init__(self, truth: "Truth", told: Path, seed: int, train_every: int) -> None:
        from judged import a_student

        self.truth, self.told, self.seed, self.train_every = truth, told, seed, train_every
        self.student = a_student(truth.root)
        shutil.copytree(truth.root, told)

    def lie(self, number: int) -> "Lie":
        """The lie of a number."""
        from strangers import lie

        return lie(self.truth, random.Random(f"{self.seed} {number}"))  # noqa: S311  (nothing here is secret)

    def __call__(self, number: int) -> dict[str, Any]:
        """Tell it, use the cache, take it back."""
        from judged import learned
        from reading_lies import refusals

        found = self.lie(number)
        found.tell(self.told)
        try:
            trains = number % self.train_every == 0
            count = refusals(self.told, (lambda root: learned(root, self.student)) if trains else None)
        finally:
            found.take_back(self.told, self.truth.root)
        return {"kind": found.kind, "refused": count > 0}


def keep(telling: Telling, outcome: Outcome, folder: Path) -> str:
    """Save a lie that something else came of than a refusal; one line about it."""
    lie = telling.lie(outcome.number)
    place = folder / f"{outcome.number:06d}"
    shutil.copytree(telling.truth.root, place / "cache")
    lie.tell(place / "cache")
    (place / "what.txt").write_text(f"{lie.kind}: {lie.what}\n\n{outcome.fault}\n", encoding="utf-8")
    assert outcome.fault is not None
    return f"{place}: {lie.kind}: {outcome.fault.strip().splitlines()[-1]:.120}"


@click.command()
@options.count("--cases", 20_000, "Lies to tell.")
@options.count("--first", 0, "Number of the first.", at_least=0)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the lies.")
@options.count("--train-every", 4, "Train on one of so many.")
@options.count("--megabytes", 1024, "Memory a case may take.")
@click.option("--seconds", type=float, default=20.0, show_default=True, help="Time a case may take.")
@options.work
@options.as_json
def main(work: Path, as_json: bool, **given: Any) -> None:
    """Count the lies that are refused in our words, those that do no harm, and everything else, which must not be.

    Manifest, its copy, pages, records, shards, chunks and sizes are changed and signed anew. Each cache is opened,
    read, looked at row by row, verified, verified in depth, and of some a student learns. A case is a fault where
    anything but a CacheError comes out of it, where it takes more memory or time than it may, starts a program, or
    writes elsewhere.
    """
    import_from_tests()
    import torch
    from material import Material
    from stories import Truth
    from strangers import KINDS

    torch.set_num_threads(1)
    folder = emptied(work / "fuzz")
    truth = Truth(Material(emptied(folder / "material")).grown)
    telling = Telling(truth, folder / "told", given["seed"], given["train_every"])
    limits = Limits(given["megabytes"] << 20, given["seconds"], folder)
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    faults: list[str] = []
    slowest = most = 0.0
    numbers = range(given["first"], given["first"] + given["cases"])
    with console.progress("cases") as bar:
        task = bar.add_task("fuzz", total=len(numbers))
        for outcome in guarded(telling, numbers, limits, folder / "notes.jsonl"):
            kind = outcome.facts.get("kind") or telling.lie(outcome.number).kind
            what = "fault" if outcome.fault is not None else "refused" if outcome.facts["refused"] else "harmless"
            counts[kind][what] += 1
            slowest, most = max(slowest, outcome.seconds), max(most, outcome.grown_bytes)
            if outcome.fault is not None:
                faults.append(keep(telling, outcome, folder / "faults"))
            bar.advance(task)
    columns = ("refused", "harmless", "fault")
    rows = [[kind, sum(found.values()), *(found[column] for column in columns)] for kind, found in counts.items()]
    rows.append(["all", len(numbers), *(sum(found[column] for found in counts.values()) for column in columns)])
    title = f"lies of seed {given['seed']}; longest {slowest:.2f} s, most memory {units.human_bytes(most)}"
    facts = {
        "settings": given,
        "counts": counts,
        "faults": faults,
        "longest_s": slowest,
        "most_bytes": most,
    }
    texts = [report.table(title, ("kind", "cases", *columns), rows), *faults]
    report.conclude(facts, texts, [report.Target("faults", len(faults), 0)], as_json)
