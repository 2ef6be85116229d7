#!/usr/bin/env bash
# return_assistant_tokens_mask of transformers 5.23.0 is wrong at the end of a turn, in two ways. Where the last character
# inside {% generation %} belongs to no token (white space that the tokenizer drops), everything that follows in the
# conversation is marked as the assistant's, what the user says among it. Where that character is several tokens, as
# rare ones are in byte-level BPE, the mask ends at the first of these.
#
# Seen with transformers 5.23.0, tokenizers 0.23.2, Python 3.11. Tokens that are marked, of a conversation user "hello",
# assistant "hello there", user "how are you", and of one whose answer ends in U+20AC (three bytes, three tokens):
#     byte-level, newline at the end: hello Ġthere Ċ
#     split at white space, newline at the end: hello there <|user|> how are you
#     byte-level, three-byte character at the end: hello Ġ â
# Whoever trains on this mask teaches a student to speak for the user, or never to finish a character, and no count of
# masked tokens looks odd.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check transformers==5.23.0 tokenizers==0.23.2 jinja2==3.1.6
cat >mask.py <<'PYTHON'
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>{% generation %}{{ m.content + end }}"
    "{% endgeneration %}{% else %}<|user|>{{ m.content + '\n' }}{% endif %}{% endfor %}"
)


def tokenizer(split: pre_tokenizers.PreTokenizer, alphabet: list[str]) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = split
    specials = ["<unk>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(special_tokens=specials, vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(["hello there how are you"] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made)


def marked(made: PreTrainedTokenizerFast, answer: str, end: str) -> str:
    said = [("user", "hello"), ("assistant", answer), ("user", "how are you")]
    chat = [{"role": role, "content": content} for role, content in said]
    found = made.apply_chat_template(
        chat, chat_template=TEMPLATE, end=end, return_dict=True, return_assistant_tokens_mask=True
    )
    tokens = made.convert_ids_to_tokens(found["input_ids"])
    return " ".join(token for token, mask in zip(tokens, found["assistant_masks"]) if mask)


byte_level = tokenizer(pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.ByteLevel.alphabet())
split = tokenizer(pre_tokenizers.WhitespaceSplit(), [])
print("byte-level, newline at the end:", marked(byte_level, "hello there", "\n"))
print("split at white space, newline at the end:", marked(split, "hello there", "\n"))
print("byte-level, three-byte character at the end:", marked(byte_level, "hello \u20ac", ""))
PYTHON
env/bin/python mask.py 2>/dev/null | tee seen
diff seen - <<'EXPECTED'
byte-level, newline at the end: hello Ġthere Ċ
split at white space, newline at the end: hello there <|user|> how are you
byte-level, three-byte character at the end: hello Ġ â
EXPECTED
