"""Knowledge to keep of a teacher, as one frozen, strict model; and the dimension letters used everywhere.

Dimension key: N rows, B batch, L positions of a row, K kept positions, D hidden width, W kept columns, H heads,
C classes, V vocabulary, P kept positions of a whole batch (the sum of every row's K), T teacher layers.
Hidden layer 0 is the embedding output after its LayerNorm; hidden layer i is the output of transformer layer i.
"""

from hskcache.spec.rows import Packing, Windows
from hskcache.spec.sections import (
    SECTIONS,
    VOCABULARY_COUNTS,
    Attention,
    Depth,
    Embedding,
    Hidden,
    Kept,
    Length,
    Vocabulary,
    Width,
)
from hskcache.spec.short import (
    Keep,
    format_keep,
    format_tokens,
    layer_map_changes,
    numbers,
    numbers_or_word,
    parse_keep,
    parse_vocabulary,
)
from hskcache.spec.spec import Spec, parse_spec
from hskcache.spec.words import (
    SCORES,
    Admitted,
    CodecName,
    ComputeDtype,
    EncodingName,
    LayerMapName,
    PairsName,
    PoolingName,
    PoolingWord,
    ScoreLayer,
    ScoreName,
    VocabularyForm,
    WidthName,
)

__all__ = [
    "SCORES",
    "SECTIONS",
    "VOCABULARY_COUNTS",
    "Admitted",
    "Attention",
    "CodecName",
    "ComputeDtype",
    "Depth",
    "Embedding",
    "EncodingName",
    "Hidden",
    "Keep",
    "Kept",
    "LayerMapName",
    "Length",
    "Packing",
    "PairsName",
    "PoolingName",
    "PoolingWord",
    "ScoreLayer",
    "ScoreName",
    "Spec",
    "Vocabulary",
    "VocabularyForm",
    "Width",
    "WidthName",
    "Windows",
    "format_keep",
    "format_tokens",
    "layer_map_changes",
    "numbers",
    "numbers_or_word",
    "parse_keep",
    "parse_spec",
    "parse_vocabulary",
]
