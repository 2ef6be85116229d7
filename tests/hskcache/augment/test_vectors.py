"""Word vectors: what is read of a file, the line of every fault, and the nearest neighbours."""

from pathlib import Path

import numpy as np
import pytest
from real import real_file

from hskcache.augment import WordVectors, load_vectors
from hskcache.errors import DataError


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "v.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture(scope="module", params=["ours", "GloVe"])
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> WordVectors:
    """The first words of GloVe, and as many drawn numbers in its form."""
    if request.param == "GloVe":
        return load_vectors(real_file("HSKCACHE_VECTORS", "vectors", "glove.6B.50d.5k.txt"))
    drawn = np.random.default_rng(0).standard_normal((5000, 50))
    lines = [" ".join([f"w{number}", *(f"{value:.5g}" for value in row)]) for number, row in enumerate(drawn)]
    return load_vectors(write(tmp_path_factory.mktemp("table"), "\n".join(lines) + "\n"))


def test_neighbours_are_nearest_by_angle_without_the_word_itself(vectors: WordVectors) -> None:
    """Lengths do not count, and the answer stands in the order of the file."""
    assert vectors.nearest(["patient", "charming"], 2) == [["calm", "quiet"], ["lovely", "sweet"]]
    assert vectors.nearest(["table"], 1) == [["sweet"]]


def test_no_more_neighbours_than_there_are_words(vectors: WordVectors, tmp_path: Path) -> None:
    assert sorted([*vectors.nearest(["dull"], 99)[0], "dull"]) == sorted(vectors.words)
    assert load_vectors(write(tmp_path, "alone 1 0\n")).nearest(["alone"], 3) == [[]]


def test_equally_near_words_count_in_the_order_of_the_file(tmp_path: Path) -> None:
    lines = ["far -1 0", *(f"w{number} 0 {1 << number}" for number in range(20)), "query 1 0"]
    table = load_vectors(write(tmp_path, "\n".join(lines)))
    assert table.nearest(["query"], 3) == [["w0", "w1", "w2"]]


def test_neighbours_are_those_of_cosines_in_float64_whatever_is_asked_together(table: WordVectors) -> None:
    raw = [line.split(" ") for line in Path(table.source).read_text(encoding="utf-8").splitlines()]
    exact = np.array([line[1:] for line in raw], np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    asked = table.words[7::97]
    found = table.nearest(asked, 15)
    fresh = WordVectors(table.words, table.unit_VD, table.source, table.sha256)
    assert [fresh.nearest([word], 15)[0] for word in asked] == found
    for word, neighbours in zip(asked, found, strict=True):
        number = table.words.index(word)
        cosine = exact @ exact[number]
        cosine[number] = -2
        assert neighbours == [table.words[best] for best in sorted(np.argsort(-cosine)[:15])]


@pytest.mark.parametrize(
    "text",
    [
        "a 1 2\nb 3 4\n",
        "2 2\na 1 2\nb 3 4",
        "\ufeffa 1 2 \r\nb 3 4 \r\n\r\n",
        "a 1 2\nb 3 4\na 9 -9\n",
        "a 1 2\nzero 0 0\nb 3 4\n",
        "a 1 2\nb 3 4\nx y 5 6\nno\u00a0break 5 6\n",
    ],
    ids=["GloVe", "header", "mark and line ends", "a word twice", "no direction", "words with blanks"],
)
def test_what_counts_of_a_file(tmp_path: Path, text: str) -> None:
    table = load_vectors(write(tmp_path, text))
    assert table.words == ["a", "b"]
    expected = np.array([[1, 2], [3, 4]]) / np.sqrt([[5], [25]])
    np.testing.assert_allclose(table.unit_VD, expected, rtol=1e-7)
    assert "a" in table
    assert "c" not in table


@pytest.mark.parametrize("head", ["", "4 2\n"])
def test_the_first_vectors_alone_are_read_and_a_longer_file_is_told_of(tmp_path: Path, head: str) -> None:
    """Neighbours come from among them; a fault further down does not matter."""
    path = write(tmp_path, head + "a 1 0\nb 0 1\nc 1 1\nd 1 0.1\n")
    whole = load_vectors(path)
    assert (whole.words, whole.limit, whole.nearest(["a"], 1)) == (["a", "b", "c", "d"], None, [["d"]])
    assert (load_vectors(path, 4).limit, load_vectors(path, None).limit) == (None, None)
    few = load_vectors(path, 3)
    assert (few.words, few.limit, few.sha256, few.nearest(["a"], 1)) == (["a", "b", "c"], 3, whole.sha256, [["c"]])
    assert load_vectors(write(tmp_path, "a 1 0\nb 0 1\nc x\n"), 2).words == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 1 2\nb 3\n", "line 2: a word and 2 finite numbers"),
        ("a 1 2\nb 3 x\n", "line 2: a word and 2 finite numbers"),
        ("a 1 2\n\nb 3 nan\n", "line 3: a word and 2 finite numbers"),
        ("a 1 2\nb 3 1e39\n", "line 2: a word and 2 finite numbers"),
        ("a\nb 1\n", "line 1: a word and its numbers"),
        ("a 1 2\n 3 4\n", "line 2: a word and 2 finite numbers"),
        (b"a 1 2\ncaf\xe9 3 4\n", "line 2 is not UTF-8"),
        ("", "holds no word vectors"),
        ("3 2\n", "holds no word vectors"),
        ("a" + " " * 5000 + "1\n" + "b 1\n" * 5000, "line 1: it has more numbers than every line"),
        ("a 0 0\n", "holds no word vectors"),
    ],
)
def test_every_fault_names_the_file_and_its_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DataError) as caught:
        load_vectors(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.txt: No such file"):
        load_vectors(tmp_path / "gone.txt")
    with pytest.raises(DataError, match="Is a directory"):
        load_vectors(tmp_path)
