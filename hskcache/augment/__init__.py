"""TinyBERT's data augmentation: copies of rows in which words are replaced by likely or similar ones [TinyBERT 3.2]."""

from hskcache.augment.candidates import Proposer, Sentence
from hskcache.augment.copies import Chance, Pairs
from hskcache.augment.run import Augmentation, Finished, augment
from hskcache.augment.source import RewritableRows, open_source, output_suffix
from hskcache.augment.vectors import WordVectors, load_vectors
from hskcache.augment.words import Eligible, eligible

__all__ = [
    "Augmentation",
    "Chance",
    "Eligible",
    "Finished",
    "Pairs",
    "Proposer",
    "RewritableRows",
    "Sentence",
    "WordVectors",
    "augment",
    "eligible",
    "load_vectors",
    "open_source",
    "output_suffix",
]
