"""Every kind of the tables goes the whole way through the commands, and so does one that is added to them."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pooled
import pytest
import yaml
from click.testing import CliRunner
from commanded import parsed, run
from language_models import language_model

from hskcache.audit.kinds import AUDITED
from hskcache.build.kinds import BUILT
from hskcache.cache import open_cache
from hskcache.decoded import DECODED
from hskcache.describe import DESCRIPTIONS
from hskcache.encoded import ENCODED
from hskcache.encoding import ENCODINGS
from hskcache.errors import SpecError
from hskcache.spec import SECTIONS
from hskcache.store.fields import INPUTS, KINDS, knowledge
from trainer.cli import main as hsktrain
from trainer.loading.kinds import LOADED
from trainer.losses import LOSSES
from trainer.recipe import TERMS
from trainer.source.live_kinds import LIVE

STUDENT = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


LANGUAGE = "vocabulary"
"""The kind that only causal language models have."""

EMBEDDED: dict[str, Any] = {"sentence": {}, "similarity": {}}


def test_every_room_has_every_kind() -> None:
    assert list(KINDS) == list(DESCRIPTIONS) == [INPUTS, *knowledge()]
    for table in (BUILT, DECODED, AUDITED, LOADED, LIVE):
        assert list(table) == knowledge(), table.what
    assert set(SECTIONS) <= set(knowledge())
    assert list(TERMS) == list(LOSSES)
    assert {term.kind for term in TERMS.values()} - {None} == set(knowledge()), "every kind can be learned from"
    assert list(ENCODED) == list(ENCODINGS)


@pytest.mark.parametrize(
    ("table", "word", "near"),
    [(KINDS, "hiden", "hidden"), (ENCODED, "int88", "int8"), (BUILT, "atention", "attention"), (LOSSES, "sof", "soft")],
)
def test_a_word_that_is_in_no_table_is_refused_with_those_that_are(table: Any, word: str, near: str) -> None:
    with pytest.raises(SpecError, match=f"'{word}' is not a.*use one of .*; do you mean '{near}'"):
        table[word]


@pytest.fixture
def added() -> Iterator[None]:
    with pooled.registered():
        yield


def test_the_kinds_of_hskcache_go_the_whole_way(tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path) -> None:
    whole_way(tiny_teacher_dir, tsv_file, tmp_path, {"hidden": {}, "attention": {}, "soft": {}} | EMBEDDED)


@pytest.mark.usefixtures("added")
def test_a_kind_that_is_added_to_the_tables_goes_the_whole_way(
    tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path
) -> None:
    losses = {"hidden": {}, "attention": {}, "soft": {}, "pooled": {}}
    whole_way(tiny_teacher_dir, tsv_file, tmp_path, losses | EMBEDDED)


@pytest.mark.parametrize("form", [{"form": "top", "count": 8}, {"form": "head"}])
def test_next_tokens_go_the_whole_way(form: dict[str, Any], tmp_path: Path) -> None:
    """They are of rows of a language model, and no classifier has them."""
    teacher, texts = language_model(tmp_path / "teacher"), tmp_path / "texts.txt"
    texts.write_text("".join(f"Text {number} says {number * number}, and no more.\n\n" for number in range(60)))
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump({"hidden": None, "vocabulary": form, "shard_rows": 20, "max_length": 48}))
    sources = ("--teacher", teacher, "--corpus", texts, "--device", "cpu")
    cache = tmp_path / "c"
    done("build", *sources, "--spec", spec, "--out", cache)
    checked(cache, tmp_path, [LANGUAGE], sources)
    spec.write_text(spec.read_text().replace("shard_rows: 20", "shard_rows: 30"))
    compared(cache, tmp_path, [LANGUAGE], (*sources, "--spec", spec))


def test_without_its_entries_a_kind_is_unknown(tiny_teacher_dir: Path, tsv_file: Path, tmp_path: Path) -> None:
    spec = spec_file(tmp_path, ["hidden", "pooled"])
    given = (
        "--teacher",
        tiny_teacher_dir,
        "--data",
        tsv_file,
        "--task",
        "sst2",
        "--spec",
        spec,
        "--out",
        tmp_path / "c",
    )
    refused = run("build", *given).stderr
    assert "pooled: there is no such key; there are hidden, attention, " in refused
    assert "embedding" in refused
    with pooled.registered():
        done("build", *given, "--device", "cpu")
    result = run("info", tmp_path / "c")
    assert result.exit_code == 2
    assert "pooled" in result.stderr


def done(*args: object) -> None:
    result = run(*args)
    assert result.exit_code == 0, result.output


def spec_file(folder: Path, kinds: list[str]) -> Path:
    """A spec that keeps some kinds, in small shards."""
    spec: dict[str, Any] = {name: {} for name in ("hidden", "attention", "embedding", "pooled") if name in kinds}
    for kept in ("hidden", "attention"):
        if kept in spec:
            spec[kept] = {"depth": {"student_layers": 2}, "length": {"tokens": 6}}
    if "embedding" in spec:
        spec["embedding"] = {"pooling": "mean", "normalize": True, "dims": 20, "encoding": "int8"}
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec | {"shard_rows": 40, "max_length": 48}))
    return path


def whole_way(teacher: Path, data: Path, folder: Path, losses: dict[str, Any]) -> None:
    """Build, verify, info, view, diff, audit, export, import, repair, load and learn, kind by kind."""
    cache, sources = folder / "c", ("--teacher", teacher, "--data", data, "--device", "cpu", "--task", "sst2")
    kinds = [kind for kind in knowledge() if kind != LANGUAGE]
    spec = spec_file(folder, kinds)
    done("build", *sources, "--spec", spec, "--out", cache)
    checked(cache, folder, kinds, sources)
    spec.write_text(spec.read_text().replace("shard_rows: 40", "shard_rows: 30"))
    compared(cache, folder, kinds, (*sources, "--spec", spec))
    learned(cache, folder, data, losses)


def checked(cache: Path, folder: Path, kinds: list[str], sources: tuple[object, ...]) -> None:
    """Verify, info, view, stats, audit, export, import and repair, kind by kind."""
    opened, teacher = open_cache(cache), sources[1]
    assert list(opened.fields) == [INPUTS, *kinds]
    assert parsed("verify", cache, "--deep")["ok"]
    assert set(parsed("info", cache)["fields"]) == {INPUTS, *kinds}
    told(cache, kinds)
    report = parsed("audit", cache, "--teacher", teacher, "--device", "cpu", "--rows", "30")
    assert report["ok"]
    assert {layer["kind"] for layer in report["layers"]} == set(kinds)
    exported(cache, folder)
    for kind in kinds:
        mended(cache, folder / f"mended-{kind}", kind, sources)


def told(cache: Path, kinds: list[str]) -> None:
    """A row is told by every kind."""
    row, facts = open_cache(cache).row(3), parsed("view", cache, 3)
    assert set(kinds) <= row.keys()
    assert all(facts[DESCRIPTIONS[kind].key] for kind in kinds)
    assert {one["kind"] for one in parsed("stats", cache)["values"]} == set(kinds)
    shown = run("view", cache, 3)
    assert shown.exit_code == 0
    assert LANGUAGE in kinds or "logits" in shown.stdout


def compared(cache: Path, folder: Path, kinds: list[str], sources: tuple[object, ...]) -> None:
    """The same cache is the same; one of the same knowledge, as these sources build it, has the same values."""
    assert parsed("diff", cache, cache)["same"]
    done("build", *sources, "--out", folder / "other")
    found = parsed("diff", cache, folder / "other", code=1)
    assert {one["field"] for one in found["values"]} == set(kinds)
    for one in found["values"]:
        assert one["num_values"] > 0
        assert one["mean_abs"] < 1e-3, one["field"]


def exported(cache: Path, folder: Path) -> None:
    """HDF5 and back give the same bytes, and the file tells of every array what it is."""
    import h5py

    done("export", cache, folder / "c.h5")
    with h5py.File(folder / "c.h5") as file:
        for name in open_cache(cache).fields:
            datasets: list[Any] = []
            file[name].visititems(lambda _name, found, into=datasets: into.append(found))
            arrays = [one for one in datasets if isinstance(one, h5py.Dataset)]
            assert arrays
            assert all(one.attrs["about"] for one in arrays), name
    done("import", folder / "c.h5", folder / "again")
    assert open_cache(folder / "again").id == open_cache(cache).id
    assert parsed("verify", folder / "again", "--deep")["ok"]


def mended(cache: Path, copy: Path, kind: str, sources: tuple[object, ...]) -> None:
    """A shard that is lost is computed again, byte for byte."""
    shutil.copytree(cache, copy)
    path = sorted(copy.glob(f"{kind}/*.zarr.zip"))[0]
    before = path.read_bytes()
    path.unlink()
    assert parsed("verify", copy, code=1)["problems"][0]["field"] == kind
    done("repair", copy, *sources)
    assert path.read_bytes() == before


def learned(cache: Path, folder: Path, data: Path, losses: dict[str, Any]) -> None:
    """A student learns from every kind, and every term of its loss falls."""
    recipe = {"name": "every", "stages": [{"name": "one", "losses": losses, "epochs": 3, "learning_rate": 1e-3}]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "config.json").write_text(json.dumps(STUDENT))
    words = ["fit", "--cache", cache, "--student", folder / "config.json", "--recipe", folder / "recipe.yaml"]
    words += ["--eval-data", data, "--task", "sst2", "--device", "cpu", "--out", folder / "student"]
    result = CliRunner().invoke(hsktrain, [*map(str, words)])
    assert result.exit_code == 0, result.output
    assert (folder / "student" / "model.safetensors").is_file()
    (stage,) = json.loads((folder / "student" / "metrics.json").read_text())["stages"]
    assert set(stage["losses"]) == set(losses)
