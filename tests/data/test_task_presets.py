"""The shipped presets read the files GLUE hands out, and other people's presets are checked."""

from pathlib import Path

import pytest

from hskcache.errors import SpecError
from hskcache.text import examples_for, load_task, task_names

# The header and a row of each official file, with what the row must become: text, pair, class or score.
OFFICIAL = {
    "sst2": ("sentence\tlabel\nT \t1\n", ("T ", None, 1)),
    "cola": ("gj04\t0\t*\tT\n", ("T", None, 0)),
    "rte": ("index\tsentence1\tsentence2\tlabel\n0\tT\tP\tnot_entailment\n", ("T", "P", 1)),
    "wnli": ("index\tsentence1\tsentence2\tlabel\n0\tT\tP\t1\n", ("T", "P", 1)),
    "qnli": ("index\tquestion\tsentence\tlabel\n0\tT\tP\tentailment\n", ("T", "P", 0)),
    "mrpc": ("\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t702876\t702977\tT\tP\n", ("T", "P", 1)),
    "qqp": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tT\tP\t1\n", ("T", "P", 1)),
    "stsb": (
        (
            "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
            "0\tmain-captions\tMSRvid\t2012test\t0001\tnone\tnone\tT\tP\t3.750\n"
        ),
        ("T", "P", 3.75),
    ),
    "mnli": (
        (
            "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
            "sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label\n"
            "0\t31193\t31193n\tgovernment\t( a )\t( b )\t(ROOT)\t(ROOT)\tT\tP\tneutral\tcontradiction\n"
        ),
        ("T", "P", 2),
    ),
}
MINE = """
name: mine
text: body
label: stars
problem: classification
labels: ["1", "2"]
metrics: [accuracy]
"""


def test_the_presets_are_the_nine_tasks_of_glue_and_a_tagging() -> None:
    assert task_names() == sorted([*OFFICIAL, "conll"])


def test_conll_is_read_as_its_files_are(tmp_path: Path) -> None:
    path = tmp_path / "eng.testa"
    path.write_text(
        "-DOCSTART- -X- O O\n\nCRICKET NNP I-NP O\nPhil NNP I-NP I-PER\n\nLONDON NNP I-NP I-LOC\n", encoding="utf-8"
    )
    examples = examples_for(path, load_task("conll"))
    assert examples.words == [["CRICKET", "Phil"], ["LONDON"]]
    assert examples.labels is not None
    assert [[examples.label_names[tag] for tag in tags] for tags in examples.labels] == [["O", "I-PER"], ["I-LOC"]]


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_preset_reads_the_official_layout(tmp_path: Path, name: str) -> None:
    content, (text, pair, label) = OFFICIAL[name]
    path = tmp_path / "train.tsv"
    path.write_text(content, encoding="utf-8")
    task = load_task(name)
    examples = examples_for(path, task)
    assert task.name == name
    assert (examples.texts, examples.pairs) == ([text], None if pair is None else [pair])
    assert examples.labels is not None
    assert examples.labels.tolist() == [label]
    assert examples.problem == task.problem


def test_the_five_annotators_of_mnli_dev_do_not_move_its_label(tmp_path: Path) -> None:
    path = tmp_path / "dev_matched.tsv"
    annotators = "\t".join(f"label{number}" for number in range(1, 6))
    path.write_text(
        f"sentence1\tsentence2\t{annotators}\tgold_label\nT\tP{'	neutral' * 5}\tentailment\n", encoding="utf-8"
    )
    labels = examples_for(path, load_task("mnli")).labels
    assert labels is not None
    assert labels.tolist() == [0]


def test_presets_tell_how_long_rows_are() -> None:
    short = {name for name in task_names() if load_task(name).max_length == 64}
    assert short == {"cola", "sst2"}
    assert {load_task(name).max_length for name in task_names()} == {64, 128}


def test_presets_name_the_columns_of_the_hub_where_they_differ() -> None:
    columns = {name: load_task(name).hub_columns for name in task_names()}
    assert {name: (column.text, column.text_pair, column.label) for name, column in columns.items()} == {
        "cola": ("sentence", None, "label"),
        "conll": ("tokens", None, "ner_tags"),
        "mnli": ("premise", "hypothesis", "label"),
        "mrpc": ("sentence1", "sentence2", "label"),
        "qnli": ("question", "sentence", "label"),
        "qqp": ("question1", "question2", "label"),
        "rte": ("sentence1", "sentence2", "label"),
        "sst2": ("sentence", None, "label"),
        "stsb": ("sentence1", "sentence2", "label"),
        "wnli": ("sentence1", "sentence2", "label"),
    }


def test_a_task_can_be_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINE, encoding="utf-8")
    assert load_task(str(path)).labels == ["1", "2"]


@pytest.mark.parametrize("name", ["sst3", "", "../tasks/sst2", "SST2"])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(SpecError, match=r"is not a task; the tasks are cola, conll, mnli, .*, wnli"):
        load_task(name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('labels: ["1", "2"]', "labels: [1, 2]", "labels.0: Input should be a valid string"),
        ('labels: ["1", "2"]', 'labels: ["1"]', "at least two"),
        ('labels: ["1", "2"]', 'labels: ["1", "1"]', "at least two, each named once"),
        ("classification", "regression", "a regression has scores"),
        ("text: body", "txt: body", "text: Field required"),
        ("[accuracy]", "[]", "metrics: List should have at least 1 item"),
        ("name: mine", "name: mine\nmax_length: 2", "max_length: .*3"),
        ("name: mine", "name: [", "is not YAML"),
        (MINE, "- sst2", "is not a mapping"),
    ],
)
def test_a_task_that_cannot_be_is_refused_by_the_key_that_is_wrong(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINE.replace(old, new), encoding="utf-8")
    with pytest.raises(SpecError, match=message) as caught:
        load_task(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_task_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"gone.yaml: No such file"):
        load_task(str(tmp_path / "gone.yaml"))
