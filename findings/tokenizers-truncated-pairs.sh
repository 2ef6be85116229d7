#!/usr/bin/env bash
# tokenizers 0.23.3 makes every overflowing piece of a truncated text again, whether anybody asks for them or not, and of
# two long texts every combination of their pieces; 0.23.2 makes three of a pair and none of a text.
# return_overflowing_tokens of transformers only
# decides whether they are shown.
#
# Seen with tokenizers 0.23.2 and 0.23.3, Python 3.11: two texts of 2,000 words, truncated to 128 tokens longest first,
# come with 3 further encodings in the one and 1,023 in the other, where truncation makes the pair slower by an order
# of magnitude. Output:
#     0.23.2 single: 0 overflowing; pair: 3 overflowing, truncation slower: False
#     0.23.3 single: 15 overflowing; pair: 1023 overflowing, truncation slower: True
# Whoever cuts long pairs to a short length pays for the square of what was cut off, and whoever counts lost tokens by
# Encoding.overflowing counts none with another patch release.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat >pairs.py <<'PYTHON'
from time import perf_counter

import tokenizers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

plain, cutting = (Tokenizer(WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")) for _ in range(2))
for tokenizer in (plain, cutting):
    tokenizer.pre_tokenizer = Whitespace()
cutting.enable_truncation(128, strategy="longest_first")
text = "a " * 2000


def median_s(tokenizer: Tokenizer) -> float:
    times = []
    for _ in range(5):
        start = perf_counter()
        tokenizer.encode(text, text)
        times.append(perf_counter() - start)
    return sorted(times)[2]


slower = median_s(cutting) > 3 * median_s(plain)
counts = len(cutting.encode(text).overflowing), len(cutting.encode(text, text).overflowing)
print(
    f"{tokenizers.__version__} single: {counts[0]} overflowing; pair: {counts[1]} overflowing, "
    f"truncation slower: {slower}"
)
PYTHON
for version in 0.23.2 0.23.3; do
    python3 -m venv "$version"
    "$version/bin/pip" install --quiet --disable-pip-version-check "tokenizers==$version"
    "$version/bin/python" pairs.py
done | tee seen
diff seen - <<'EXPECTED'
0.23.2 single: 0 overflowing; pair: 3 overflowing, truncation slower: False
0.23.3 single: 15 overflowing; pair: 1023 overflowing, truncation slower: True
EXPECTED
