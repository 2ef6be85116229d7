"""Read labelled text from files or a data set, with the line of every fault, and turn it into token ids."""

from hskcache.text.labels import LabelSet
from hskcache.text.rows import Columns, Examples, Overrides, examples_for, read_examples
from hskcache.text.tasks import Task, load_task, task_names
from hskcache.text.tokenize import TokenizedRows, load_tokenizer, tokenize

__all__ = [
    "Columns",
    "Examples",
    "LabelSet",
    "Overrides",
    "Task",
    "TokenizedRows",
    "examples_for",
    "load_task",
    "load_tokenizer",
    "read_examples",
    "task_names",
    "tokenize",
]
