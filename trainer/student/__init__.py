"""Students: how they begin and what is added to them for training.

Importing this package registers the class of pruned students with transformers, so that ``AutoModel`` and its like load
them.
"""

from trainer.student.compact import CompactBertConfig, CompactBertForSequenceClassification, CompactBertModel

__all__ = ["CompactBertConfig", "CompactBertForSequenceClassification", "CompactBertModel"]
