#!/usr/bin/env bash
# transformers 5.23.0 tokenizes lists of words (is_split_into_words) with a RoBERTa tokenizer that was saved without
# add_prefix_space, and gives each word the pieces of one that is glued to the word before it; 4.57.1 refuses that.
#
# Seen with transformers 4.57.1 and 5.23.0, Python 3.11. Output:
#     4.57.1 AssertionError
#     5.23.0 ['<s>', 'the', 'cat', '</s>'] of a list, ['<s>', 'the', 'Ġcat', '</s>'] of the text
# roberta-base is saved so. Whoever tags words with a tagger that learned from text shows it pieces that it has hardly
# seen, and nothing says so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat >words.py <<'PYTHON'
import transformers
from tokenizers import ByteLevelBPETokenizer
from transformers import RobertaTokenizerFast

trained = ByteLevelBPETokenizer()
special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
trained.train_from_iterator(["the cat sat"] * 9, vocab_size=300, special_tokens=special, show_progress=False)
trained.save("tokenizer.json")
tokenizer = RobertaTokenizerFast(tokenizer_file="tokenizer.json", add_prefix_space=False)
try:
    listed = tokenizer.convert_ids_to_tokens(tokenizer(["the", "cat"], is_split_into_words=True)["input_ids"])
    text = tokenizer.convert_ids_to_tokens(tokenizer("the cat")["input_ids"])
    print(f"{transformers.__version__} {listed} of a list, {text} of the text")
except AssertionError:
    print(f"{transformers.__version__} AssertionError")
PYTHON
for version in 4.57.1 5.23.0; do
    python3 -m venv "$version"
    "$version/bin/pip" install --quiet --disable-pip-version-check "transformers==$version"
    "$version/bin/python" words.py 2>/dev/null
done | tee seen
diff seen - <<'EXPECTED'
4.57.1 AssertionError
5.23.0 ['<s>', 'the', 'cat', '</s>'] of a list, ['<s>', 'the', 'Ġcat', '</s>'] of the text
EXPECTED
