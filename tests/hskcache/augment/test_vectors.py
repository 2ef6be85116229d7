"""Word vectors: what is read of a file, the line of every fault, and the nearest neighbours."""

import os
from pathlib import Path

import numpy as np
import pytest

from hskcache.augment import WordVectors, load_vectors
from hskcache.errors import DataError


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "v.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture(scope="module")
def glove() -> WordVectors:
    default = Path(__file__).resolve().parents[3] / ".." / "shared" / "vectors"
    path = Path(os.environ.get("HSKCACHE_VECTORS", default)).resolve() / "glove.6B.50d.5k.txt"
    if not path.is_file():
        pytest.skip(f"no word vectors at {path}; set HSKCACHE_VECTORS")
    return load_vectors(path)


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


def test_real_neighbours_are_those_of_cosines_in_float64_whatever_is_asked_together(glove: WordVectors) -> None:
    raw = [line.split(" ") for line in Path(glove.source).read_text(encoding="utf-8").splitlines()]
    table = np.array([line[1:] for line in raw], np.float64)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    asked = glove.words[7::97]
    found = glove.nearest(asked, 15)
    fresh = WordVectors(glove.words, glove.unit_VD, glove.source, glove.sha256)
    assert [fresh.nearest([word], 15)[0] for word in asked] == found
    for word, neighbours in zip(asked, found, strict=True):
        number = glove.words.index(word)
        cosine = table @ table[number]
        cosine[number] = -2
        assert neighbours == [glove.words[best] for best in sorted(np.argsort(-cosine)[:15])]


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
