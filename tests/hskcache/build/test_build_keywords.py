"""A build by keywords is the build of the same command, whatever holds the rows."""

import shutil
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pytest
from commanded import run
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import hskcache
from hskcache.errors import CacheError, DataError, SpecError
from hskcache.spec import Hidden, Length, Spec
from hskcache.verify import verify

OPTIONS: dict[str, Any] = {"task": "sst2", "keep": "1l_3t_0.25h", "shard_rows": 20, "device": "cpu"}


@pytest.fixture(scope="module")
def frame(tsv_file: Path) -> pd.DataFrame:
    return pd.read_csv(tsv_file, sep="\t", quoting=3)


@pytest.fixture(scope="module")
def by_command(tiny_teacher_dir: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> hskcache.Cache:
    out = tmp_path_factory.mktemp("command") / "c"
    flags = ("--task", "sst2", "--keep", "1l_3t_0.25h", "--shard-rows", 20, "--device", "cpu")
    assert run("build", "--teacher", tiny_teacher_dir, "--data", tsv_file, *flags, "--out", out).exit_code == 0
    return hskcache.open_cache(out)


FORMS: dict[str, Any] = {
    "a data set": lambda frame: datasets.Dataset.from_pandas(frame),
    "a frame": lambda frame: frame,
    "a frame of other types": lambda frame: frame.astype({"sentence": "category", "label": float}),
    "a table": lambda frame: pa.Table.from_pandas(frame),
    "lists by column": lambda frame: frame.to_dict("list"),
    "arrays by column": lambda frame: {name: frame[name].to_numpy() for name in frame},
    "rows": lambda frame: frame.to_dict("records"),
}


@pytest.mark.parametrize("form", [*FORMS, "a file"])
def test_the_same_rows_give_the_same_cache(
    form: str, by_command: hskcache.Cache, frame: pd.DataFrame, tsv_file: Path, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    cache = hskcache.build(
        tiny_teacher_dir, FORMS[form](frame) if form in FORMS else tsv_file, out=tmp_path / "c", **OPTIONS
    )
    assert cache.id == by_command.id
    assert verify(cache.root).ok
    named = str(tsv_file) if form == "a file" else "the rows in memory"
    assert cache.manifest.request.data.name == named


def test_a_model_in_memory_is_the_model_of_its_folder(
    by_command: hskcache.Cache, frame: pd.DataFrame, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_teacher_dir).train()
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher_dir)
    cache = hskcache.build(model, frame, tokenizer=tokenizer, out=tmp_path / "c", **OPTIONS)
    assert cache.id == by_command.id
    assert cache.manifest.request.teacher.name == str(tiny_teacher_dir)
    assert model.training
    with pytest.raises(SpecError, match="a tokenizer is for a model in memory"):
        hskcache.build(tiny_teacher_dir, frame, tokenizer=tokenizer, out=tmp_path / "d", **OPTIONS)


def test_a_build_goes_on_from_other_rows_in_memory(
    by_command: hskcache.Cache, frame: pd.DataFrame, tiny_teacher_dir: Path
) -> None:
    again = hskcache.build(tiny_teacher_dir, frame, out=by_command.root, **OPTIONS)
    assert again.id == by_command.id
    with pytest.raises(CacheError, match=str(by_command.root)):
        hskcache.build(tiny_teacher_dir, frame[1:], out=by_command.root, **OPTIONS)


def test_rows_without_labels_columns_by_name_and_classes(
    frame: pd.DataFrame, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    options = OPTIONS | {"task": None, "keep": "none"}
    texts = hskcache.build(tiny_teacher_dir, frame["sentence"].tolist(), out=tmp_path / "a", **options)
    assert "label" not in texts.columns
    named = frame.rename(columns={"sentence": "said", "label": "mood"}).replace({"mood": {0: "bad", 1: "good"}})
    labelled = hskcache.build(
        tiny_teacher_dir, named, text="said", label="mood", classes=("bad", "good"), out=tmp_path / "b", **options
    )
    assert labelled.manifest.request.data.label_names == ["bad", "good"]
    assert labelled.column("label").tolist() == frame["label"].tolist()
    assert labelled.logits().tolist() == texts.logits().tolist()
    features = datasets.Features({"said": datasets.Value("string"), "mood": datasets.ClassLabel(names=["bad", "good"])})
    typed = datasets.Dataset.from_pandas(named[["said", "mood"]]).cast(features)
    again = hskcache.build(
        tiny_teacher_dir, typed, text="said", label="mood", out=tmp_path / "b", classes=("bad", "good"), **options
    )
    assert again.id == labelled.id


def test_missing_values_are_missing_in_every_form(frame: pd.DataFrame, tiny_teacher_dir: Path, tmp_path: Path) -> None:
    gaps = frame.copy()
    gaps.loc[[3, 8], "label"] = None
    gaps.loc[5, "sentence"] = None
    options = OPTIONS | {"unlabelled": "keep", "bad_rows": "skip", "keep": "none"}
    ids = set()
    for number, rows in enumerate(
        (gaps, datasets.Dataset.from_pandas(gaps), gaps.astype(object).where(gaps.notna(), None).to_dict("records"))
    ):
        cache = hskcache.build(tiny_teacher_dir, rows, out=tmp_path / str(number), **options)
        ids.add(cache.id)
        assert len(cache) == 95
        assert [row for row in range(95) if cache[row]["label"] is None] == [3, 7]
        frame_again = cache.to_pandas(columns=["label"])
        assert frame_again["label"].isna().sum() == 2
    assert len(ids) == 1
    with pytest.raises(DataError, match="the rows in memory row 6: the text is missing"):
        hskcache.build(tiny_teacher_dir, gaps, out=tmp_path / "x", **OPTIONS)


def test_a_spec_and_numbers_are_as_python_has_them(frame: pd.DataFrame, tiny_teacher_dir: Path, tmp_path: Path) -> None:
    spec = Spec(hidden=Hidden(length=Length(tokens=3)), max_length=9)
    cache = hskcache.build(
        tiny_teacher_dir, frame, task="sst2", spec=spec, layer_map=[2, 4], device="cpu", out=tmp_path / "c"
    )
    asked = cache.manifest.request.spec
    assert asked.max_length == 9
    assert asked.hidden is not None
    assert (asked.hidden.depth.layers, asked.hidden.length.tokens) == ([2, 4], 3)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"encodng": "int8"}, "hskcache.build has no option encodng; do you mean 'encoding'"),
        ({"max_len": 8}, "no option max_len; do you mean 'max_length'"),
        ({"encoding": "int9"}, "int9"),
        ({"unlabelled": "skpi"}, "unlabelled is 'skpi'; give one of fail, skip, keep; do you mean 'skip'"),
        ({"on_nonfinite": "kip"}, "on_nonfinite is 'kip'; give one of fail, skip; do you mean 'skip'"),
        ({"keep": 10}, "keep is 10; give a text"),
        ({"max_length": "long"}, "max_length"),
        ({"classes": "neg,pos"}, "classes 'neg,pos': give two names or more"),
        ({"corpus": "a.txt"}, "both were given"),
        ({"corpus": ["a text"]}, "corpus is a list; give the path of a text file"),
        ({"task": "sst"}, "sst"),
        ({"text": "sentense"}, "no column 'sentense'; the columns are sentence, label"),
    ],
)
def test_what_a_keyword_cannot_be_is_told(
    given: dict[str, Any], words: str, frame: pd.DataFrame, tiny_teacher_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(CacheError, match=words):
        hskcache.build(tiny_teacher_dir, frame, **{"out": tmp_path / "c"} | OPTIONS | given)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (7, "rows are a datasets.Dataset, .*; a int was given"),
        (["a", {"b": 1}], "a list was given"),
        ({"sentence": ["a", "b"], "label": [0]}, "different lengths \\(sentence 2, label 1\\)"),
        ({"sentence": [], "label": []}, "have no rows"),
        (datasets.DatasetDict(train=datasets.Dataset.from_dict({"sentence": ["a"]})), "parts train; give one"),
    ],
)
def test_what_is_no_rows_is_told(rows: Any, words: str, tiny_teacher_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        hskcache.build(tiny_teacher_dir, rows, out=tmp_path / "c", **OPTIONS)


@pytest.fixture
def grown_by_command(by_command: hskcache.Cache, other_dir: Path, tmp_path: Path) -> Path:
    """A copy of the cache to which the command added logits and hidden states of another teacher."""
    root = Path(shutil.copytree(by_command.root, tmp_path / "by-command"))
    for kind, name, more in (("logits", "large", ()), ("hidden", "large-hidden", ("--keep", "1l_2t"))):
        flags = ("--add-field", kind, "--name", name, *more, "--teacher", other_dir, "--device", "cpu", "--out", root)
        assert run("build", *flags).exit_code == 0
    return root


def test_fields_are_added_as_the_command_adds_them(
    by_command: hskcache.Cache, grown_by_command: Path, other_dir: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(by_command.root, tmp_path / "c"))
    cache = hskcache.add_field(root, other_dir, kind="logits", name="large", device="cpu")
    assert cache.columns["large"] == (2,)
    cache = hskcache.add_field(cache, other_dir, kind="hidden", name="large-hidden", keep="1l_2t", device="cpu")
    assert cache.id == hskcache.open_cache(grown_by_command).id
    assert verify(root).ok
    again = hskcache.add_field(cache, other_dir, kind="logits", name="large", device="cpu")
    assert again.id == cache.id


def test_a_field_of_a_model_in_memory_is_that_of_its_folder(
    by_command: hskcache.Cache, other_dir: Path, tmp_path: Path
) -> None:
    ids = set()
    tokenizer = AutoTokenizer.from_pretrained(other_dir)
    model = AutoModelForSequenceClassification.from_pretrained(other_dir)
    for number, (teacher, given) in enumerate([(other_dir, {}), (model, {"tokenizer": tokenizer})]):
        root = Path(shutil.copytree(by_command.root, tmp_path / str(number)))
        cache = hskcache.add_field(root, teacher, kind="logits", name="large", device="cpu", **given)
        ids.add(cache.id)
        assert cache.manifest.added["large"].teacher.name == str(other_dir)
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "logit"}, "kind is 'logit'; give one of .*; do you mean 'logits'"),
        ({"task": "sst2"}, "hskcache.add_field has no option task"),
        ({"max_length": 8}, "hskcache.add_field has no option max_length"),
        ({"nmae": "x"}, "no option nmae"),
        ({"name": "hidden"}, "hidden"),
        ({"keep": "1l"}, "keep"),
        ({"on_nonfinite": "no"}, "on_nonfinite is 'no'"),
    ],
)
def test_what_a_keyword_of_a_field_cannot_be_is_told(
    given: dict[str, Any], words: str, by_command: hskcache.Cache, other_dir: Path
) -> None:
    with pytest.raises(CacheError, match=words):
        hskcache.add_field(by_command, other_dir, **{"kind": "logits", "name": "x", "device": "cpu"} | given)
    assert "x" not in hskcache.open_cache(by_command.root).fields
    with pytest.raises(CacheError, match="no folder of this machine"):
        hskcache.add_field(by_command.view(rows=20), other_dir, kind="logits", name="x", device="cpu")
