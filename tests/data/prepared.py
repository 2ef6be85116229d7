"""Folders in which the commands of a page run: tiny models, rows and caches by the names that the pages use."""

import csv
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from click.testing import CliRunner, Result
from embedders import embedder
from language_models import language_model, language_tokenizer, llama
from models import saved
from taggers import tagged, written

from hskcache.cli import main as hskcache
from trainer.cli import main as hsktrain

ROOT = Path(__file__).resolve().parents[2]
GROUPS = {"hskcache": hskcache, "hsktrain": hsktrain}
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
CLASSES = {"rte": ("entailment", "not_entailment"), "sst2": ("0", "1")}


def invoke(words: Sequence[str]) -> Result:
    """Run one of our commands in this process."""
    return CliRunner().invoke(GROUPS[words[0]], list(words[1:]))


class Shelf:
    """Everything that a page may find in its folder, made when it is first asked for and copied from then on.

    ``task``: of the rows and teachers, sst2 or rte. ``shape``: of the teachers, beside ``SHAPE``.
    """

    def __init__(self, folder: Path, tokenizer: Path, glue: Path, task: str, shape: Mapping[str, int]) -> None:
        self.folder, self.task, self._wide = folder, task, SHAPE | shape
        self._tokenizer = tokenizer
        self._rows = {"sst2": glue / "SST-2", "rte": glue / "RTE"}[task]
        models = ("teacher", "bert-large-sst2", "bert-base-sst2", "bert-base", "trial")
        self._makers: dict[str, Callable[[Path], object]] = {
            **dict.fromkeys(models, self._classifier),
            **dict.fromkeys(("train.tsv", "dev.tsv", "more.tsv", "part.tsv"), self._table),
            **dict.fromkeys(("train.csv", "dev.csv"), self._reviews),
            **dict.fromkeys(("llama", "SmolLM2-135M-Instruct"), language_model),
            "config.json": self._language_config,
            "embedder": lambda path: embedder(self._tokenizer, path),
            "pairs.tsv": self._scored_pairs,
            "sts-dev.tsv": self._scored_pairs,
            "reranker": self._reranker,
            **dict.fromkeys(("eng.train", "eng.testa", "eng.testb"), self._words),
            "pairs.jsonl": self._pairs,
            "bert-base-uncased": self._masked_lm,
            "tinybert4": self._shape,
            "test.tsv": self._table,
            "reviews.jsonl": self._texts,
            **dict.fromkeys(("wikipedia.txt", "dev.txt", "train.txt", "valid.txt"), self._corpus),
            "lm": lambda path: saved(llama, language_tokenizer(), path),
            "answers.jsonl": self._answers,
            "chat.jsonl": self._chat,
            "glove.txt": self._vectors,
            "old.hsk": lambda path: shutil.copytree(ROOT / "tests" / "golden" / "tiny.hsk", path),
            "student": self._student,
            **dict.fromkeys(("sst2.hsk", "other.hsk", "rte.hsk", "reviews.hsk", "wide.hsk"), self._cache),
        }

    def knows(self, name: str) -> bool:
        """True of what can be made."""
        return name in self._makers

    def put(self, name: str, folder: Path) -> None:
        """Lay something into a folder, whatever else it needs beside it left out."""
        source = self.folder / name
        if not source.exists():
            self._makers[name](source)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)

    def _at(self, name: str) -> str:
        path = self.folder / name
        if not path.exists():
            self._makers[name](path)
        return str(path)

    def _run(self, *words: str) -> None:
        done = invoke(words)
        assert done.exit_code == 0, done.output

    def _classifier(self, path: Path) -> None:
        from transformers import BertConfig, BertForSequenceClassification

        names = dict(enumerate(CLASSES[self.task]))
        labels = {"id2label": names, "label2id": {name: number for number, name in names.items()}}
        tokenizer = self._loaded_tokenizer()
        config = BertConfig(
            vocab_size=len(tokenizer), **self._wide, **labels, problem_type="single_label_classification"
        )
        saved(lambda: BertForSequenceClassification(config), tokenizer, path)

    def _language_config(self, path: Path) -> None:
        shutil.copy(Path(self._at("llama")) / "config.json", path)

    def _reranker(self, path: Path) -> None:
        from transformers import BertConfig, BertForSequenceClassification

        tokenizer = self._loaded_tokenizer()
        config = BertConfig(vocab_size=len(tokenizer), **SHAPE, num_labels=1)
        saved(lambda: BertForSequenceClassification(config), tokenizer, path)

    def _words(self, path: Path) -> None:
        written(tagged(16, seed=len(path.name)), path)

    def _pairs(self, path: Path) -> None:
        texts = ("the film is charming", "this movie is dull and short", "a warm story", "its plot is flat")
        pairs = ({"query": text, "passage": other} for text in texts for other in texts)
        path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")

    def _scored_pairs(self, path: Path) -> None:
        texts = ("the film is charming", "this movie is dull and short", "a warm story", "its plot is flat")
        rows = [
            f"{text}\t{other}\t{abs(first - second)}"
            for first, text in enumerate(texts)
            for second, other in enumerate(texts)
        ]
        path.write_text("\n".join(["sentence1\tsentence2\tscore", *rows]) + "\n", encoding="utf-8")

    def _masked_lm(self, path: Path) -> None:
        from transformers import BertConfig, BertForMaskedLM

        tokenizer = self._loaded_tokenizer()
        saved(lambda: BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **SHAPE)), tokenizer, path)

    def _loaded_tokenizer(self) -> object:
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast.from_pretrained(self._tokenizer, model_max_length=128)

    def _shape(self, path: Path) -> None:
        """A folder of the name of a shape that ships, of which it takes the place."""
        path.mkdir()
        small = SHAPE | {"model_type": "bert", "num_hidden_layers": 4, "hidden_size": 16}
        # The shape that ships has as many positions as the rows ask for.
        small |= {"max_position_embeddings": 4096}
        (path / "config.json").write_text(json.dumps(small), encoding="utf-8")

    def _table(self, path: Path) -> None:
        source = self._rows / ("dev.tsv" if path.name in {"dev.tsv", "test.tsv"} else "train.tsv")
        lines = source.read_text(encoding="utf-8").split("\n")
        # Rows that are appended are others than those before.
        rows = lines[33:41] if path.name == "more.tsv" else lines[1:33] if path.name == "train.tsv" else lines[1:17]
        path.write_text("\n".join([lines[0], *rows]) + "\n", encoding="utf-8")

    def _reviews(self, path: Path) -> None:
        lines = (self._rows / "train.tsv").read_text(encoding="utf-8").split("\n")[1:33]
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("review", "stars"), *(line.split("\t") for line in lines)])

    def _texts(self, path: Path) -> None:
        texts = ("the film is charming", "this movie is dull and short")
        keys = ("sentence1", "sentence2") if self.task == "rte" else ("sentence",)
        path.write_text("".join(json.dumps(dict.fromkeys(keys, text)) + "\n" for text in texts), encoding="utf-8")

    def _corpus(self, path: Path) -> None:
        documents = [f"the film is charming and short {number}\nthis movie is dull\n" for number in range(24)]
        path.write_text("\n".join(documents), encoding="utf-8")

    def _answers(self, path: Path) -> None:
        answers = [{"question": f"Is {n} even?", "answer": " yes" if n % 2 == 0 else " no"} for n in range(8)]
        path.write_text("".join(json.dumps(one) + "\n" for one in answers), encoding="utf-8")

    def _chat(self, path: Path) -> None:
        turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
        path.write_text((json.dumps({"messages": turns}) + "\n") * 8, encoding="utf-8")

    def _vectors(self, path: Path) -> None:
        words = ("film", "movie", "story", "cast", "plot", "dull", "charming", "funny", "warm", "short")
        path.write_text("".join(f"{word} {len(word)} {n} 1.5\n" for n, word in enumerate(words)), encoding="utf-8")

    def _cache(self, path: Path) -> None:
        named = ("train.csv", "--text", "review", "--label", "stars")
        rows = named if path.name == "reviews.hsk" else ("train.tsv", "--task", self.task)
        keep = {"other.hsk": "1l_5t_0.1h", "wide.hsk": "128t"}.get(path.name, "1l_10t_0.1h")
        self._run(
            *("hskcache", "build", "--teacher", self._at("teacher"), "--data", self._at(rows[0]), *rows[1:]),
            *("--keep", keep, "--shard-rows", "8", "--out", str(path)),
        )

    def _student(self, path: Path) -> None:
        cache = self._at("rte.hsk" if self.task == "rte" else "sst2.hsk")
        fast = ("--set", "hidden.epochs=1", "--set", "prediction.epochs=1")
        self._run(
            *("hsktrain", "fit", "--cache", cache, "--student", self._at("tinybert4"), *fast),
            *("--eval-data", self._at("dev.tsv"), "--out", str(path)),
        )
