"""What the fault suites run over: tiny models of random weights, a few rows, a corpus; made once in a folder."""

import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import saved

from hskcache.spec import Attention, Depth, Hidden, Length, Spec, Width

if TYPE_CHECKING:
    from hskcache.build.addition import Addition
    from hskcache.build.job import Job

WORDS = [f"w{number}" for number in range(60)]
NUM_ROWS, SHARD_ROWS, MAX_LENGTH = 10, 4, 12

_DEPTH = Depth(student_layers=2, num_layers=2)
_ATTENTION = Attention(depth=_DEPTH, length=Length(tokens=3), encoding="int8")
# Three shards, the last one short; constants, which principal components are.
SPEC = Spec(
    hidden=Hidden(depth=_DEPTH, length=Length(tokens=4), width=Width(scheme="pca", fraction=0.25), encoding="int8"),
    attention=_ATTENTION,
    max_length=MAX_LENGTH,
    shard_rows=SHARD_ROWS,
)
ADDED = {
    name: Spec(hidden=Hidden(depth=_DEPTH, length=Length(tokens=3), width=width, encoding=encoding))
    for name, width, encoding in (
        ("more", Width(scheme="uniform", fraction=0.5), "float16"),
        ("bits", Width(scheme="magnitude", fraction=0.5), "int8"),
        ("few", Width(scheme="magnitude", fraction=0.02), "int4"),
    )
}
"""Fields of hidden states that the other teacher adds: columns that all share, as bitmasks and as indices."""


def sentences(num_rows: int, seed: int) -> list[str]:
    """Lines of 2 to 9 words."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(2, 9))) for _ in range(num_rows)]


@dataclass(frozen=True, eq=False)
class Material:
    """Models and rows in a folder, all of them drawn from seeds.

    Attributes:
        folder: made if missing.
    """

    folder: Path

    @cached_property
    def tokenizer(self) -> Any:
        """A tokenizer of whole words."""
        from tokenizers import Tokenizer, models, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
        inputs = ["input_ids", "token_type_ids", "attention_mask"]
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, model_max_length=32, model_input_names=inputs, **names
        )

    @cached_property
    def teacher_dir(self) -> Path:
        """A BERT of 2 layers, width 16 and 2 heads with two classes."""
        return self._model("teacher", width=16)

    @cached_property
    def other_dir(self) -> Path:
        """Another one, of width 64, with the same vocabulary and classes."""
        return self._model("other", width=64)

    @cached_property
    def teacher(self) -> Any:
        """The first one, loaded."""
        from hskcache.teacher.load import load_teacher

        return load_teacher(str(self.teacher_dir), "cpu")

    @cached_property
    def other(self) -> Any:
        """The other one, loaded."""
        from hskcache.teacher.load import load_teacher

        return load_teacher(str(self.other_dir), "cpu")

    @cached_property
    def data(self) -> Path:
        """Labelled rows."""
        return self._rows("rows.tsv", NUM_ROWS, seed=0)

    @cached_property
    def more(self) -> Path:
        """Further rows of the same kind."""
        return self._rows("more.tsv", SHARD_ROWS + 1, seed=1)

    @cached_property
    def corpus(self) -> Path:
        """Plain text of three documents."""
        path = self.folder / "corpus.txt"
        path.write_text("\n\n".join("\n".join(sentences(6, seed)) for seed in range(3)) + "\n", encoding="utf-8")
        return path

    def warm(self) -> None:
        """Import what children would each import for themselves; nothing here leaves a thread behind."""
        from importlib import import_module

        from hskcache.cli import COMMANDS

        for place in COMMANDS.values():
            import_module(place.partition(":")[0])
        for module in ("build.requested", "build.corpus", "repair.recompute", "build.append"):
            import_module(f"hskcache.{module}")
        for module in ("pull", "push", "extract"):
            import_module(f"hskcache.move.{module}")
        from hskcache.teacher.load import load_encoder

        load_encoder(str(self.teacher_dir), "cpu")
        self.job()

    @property
    def flags(self) -> list[object]:
        """What a build of the rows is asked for with on a command line."""
        kept = ["--keep", "2l_4t_0.25h", "--width", "pca", "--attention", "2l_3t", "--student-layers", 2]
        return [*self.source_flags(self.data), "--max-length", MAX_LENGTH, "--shard-rows", SHARD_ROWS, *kept]

    @property
    def corpus_flags(self) -> list[object]:
        """The same of the corpus."""
        at = self.flags.index("--data")
        return [*self.flags[:at], "--corpus", self.corpus, *self.flags[at + 4 :]]

    def source_flags(self, data: Path) -> list[object]:
        """The teacher and rows."""
        return ["--teacher", self.teacher_dir, "--device", "cpu", "--data", data, "--task", "sst2"]

    def job(self, spec: Spec = SPEC, data: Path | None = None) -> "Job":
        """What a build of the rows would do."""
        from hskcache.build.job import prepare_job
        from hskcache.text import examples_for, load_task, tokenize

        examples = examples_for(data or self.data, load_task("sst2"))
        rows = tokenize(examples, self.teacher.tokenizer, spec.max_length)
        return prepare_job(self.teacher, examples, rows, spec, "sst2")

    def addition(self, cache: Path, name: str = "more") -> "Addition":
        """What adding hidden states of the other teacher to a cache would do."""
        from hskcache.build.addition import prepare_addition
        from hskcache.cache import open_cache

        return prepare_addition(self.other, open_cache(cache), "hidden", name, ADDED[name])

    def built(self, name: str = "built", spec: Spec = SPEC) -> Path:
        """The cache of the rows, built once."""
        from hskcache.build.build import build

        out = self.folder / name
        build(self.job(spec), out)
        return out

    @cached_property
    def grown(self) -> Path:
        """The same with fields that were added."""
        from hskcache.build.addition import add_field

        out = self.built("grown")
        for name in ADDED:
            add_field(self.addition(out, name))
        return out

    def _rows(self, name: str, num_rows: int, seed: int) -> Path:
        path = self.folder / name
        lines = [f"{text}\t{number % 2}" for number, text in enumerate(sentences(num_rows, seed))]
        path.write_text("\n".join(["sentence\tlabel", *lines]) + "\n", encoding="utf-8")
        return path

    def _model(self, name: str, width: int) -> Path:
        from transformers import BertConfig, BertForSequenceClassification

        config = BertConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=32,
            pad_token_id=0,
            initializer_range=0.2,
            id2label={0: "0", 1: "1"},
            label2id={"0": 0, "1": 1},
            problem_type="single_label_classification",
        )
        return saved(lambda: BertForSequenceClassification(config), self.tokenizer, self.folder / name)
