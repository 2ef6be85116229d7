"""However many processes write a cache, whenever they start and whichever of them die, its bytes are the same."""

import errno
import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import contents
from forked import Hook, heard, in_child, start
from torch.distributed.launcher.api import elastic_launch
from torch.distributed.run import config_from_args, parse_args

from hskcache.build.batching import batching_of
from hskcache.build.build import build
from hskcache.build.job import Job
from hskcache.cache import open_cache
from hskcache.cli import main
from hskcache.errors import CacheError, MismatchError
from hskcache.store.claims import CLAIMS
from hskcache.store.ledger import Ledger
from hskcache.verify import verify


def code_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Gate:
    """Holds each process up when it commits its first shard of a field, until the gate is opened."""

    def __init__(self, field: str = "logits") -> None:
        self.field = field
        self.here, self.go = os.pipe(), os.pipe()

    def hook(self) -> Hook:
        held = False

        def hold(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal held
            # Files appear by a rename, which Python reports to audit hooks before it happens.
            if event == "os.rename" and not held and re.search(rf"/{self.field}/[0-9]+\.json$", str(arguments[1])):
                held = True
                os.write(self.here[1], b"x")
                os.read(self.go[0], 1)

        return hold

    def wait(self, count: int) -> None:
        """Until so many processes are held up."""
        heard(self.here[0], count)

    def open(self, count: int) -> None:
        os.write(self.go[1], b"x" * count)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_number_of_processes_writes_the_same_bytes(job: Job, whole: Path, tmp_path: Path, count: int) -> None:
    """All of them at once: each is held up at its first shard until every other one has a shard, too."""
    gate, out = Gate(), tmp_path / "c"
    children = [start(lambda: build(job, out), gate.hook()) for _ in range(count)]
    gate.wait(count)
    gate.open(count)
    assert [code_of(child) for child in children] == [0] * count
    assert contents(out) == contents(whole)


def test_what_a_killed_process_had_claimed_is_written_by_another(job: Job, whole: Path, tmp_path: Path) -> None:
    """It dies with a shard written but not recorded and half a record beside it."""
    gate, out, seen = Gate(), tmp_path / "c", os.pipe()
    killed = start(lambda: build(job, out), gate.hook())
    gate.wait(1)

    def report(num_rows: int) -> None:
        os.write(seen[1], bytes([num_rows]))

    other = start(lambda: build(job, out, report))
    rows = 0
    # The killed one has claimed two shards of five rows: one is being written, the other computed.
    while rows < len(job.rows) - 10:
        rows += heard(seen[0])[0]
    assert list(out.rglob("*.tmp")) != []
    os.kill(killed, signal.SIGKILL)
    assert code_of(killed) == -signal.SIGKILL
    assert code_of(other) == 0
    os.close(seen[1])
    assert rows + sum(os.read(seen[0], 1000)) == len(job.rows)
    assert contents(out) == contents(whole)


def test_a_run_with_another_number_of_processes_finishes_the_work(job: Job, whole: Path, tmp_path: Path) -> None:
    gate, out = Gate(), tmp_path / "c"
    children = [start(lambda: build(job, out), gate.hook()) for _ in range(3)]
    gate.wait(3)
    for child in children:
        os.kill(child, signal.SIGKILL)
    assert [code_of(child) for child in children] == [-signal.SIGKILL] * 3
    with pytest.raises(MismatchError, match="cut off"):
        open_cache(out)
    children = [start(lambda: build(job, out)) for _ in range(2)]
    assert [code_of(child) for child in children] == [0, 0]
    assert contents(out) == contents(whole)


def test_another_build_cannot_join_and_touches_nothing(job: Job, job_of: Any, whole: Path, tmp_path: Path) -> None:
    gate, out = Gate(), tmp_path / "c"
    child = start(lambda: build(job, out), gate.hook())
    gate.wait(1)
    before = contents(out)
    with pytest.raises(MismatchError, match=r"was begun with spec\..* and this build asks for"):
        build(job_of("1l_4t"), out)
    assert contents(out) == before
    gate.open(1)
    assert code_of(child) == 0
    assert contents(out) == contents(whole)


def test_what_the_last_process_left_that_was_killed_is_removed(job: Job, whole: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "c"))
    (out / CLAIMS).touch()
    build(job, out)
    assert contents(out) == contents(whole)


def test_a_folder_that_a_killed_start_left_can_be_built_in(job: Job, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / CLAIMS).touch()
    build(job, tmp_path / "c")
    assert contents(tmp_path / "c") == contents(whole)


def test_an_error_of_the_thread_that_writes_ends_the_build_within_the_shard(job_of: Any, tmp_path: Path) -> None:
    """The teacher waits in the second shard until the first could not be written, and is then asked for little more."""
    job = job_of("none", shard_rows=20, token_budget=12)
    first, second = (len(list(batching_of(job).batches(start, stop))) for start, stop in job.layout.shards)
    failed, batches = threading.Event(), 0

    def full(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and str(arguments[1]).endswith("/logits/000000.json"):
            failed.set()
            raise OSError(errno.ENOSPC, "No space left on device", str(arguments[1]))

    def slow(_module: Any, _arguments: Any) -> None:
        nonlocal batches
        batches += 1
        if batches > first:
            failed.wait()
            time.sleep(0.02)

    def run() -> None:
        job.teacher.model.register_forward_pre_hook(slow)
        with pytest.raises(CacheError, match="No space left on device"):
            build(job, tmp_path / "c")
        assert first < batches < first + second // 2

    assert in_child(run, full) == 0
    assert not Ledger(tmp_path / "c").is_committed("logits", 1)


def command(arguments: tuple[object, ...], environment: dict[str, str] | None = None) -> Callable[[], None]:
    """The command line, to be run in a child."""

    def run() -> None:
        torch.set_num_threads(1)
        os.environ.update(environment or {})
        try:
            main([*map(str, arguments)])
        except SystemExit as end:
            os._exit(end.code if isinstance(end.code, int) else 1)

    return run


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "corpus.txt"
    path.write_text("the film is charming\nits plot is a waste\n\n" * 40, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def of_corpus(text: Path, tiny_teacher_dir: Path) -> tuple[object, ...]:
    keep = ("--keep", "3t_0.25h", "--width", "pca", "--attention", "3t", "--max-length", 16, "--shard-rows", 4)
    # Too few tokens for shards to share batches, so that there are many to divide.
    keep += ("--token-budget", 16)
    return ("build", "--teacher", tiny_teacher_dir, "--corpus", text, *keep, "--out")


@pytest.fixture(scope="module")
def whole_of_corpus(of_corpus: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of it."""
    out = tmp_path_factory.mktemp("corpus") / "c"
    assert in_child(command((*of_corpus, out))) == 0
    return out


def test_commands_started_by_hand_share_the_rows_of_a_corpus_and_its_shards(
    of_corpus: tuple[object, ...], whole_of_corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gate, out = Gate("hidden"), tmp_path / "c"
    children = [start(command((*of_corpus, out, "--json")), gate.hook()) for _ in range(3)]
    gate.wait(3)
    gate.open(3)
    assert [code_of(child) for child in children] == [0] * 3
    assert contents(out) == contents(whole_of_corpus)
    assert verify(out).ok
    # Nothing told them of each other, so each says what there is now.
    assert capfd.readouterr().out.count(open_cache(out).id) == 3


def test_of_a_corpus_build_with_one_process_killed_the_rest_is_finished(
    of_corpus: tuple[object, ...], whole_of_corpus: Path, tmp_path: Path
) -> None:
    gate, out = Gate("hidden"), tmp_path / "c"
    children = [start(command((*of_corpus, out)), gate.hook()) for _ in range(2)]
    gate.wait(2)
    os.kill(children[0], signal.SIGKILL)
    assert code_of(children[0]) == -signal.SIGKILL
    gate.open(1)
    assert code_of(children[1]) == 0
    assert contents(out) == contents(whole_of_corpus)


def test_of_several_ranks_the_first_speaks_and_every_error_tells_its_rank(
    tsv_file: Path, tiny_teacher_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ("build", "--teacher", tiny_teacher_dir, "--data", tsv_file, "--task", "sst2", "--keep", "none")
    arguments += ("--shard-rows", 16, "--json", "--out", tmp_path / "c")
    ranks = [{"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    children = [start(command(arguments, environment)) for environment in ranks]
    assert [code_of(child) for child in children] == [0, 0]
    told = capfd.readouterr()
    assert json.loads(told.out)["cache_id"] == open_cache(tmp_path / "c").id
    assert told.err.count("complete") == 1
    assert in_child(command((*arguments, "--max-length", 8), ranks[1])) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: rank 1: {tmp_path / 'c'} was begun with spec.max_length = 64")


def hskcache(*arguments: str) -> None:
    """The command line in a process that goes on afterwards."""
    torch.set_num_threads(1)
    main(arguments, standalone_mode=False)


def test_processes_that_the_agent_of_torchrun_starts_divide_the_shards_and_the_first_speaks(
    tsv_file: Path, tiny_teacher_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Forked by the agent, which is the whole of torchrun, so that none imports torch anew."""
    arguments = ["build", "--teacher", str(tiny_teacher_dir), "--data", str(tsv_file), "--task", "sst2"]
    arguments += ["--keep", "4t_0.25h", "--width", "pca", "--shard-rows", "4", "--json", "--out"]
    assert in_child(command((*arguments, tmp_path / "alone"))) == 0
    capfd.readouterr()
    # What --standalone stands for.
    flags = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--nproc-per-node", "2"]
    config, _, _ = config_from_args(parse_args([*flags, "-m", "hskcache"]))
    config.start_method = "fork"
    assert in_child(lambda: elastic_launch(config, hskcache)(*arguments, str(tmp_path / "c"))) == 0
    assert json.loads(capfd.readouterr().out)["cache_id"] == open_cache(tmp_path / "alone").id
    assert contents(tmp_path / "c") == contents(tmp_path / "alone")
