"""Memory that labelled rows take until the teacher runs over them, by their number."""

import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import click

from benchmarks.harness import options, report, synthetic
from benchmarks.harness.jobs import make_spec
from hskcache import console

STEPS = ("read", "tokenized", "laid out")


def own_bytes() -> int:
    """Memory of this process without pages of files, which the system takes back when it needs them."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    if found is None:
        raise click.ClickException("/proc/self/status tells no RssAnon; this runs on Linux")
    return int(found[1]) * 1024


def prepare(file: Path, work: Path) -> list[int]:
    """Read, tokenize and lay out a data set as a build does: most memory until each step ends, above that before."""
    from hskcache.build.job import prepare_job
    from hskcache.text import tokenize
    from hskcache.text.strings import spooling

    teacher = synthetic.random_teacher("tiny", work, "cpu")
    spec = make_spec("1l_10t_0.1h")
    # What is imported and made at first use belongs to no row.
    small = synthetic.read_rows(synthetic.write_rows(work / "few.tsv", synthetic.ragged_lengths(40_000, 128)))
    prepare_job(teacher, small, tokenize(small, teacher.tokenizer, spec.max_length), spec).layout.groups(4096)
    start, most, ended = own_bytes(), [own_bytes()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            most[0] = max(most[0], own_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    peaks = []
    with spooling(work):
        examples = synthetic.read_rows(file)
        peaks.append(max(most[0], own_bytes()) - start)
        rows = tokenize(examples, teacher.tokenizer, spec.max_length)
        peaks.append(max(most[0], own_bytes()) - start)
    job = prepare_job(teacher, examples, rows, spec)
    job.layout.groups(spec.token_budget)
    peaks.append(max(most[0], own_bytes()) - start)
    ended.set()
    watcher.join()
    return peaks


def measured(file: Path, work: Path) -> list[int]:
    """:func:`prepare` in a process of its own."""
    code = (
        "import sys; from pathlib import Path; from benchmarks.rows import prepare; "
        "print(*prepare(*map(Path, sys.argv[1:])))"
    )
    tools = Path(__file__).resolve().parents[1]
    command: list[str | Path] = [sys.executable, "-c", code, file.resolve(), work.resolve()]
    done = subprocess.run(command, cwd=tools, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(done.stderr.strip().splitlines()[-1])
    return [int(word) for word in done.stdout.split()]


@click.command()
@options.count("--rows", 100_000, "Of the smaller data set.")
@options.count("--factor", 3, "How many times as many the larger has.", at_least=2)
@options.work
@options.as_json
def main(work: Path, as_json: bool, **given: Any) -> None:
    """Measure by how much the memory of a build grows with each labelled row until the teacher begins.

    Random words, log-normal lengths. Memory is what the process has for itself: pages of files that it has mapped, as
    texts and tokens are, are taken from it without loss.
    """
    folder = work / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    counts = [given["rows"], given["rows"] * given["factor"]]
    peaks: dict[int, list[int]] = {}
    for count in counts:
        lengths = synthetic.ragged_lengths(count * 40, 128)[:count]
        file = folder / f"{count}.tsv"
        if not file.is_file():
            synthetic.write_rows(file, lengths)
        peaks[count] = measured(file, folder)
    few, many = counts
    growth = [(peaks[many][step] - peaks[few][step]) / (many - few) for step in range(len(STEPS))]
    lines = [
        [name, *(console.human_bytes(peaks[count][step]) for count in counts), f"{growth[step]:.1f}"]
        for step, name in enumerate(STEPS)
    ]
    header = ("most until it is", *(f"{count:,} rows" for count in counts), "bytes a row")
    facts = {"settings": given, "peaks": peaks, "bytes_a_row": dict(zip(STEPS, growth, strict=True))}
    targets = [report.Target("bytes that a further row takes", growth[-1], 64.0)]
    report.conclude(facts, [report.table("memory of a build before the teacher runs", header, lines)], targets, as_json)
