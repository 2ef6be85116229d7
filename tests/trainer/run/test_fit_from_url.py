"""Training from a URL is training from the same cache on this machine: the same batches, and the same student."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import children
import fsspec
import pytest
import torch
from click.testing import CliRunner, Result
from servers import s3_server
from stored import plain
from tiny import CPU, PREDICTION, fit_of, recipe_of, weights_of
from unsteady import Unsteady, serving

from hskcache.cache import Cache
from hskcache.errors import CacheError, DamageError, SpecError
from hskcache.remote.mirror import open_mirror
from hskcache.remote.remote import open_remote
from trainer.batch import Batch
from trainer.cli import main as hsktrain
from trainer.loading import KnowledgeLoader
from trainer.run.fit import fit
from trainer.source.source import Local, Slice, cached_source

RECIPE = recipe_of(all=PREDICTION | {"losses": {"hidden": {}, "soft": {}}, "batch_size": 8})
NUM_ROWS, NUM_SHARDS, NUM_FILES = 40, 8, 24


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HSKCACHE_RETRY_S", "0.2")
    monkeypatch.setenv("HSKCACHE_LOCAL", str(tmp_path / "local"))


@pytest.fixture(scope="module")
def original(written: Callable[..., Cache]) -> Cache:
    """Eight shards of inputs, logits and hidden states."""
    return written(num_rows=NUM_ROWS, attention=False)


@pytest.fixture
def server(original: Cache) -> Iterator[Unsteady]:
    with serving(original.root) as running:
        yield running


def window_bytes(cache: Cache) -> int:
    """Of the four largest shards, which are a window."""
    shards = cache.manifest.shards
    return sum(sorted(sum(shards[name][shard].num_bytes for name in shards) for shard in range(NUM_SHARDS))[-4:])


def bound_of(cache: Cache) -> int:
    """A window, and what is kept beside it."""
    beside = [cache.root / "manifest.json", *cache.tokenizer_path.iterdir(), *cache.root.glob("*/index/*")]
    return window_bytes(cache) + sum(path.stat().st_size for path in beside) + 1000


def content(batches: list[Batch]) -> list[Any]:
    return [
        (
            batch.row_ids,
            {name: tensor.tolist() for name, tensor in batch.inputs.items()},
            [] if batch.logits is None else batch.logits.tolist(),
            {layer: (kept.index_P.tolist(), kept.values_PW.tolist()) for layer, kept in batch.hidden.items()},
        )
        for batch in batches
    ]


def loaded(cache: Cache, residency: Any, num_epochs: int = 2) -> list[Any]:
    loader = KnowledgeLoader(cache, residency=residency, batch_size=8, seed=3)
    return [content(list(loader)) for _ in range(num_epochs)]


@pytest.mark.parametrize("residency", ["stream", "host"])
@pytest.mark.parametrize("bounded", [False, True])
def test_batches_are_those_of_the_local_cache(
    residency: Any, bounded: bool, original: Cache, server: Unsteady, tmp_path: Path
) -> None:
    most_bytes = bound_of(original) if bounded else 10**9
    mirror = open_mirror(server.url, tmp_path, most_bytes)
    assert loaded(mirror, residency) == loaded(original, residency)
    kept = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert kept <= most_bytes
    if residency == "host" or not bounded:
        assert len(server.shards_begun) == NUM_FILES
        assert set(server.shards_begun.values()) == {1}


@contextmanager
def on_s3(original: Cache) -> Iterator[str]:
    with s3_server() as server, pytest.MonkeyPatch.context() as patch:
        # Not as impatient as elsewhere: on a busy machine it may take a while to answer.
        for name, value in {**server.environment, "HSKCACHE_RETRY_S": "30"}.items():
            patch.setenv(name, value)
        # fsspec keeps its clients, and the variables that name a server are none of what it tells them apart by.
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        remote = open_remote(f"{server.url}/sst2.hsk")
        for path in original.root.rglob("*"):
            if path.is_file():
                remote.write(path.relative_to(original.root).as_posix(), path.read_bytes())
        yield remote.url


@contextmanager
def in_a_folder(original: Cache) -> Iterator[str]:
    yield f"file://{original.root}"


@pytest.mark.parametrize("place", [in_a_folder, on_s3])
def test_batches_from_a_folder_or_a_bucket_are_those_of_the_local_cache(
    place: Callable[[Cache], AbstractContextManager[str]], original: Cache, tmp_path: Path
) -> None:
    with place(original) as url:
        source = cached_source(url, "stream", local=Local(tmp_path, bound_of(original)))
        assert source.identity == cached_source(original.root).identity
        loader = source.loader(RECIPE.stages[0].losses, Slice(8, 0, 1, 1, "cpu"), 3)
        theirs = cached_source(original.root, "stream").loader(RECIPE.stages[0].losses, Slice(8, 0, 1, 1, "cpu"), 3)
        assert [content(list(loader)) for _ in range(2)] == [content(list(theirs)) for _ in range(2)]


def test_batches_of_an_epoch_that_goes_on_in_its_middle_are_those_of_the_local_cache(
    original: Cache, server: Unsteady, tmp_path: Path
) -> None:
    """Rows that the first window left over are fetched again; no shard besides is."""
    mirror = open_mirror(server.url, tmp_path)
    ours, theirs = (KnowledgeLoader(cache, residency="stream", batch_size=6) for cache in (mirror, original))
    for loader in (ours, theirs):
        loader.seek(0, 4)
    assert content(list(ours)) == content(list(theirs))
    assert set(server.shards_begun.values()) == {1}


def test_altered_bytes_are_never_trained_on(original: Cache, server: Unsteady, tmp_path: Path) -> None:
    server.altered = {"hidden/000005.zarr.zip"}
    loader = KnowledgeLoader(open_mirror(server.url, tmp_path), residency="stream", batch_size=4)
    seen: list[int] = []

    def consume() -> None:
        for batch in loader:
            seen.extend(batch.row_ids)

    with pytest.raises(DamageError, match=r"hidden/000005-\w+\.zarr\.zip has another content"):
        consume()
    assert not set(seen) & set(range(*original.shards[5]))


def stop_after(job_score: Any, count: int) -> Any:
    """The score of a run, which is interrupted the n-th time it is asked for."""
    left = [count]

    def score(model: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return job_score(model)

    return score


@pytest.fixture(scope="module")
def weights(
    original: Cache, tsv_file: Path, narrow: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, torch.Tensor]:
    """The student that a run over the local cache gives, never cut off."""
    out = tmp_path_factory.mktemp("whole")
    fit(fit_of(original.root, tsv_file, narrow, RECIPE), out, CPU)
    return weights_of(out)


@pytest.mark.parametrize("begun_at", ["url", "path"])
def test_a_run_that_was_begun_in_one_place_goes_on_in_the_other(
    begun_at: str,
    original: Cache,
    server: Unsteady,
    weights: dict[str, torch.Tensor],
    tsv_file: Path,
    narrow: Path,
    tmp_path: Path,
) -> None:
    def job(cache: Any) -> Any:
        return fit_of(cache, tsv_file, narrow, RECIPE)

    places = [server.url, original.root] if begun_at == "url" else [original.root, server.url]
    first = job(places[0])
    cut = fit_of(places[0], tsv_file, narrow, RECIPE, score=stop_after(first.score, 2))
    with pytest.raises(KeyboardInterrupt):
        fit(cut, tmp_path / "out", CPU)
    fit(job(places[1]), tmp_path / "out", CPU)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in weights_of(tmp_path / "out").items())


def train_in_one_of_several(url: str, data: Path, student: Path, out: Path) -> None:
    fit(fit_of(url, data, student, RECIPE), out, CPU)


def test_processes_that_train_together_fetch_each_file_once(
    server: Unsteady, tsv_file: Path, narrow: Path, tmp_path: Path
) -> None:
    server.pause_s = 0.005
    assert children.together(train_in_one_of_several, server.url, tsv_file, narrow, tmp_path / "out") == [0, 0]
    assert len(server.shards_begun) == NUM_FILES
    assert set(server.shards_begun.values()) == {1}


def test_a_folder_that_may_hold_less_than_a_window_is_refused_before_anything_is_fetched(
    original: Cache, server: Unsteady, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=r"--local-bytes: the shards that are read at once need .*; give 1MB or more"):
        cached_source(server.url, local=Local(tmp_path, window_bytes(original)))
    assert server.shards_begun == {}
    cached_source(server.url, local=Local(tmp_path, bound_of(original)))


@pytest.fixture
def command(tsv_file: Path, narrow: Path, tmp_path: Path) -> Callable[..., Result]:
    """``hsktrain fit`` with what every run needs."""

    def call(cache: object, *args: object, out: str = "out") -> Result:
        given = ["--cache", cache, "--student", narrow, "--eval-data", tsv_file, "--out", tmp_path / out]
        given += ["--device", "cpu", "--recipe", "logits", "--set", "prediction.epochs=2", "--residency", "stream"]
        given += ["--set", "prediction.batch_size=8", "--save-steps", 1]
        return CliRunner().invoke(hsktrain, ["fit", *map(str, [*given, *args])], catch_exceptions=False)

    return call


def test_a_server_that_is_gone_ends_the_command_in_one_line_and_the_same_command_goes_on(
    original: Cache, server: Unsteady, command: Callable[..., Result], tmp_path: Path
) -> None:
    """It no longer gives the last shard of the epoch, by when there are checkpoints."""
    local = ["--local-dir", tmp_path / "mine", "--local-bytes", "500 kB", "--json"]
    shard = [window.shards for window in KnowledgeLoader(original, batch_size=8).plan.windows(0)][-1][-1]
    server.refused = {f"logits/{shard:06d}.zarr.zip"}
    cut = command(server.url, *local)
    assert cut.exit_code == 2, cut.stderr
    errors = [line for line in cut.stderr.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert f"{server.url}/logits/{shard:06d}.zarr.zip is out of reach" in plain(errors[0])
    assert "run the same command again" in errors[0]
    assert "Traceback" not in cut.stderr
    assert list((tmp_path / "out").glob("stages/*/checkpoints/checkpoint-*/loader.json"))

    server.refused = set()
    whole = command(server.url, *local)
    assert whole.exit_code == 0, whole.stderr
    assert "going on from step" in whole.stderr
    assert json.loads(whole.stdout) == json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert command(original.root, out="whole").exit_code == 0
    ours, theirs = weights_of(tmp_path / "out"), weights_of(tmp_path / "whole")
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert not (tmp_path / "local").exists()


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["--local-bytes", "much"], "--local-bytes 'much' is not a size; give one such as 500MB or 20GB"),
        (["--local-bytes", "0"], "is not a size"),
        (["--local-bytes", "2 kB"], "give 1MB or more"),
    ],
)
def test_a_bound_that_is_none_is_refused(
    args: list[str], complaint: str, server: Unsteady, command: Callable[..., Result], tmp_path: Path
) -> None:
    result = command(server.url, *args)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert not (tmp_path / "out").exists()


def test_options_of_urls_are_refused_where_there_is_none(original: Cache, command: Callable[..., Result]) -> None:
    result = command(original.root, "--local-bytes", "1GB")
    assert result.exit_code == 2
    assert "--local-bytes is for a cache at a URL" in result.stderr


def test_a_url_without_a_cache_is_told_in_one_line(server: Unsteady, command: Callable[..., Result]) -> None:
    result = command(f"{server.url}/nothing")
    assert result.exit_code == 2
    assert f"{server.url}/nothing has no manifest.json" in result.stderr


def test_the_cache_that_was_trained_on_once_needs_no_server(
    original: Cache, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def batches() -> list[Any]:
        source = cached_source(running.url, "stream")
        assert Path(source.tokenizer, "tokenizer.json").is_file()
        return content(list(source.loader(RECIPE.stages[0].losses, Slice(8, 0, 1, 1, "cpu"), 0)))

    with serving(original.root) as running:
        first = batches()
    assert batches() == first
    assert f"going on with cache {original.id[:12]}" in capsys.readouterr().err
    with pytest.raises(CacheError, match="out of reach"):
        cached_source(running.url, local=Local(tmp_path / "elsewhere"))
