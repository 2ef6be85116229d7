"""What every room's tests share: a tiny tokenizer, a tiny teacher, a small learnable data set and files like GLUE's.

Heavy imports stay inside the fixtures, so that tests of rooms without torch run without torch.
"""

import gc
import os
import random
from pathlib import Path

import pytest
from glue_forms import FORMS
from hypothesis import HealthCheck, settings
from models import saved

from hskcache.threads import bound_waiting

# Tiny tensors gain nothing from many threads, and no test may depend on a network.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
bound_waiting()

# How long a machine takes says nothing of what is tested.
settings.register_profile("hskcache", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hskcache")

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SUBJECTS = ("the film", "this movie", "a small story", "the cast", "its plot", "the music", "an old tale")
POSITIVE = ("charming", "funny", "warm", "clever", "moving", "a delight")
NEGATIVE = ("dull", "empty", "tedious", "clumsy", "flat", "a waste")
TAILS = ("", "and short", "from start to end", "as one would expect of it", "for all who are patient enough to stay")


def pytest_collection_finish() -> None:
    """Leave what was imported by now out of all later garbage collections, of which every training asks for one."""
    gc.collect()
    gc.freeze()


def sentences(num_rows: int, seed: int) -> list[tuple[str, int]]:
    """Sentences of varied length whose label one word decides, both classes equally frequent."""
    draw = random.Random(seed)
    rows = []
    for index in range(num_rows):
        label = index % 2
        word = draw.choice(POSITIVE if label else NEGATIVE)
        rows.append((f"{draw.choice(SUBJECTS)} is {word} {draw.choice(TAILS)}".strip(), label))
    draw.shuffle(rows)
    return rows


@pytest.fixture(scope="session")
def tsv_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 rows in SST-2's format: a header, ``sentence`` and ``label``, unquoted."""
    lines = ["sentence\tlabel", *(f"{text}\t{label}" for text, label in sentences(96, seed=0))]
    path = tmp_path_factory.mktemp("data") / "train.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WordPiece tokenizer of at most 150 pieces with BERT's special tokens and token types."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    wordpiece = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    wordpiece.normalizer = normalizers.BertNormalizer(lowercase=True)
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=list(SPECIAL_TOKENS), show_progress=False)
    wordpiece.train_from_iterator((text for text, _ in sentences(400, seed=1)), trainer)
    ids = [(token, wordpiece.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    wordpiece.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=wordpiece,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_teacher_dir(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    """A BERT of 4 layers, width 32 and 4 heads with random weights and two classes, beside its tokenizer."""
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_tokenizer_dir)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        # Wide enough that attention, hidden states and logits differ visibly from row to row.
        initializer_range=0.2,
        id2label={0: "0", 1: "1"},
        label2id={"0": 0, "1": 1},
        problem_type="single_label_classification",
    )
    return saved(lambda: BertForSequenceClassification(config), tokenizer, tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def masked_lm_dir(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    """A BERT of 2 layers and width 32 with random weights and its head, beside the tiny tokenizer."""
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_tokenizer_dir)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    return saved(lambda: BertForMaskedLM(config), tokenizer, tmp_path_factory.mktemp("masked-lm"))


@pytest.fixture(scope="session")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with SST-2, CoLA, RTE and QQP-subset in the forms of GLUE, each a train.tsv and dev.tsv of our own."""
    folder = tmp_path_factory.mktemp("glue")
    for form in FORMS.values():
        form.write(folder)
    return folder
