"""A student of a view of fewer copies is that of a cache that holds no others."""

from pathlib import Path
from typing import Any

from click.testing import CliRunner
from safetensors.numpy import load_file
from tiny import config_file

from hskcache.cli import main as hskcache
from trainer.cli import main as hsktrain

# A batch for each row, so that the teacher gives the same bits whatever stands beside it.
KEEP = ("--keep", "2l", "--encoding", "float32", "--student-layers", "2", "--shard-rows", "8", "--token-budget", "1")
RUN = ("--recipe", "mud", "--set", "hidden.epochs=2", "--set", "prediction.epochs=1", "--device", "cpu")


def run(command: Any, *words: object) -> None:
    result = CliRunner().invoke(command, list(map(str, words)), catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_a_student_of_one_copy_is_that_of_a_cache_built_so(
    tsv_file: Path, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    vectors = tmp_path / "vectors.txt"
    words = ("film", "movie", "story", "dull", "charming", "funny", "warm", "short")
    vectors.write_text("".join(f"{word} {len(word)} {n} 1.5\n" for n, word in enumerate(words)))
    rows = tmp_path / "rows.tsv"
    rows.write_text("\n".join(tsv_file.read_text().splitlines()[:41]) + "\n")
    student = config_file(tmp_path, vocab_size=96)
    for copies in (1, 3):
        more, cache = tmp_path / f"{copies}.tsv", tmp_path / f"{copies}.hsk"
        augmented = ("--task", "sst2", "--vectors", vectors, "--probability", 0.9, "--copies", copies, "--out", more)
        run(hskcache, "augment", "--data", rows, *augmented)
        built = ("--teacher", tiny_teacher_dir, "--data", more, "--task", "sst2", "--device", "cpu", *KEEP)
        run(hskcache, "build", *built, "--out", cache)
    weights = {}
    for name, words in {"built": ("1.hsk",), "view": ("3.hsk", "--view", "copies=1"), "all": ("3.hsk",)}.items():
        cache, *view = words
        given = ("--cache", tmp_path / cache, *view, "--student", student, "--eval-data", rows)
        run(hsktrain, "fit", *given, *RUN, "--out", tmp_path / name)
        weights[name] = load_file(tmp_path / name / "model.safetensors")
    for key, array in weights["built"].items():
        assert array.tobytes() == weights["view"][key].tobytes(), key
    assert any(array.tobytes() != weights["all"][key].tobytes() for key, array in weights["built"].items())
