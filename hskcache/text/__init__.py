"""Read labelled text from files or a data set, with the line of every fault, and turn it into token ids."""

from hskcache.text.corpus import Corpus, corpus_fingerprint, pack_corpus
from hskcache.text.labels import LabelSet
from hskcache.text.rows import Columns, Examples, Overrides, examples_for, read_examples
from hskcache.text.spool import Spool
from hskcache.text.tasks import Task, load_task, task_names
from hskcache.text.tokenize import TokenizedRows, load_tokenizer, tokenize, tokenized

__all__ = [
    "Columns",
    "Corpus",
    "Examples",
    "LabelSet",
    "Overrides",
    "Spool",
    "Task",
    "TokenizedRows",
    "corpus_fingerprint",
    "examples_for",
    "load_task",
    "load_tokenizer",
    "pack_corpus",
    "read_examples",
    "task_names",
    "tokenize",
    "tokenized",
]
