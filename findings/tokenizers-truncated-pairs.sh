#!/usr/bin/env bash
# tokenizers 0.23 makes every overflowing piece of a truncated pair, and of two long texts every combination of their
# pieces, whether anybody asks for them or not: return_overflowing_tokens=False of transformers only throws them away.
#
# Seen with tokenizers 0.23.3, Python 3.11: two texts of 2,000 words, truncated to 128 tokens longest first, come with
# 1,023 further encodings; without truncation there are none, and it is faster by an order of magnitude. Output:
#     single: 15 overflowing
#     pair: 1023 overflowing, truncation slower: True
# Whoever cuts long pairs to a short length pays for the square of what was cut off.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check tokenizers==0.23.3
cat >pairs.py <<'PYTHON'
from time import perf_counter

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


print(f"single: {len(cutting.encode(text).overflowing)} overflowing")
slower = median_s(cutting) > 3 * median_s(plain)
print(f"pair: {len(cutting.encode(text, text).overflowing)} overflowing, truncation slower: {slower}")
PYTHON
venv/bin/python pairs.py | tee seen
diff seen - <<'EXPECTED'
single: 15 overflowing
pair: 1023 overflowing, truncation slower: True
EXPECTED
