"""Memory that labelled rows take until the teacher runs over them, by their number."""

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.harness import options, report, synthetic
from benchmarks.harness.jobs import built, make_job, make_spec
from hskcache import units

if TYPE_CHECKING:
    from hskcache.build.job import Job

STEPS = ("read", "tokenized", "laid out")


def own_bytes() -> int:
    """Memory of this process without pages of files, which the system takes back when it needs them."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    if found is None:
        raise click.ClickException("/proc/self/status tells no RssAnon; this runs on Linux")
    return int(found[1]) * 1024


@contextmanager
def peaks() -> Iterator[Callable[[], int]]:
    """Yields what tells the most memory since the beginning, above that at the beginning."""
    start, most, ended = own_bytes(), [own_bytes()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            most[0] = max(most[0], own_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: max(most[0], own_bytes()) - start
    finally:
        ended.set()
        watcher.join()


def few(work: Path) -> Path:
    """A small data set: what is imported and made at first use belongs to no row."""
    return synthetic.write_rows(work / "few.tsv", synthetic.ragged_lengths(40_000, 128))


def grouped(job: "Job") -> list[range]:
    """The shards that a build computes together, which are all that is laid out before the teacher begins."""
    from hskcache.build.batching import batching_of

    return batching_of(job).groups


def prepare(file: Path, work: Path) -> list[int]:
    """Read, tokenize and lay out a data set as a build does: most memory until each step ends, above that before."""
    from hskcache.build.job import prepare_job
    from hskcache.text import tokenize
    from hskcache.text.strings import spooling

    teacher = synthetic.random_teacher("tiny", work, "cpu")
    spec = make_spec("1l_10t_0.1h")
    small = synthetic.read_rows(few(work))
    grouped(prepare_job(teacher, small, tokenize(small, teacher.tokenizer, spec.max_length), spec))
    found = []
    with peaks() as most:
        with spooling(work):
            examples = synthetic.read_rows(file)
            found.append(most())
            rows = tokenize(examples, teacher.tokenizer, spec.max_length)
            found.append(most())
        job = prepare_job(teacher, examples, rows, spec)
        grouped(job)
        found.append(most())
    return found


def prepare_append(file: Path, work: Path) -> list[int]:
    """The same of rows that are appended to a cache of few rows, of which the last step alone is known."""
    from hskcache.build.append import check_append
    from hskcache.build.request import Texts
    from hskcache.cli.parts import make_part_job
    from hskcache.teacher.load import load_teacher
    from hskcache.text.layout import Layout

    teacher, folder = synthetic.random_teacher("tiny", work, "cpu"), work / "teacher"
    for part in (teacher.model, teacher.tokenizer):
        part.save_pretrained(folder)
    spec = make_spec("1l_10t_0.1h").model_copy(update={"shard_rows": 256})
    cache = built(make_job(load_teacher(str(folder), "cpu"), synthetic.read_rows(few(work)), spec), work / "few.hsk")
    layout = Layout(text="sentence", label="label")

    def append(rows: Path) -> None:
        job = make_part_job(cache, str(folder), "cpu", Texts(str(rows), layout), work / "spool")
        check_append(job, cache, again=True)
        grouped(job)

    append(few(work))
    with peaks() as most:
        append(file)
        return [most()]


def measured(function: str, file: Path, work: Path) -> list[int]:
    """:func:`prepare` or :func:`prepare_append` in a process of its own."""
    code = (
        f"import sys; from pathlib import Path; from benchmarks.rows import {function}; "
        f"print(*{function}(*map(Path, sys.argv[1:])))"
    )
    tools = Path(__file__).resolve().parents[1]
    command: list[str | Path] = [sys.executable, "-c", code, file.resolve(), work.resolve()]
    done = subprocess.run(command, cwd=tools, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(done.stderr.strip().splitlines()[-1])
    return [int(word) for word in done.stdout.split()]


@click.command()
@options.count("--rows", 100_000, "Of the smaller data set.")
@click.option("--append", is_flag=True, help="Of rows that are appended to a cache of few.")
@options.count("--factor", 3, "How many times as many the larger has.", at_least=2)
@options.work
@options.as_json
def main(work: Path, append: bool, as_json: bool, **given: Any) -> None:
    """Measure by how much the memory of a build or an append grows with each labelled row until the teacher begins.

    Random words, log-normal lengths. Memory is what the process has for itself: pages of files that it has mapped, as
    texts and tokens are, are taken from it without loss.
    """
    folder = work / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    function, steps = ("prepare_append", STEPS[-1:]) if append else ("prepare", STEPS)
    counts = [given["rows"], given["rows"] * given["factor"]]
    peaks: dict[int, list[int]] = {}
    for count in counts:
        lengths = synthetic.ragged_lengths(count * 40, 128)[:count]
        file = folder / f"{count}.tsv"
        if not file.is_file():
            synthetic.write_rows(file, lengths)
        peaks[count] = measured(function, file, folder)
    small, large = counts
    growth = [(peaks[large][step] - peaks[small][step]) / (large - small) for step in range(len(steps))]
    lines = [
        [name, *(units.human_bytes(peaks[count][step]) for count in counts), f"{growth[step]:.1f}"]
        for step, name in enumerate(steps)
    ]
    header = ("most until it is", *(f"{count:,} rows" for count in counts), "bytes a row")
    bytes_a_row = dict(zip(steps, growth, strict=True))
    facts = {"settings": given | {"append": append}, "peaks": peaks, "bytes_a_row": bytes_a_row}
    targets = [report.Target("bytes that a further row takes", growth[-1], 64.0)]
    title = f"memory of {'an append' if append else 'a build'} before the teacher runs"
    report.conclude(facts, [report.table(title, header, lines)], targets, as_json)
