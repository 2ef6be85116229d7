"""Rows of conversations: which tokens the assistant, or others, say, by a template's tag and by prefixes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from byte_pairs import MARKED, UNMARKED, byte_pairs
from language_models import language_tokenizer

from hskcache.errors import DataError, TeacherError
from hskcache.teacher.inputs import save_tokenizer
from hskcache.text.language.chat import check_chat, conversations
from hskcache.text.language.rows import LanguageRows
from hskcache.text.language.turns import ASSISTANT, Turns

TALK = [
    {"role": "system", "content": "this movie"},
    {"role": "user", "content": "What is it?"},
    {"role": "assistant", "content": "It is a film.\n\nIs it?"},
    {"role": "user", "content": "  the film\n"},
    {"role": "assistant", "content": " dull "},
]


def file_of(folder: Path, *talks: Any) -> Path:
    path = folder / "chat.jsonl"
    path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks), encoding="utf-8")
    return path


def made_of(path: Path, template: str, roles: tuple[str, ...] = (ASSISTANT,), max_length: int = 512) -> LanguageRows:
    return conversations(path, Turns(byte_pairs(template), roles, "a teacher"), max_length)


def said(made: LanguageRows, row: int = 0) -> list[str]:
    """Runs of tokens that are predicted, as text."""
    part = slice(*made.rows.offsets[row : row + 2])
    assert made.rows.targets is not None
    ids, targets = made.rows.input_ids[part], made.rows.targets[part]
    tokenizer, runs = byte_pairs(), np.split(np.arange(len(ids)), np.flatnonzero(np.diff(targets.astype(int))) + 1)
    return [tokenizer.decode(ids[run]) for run in runs if targets[run[0]]]


def test_what_the_assistant_says_and_the_closing_token_are_predicted(tmp_path: Path) -> None:
    made = made_of(file_of(tmp_path, TALK), UNMARKED)
    assert said(made) == ["It is a film.\n\nIs it?<|end|>", " dull <|end|>"]
    assert (made.made.by, made.made.form, made.made.num_documents) == ("prefixes", "conversations", 1)
    text = byte_pairs(UNMARKED).apply_chat_template(TALK, tokenize=False)
    assert byte_pairs().decode(made.rows.input_ids) == text


def test_tag_and_prefixes_agree(tmp_path: Path) -> None:
    path = file_of(tmp_path, TALK, TALK[1:3], TALK[1:])
    tagged, proven = made_of(path, MARKED), made_of(path, UNMARKED)
    assert (tagged.made.by, proven.made.by) == ("tag", "prefixes")
    assert tagged.rows.input_ids.tolist() == proven.rows.input_ids.tolist()
    assert tagged.rows.targets is not None
    assert proven.rows.targets is not None
    assert tagged.rows.targets.tolist() == proven.rows.targets.tolist()


def test_other_roles_are_found_where_their_words_begin(tmp_path: Path) -> None:
    made = made_of(file_of(tmp_path, TALK), MARKED, ("user", "system"))
    assert said(made) == ["this movie<|end|>", "What is it?<|end|>", "  the film\n<|end|>"]
    assert made.made.by == "prefixes"


def test_a_template_without_a_prompt_for_answers_and_a_first_turn_of_the_assistant(tmp_path: Path) -> None:
    template = "{% for one in messages %}{{ one['role'] }}: {{ one['content'].strip() }}<|end|>\n{% endfor %}"
    talk = [{"role": "assistant", "content": "a film"}, TALK[1], {"role": "assistant", "content": " dull "}]
    # Here a token holds the blank of the template and the beginning of what is said.
    assert said(made_of(file_of(tmp_path, talk), template)) == [" a film<|end|>", " dull<|end|>"]


def test_prefixes_that_do_not_nest_are_refused(tmp_path: Path) -> None:
    last_alone = "{% for one in messages %}{{ one['role'] }} {{ one['content'] if loop.last else '...' }}|{% endfor %}"
    with pytest.raises(DataError, match=r"line 1: .* the first 3 turns otherwise when more follow.*\{% generation %\}"):
        made_of(file_of(tmp_path, TALK), last_alone)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"messages": [{"role": "user", "content": "a"}]}', "no turn of assistant"),
        ('{"messages": []}', "no messages"),
        ('{"text": "a"}', "no messages"),
        ("[1]", "no messages"),
        ('{"messages": [{"content": "a"}]}', "turn 1 has no role"),
        ('{"messages": ', "not JSON"),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]}',
            "turn 2 has no content",
        ),
        ('{"messages": [{"role": "user"}, {"role": "assistant", "content": "a"}]}', "turn 1 has no content"),
        (
            '{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}',
            "turn 1 is a list and no text",
        ),
        ('{"messages": [{"role": "assistant", "content": "a"}], "tools": 3}', "tools"),
    ],
)
def test_a_line_that_makes_no_row_is_refused_or_left_out(line: str, words: str, tmp_path: Path) -> None:
    path = file_of(tmp_path, TALK)
    path.write_text(path.read_text() + "\n" + line + "\n")
    template = UNMARKED.replace("<|end|>", "")
    with pytest.raises(DataError, match=f"line 3: .*{words}.*--bad-rows skip"):
        made_of(path, template)
    made = conversations(path, Turns(byte_pairs(template), (ASSISTANT,), "a teacher"), 512, "skip")
    assert len(made.rows) == 1
    assert made.reading is not None
    assert [number for number, _ in made.reading.bad] == [3]


def test_long_conversations_are_cut_behind_the_last_target_and_counted(tmp_path: Path) -> None:
    path = file_of(tmp_path, TALK)
    whole = made_of(path, UNMARKED)
    assert whole.rows.targets is not None
    second = int(np.flatnonzero(whole.rows.targets & ~np.roll(whole.rows.targets, 1))[1])
    made = made_of(path, UNMARKED, max_length=second)
    assert said(made) == ["It is a film.\n\nIs it?<|end|>"]
    assert int(made.rows.lengths[0]) < second
    assert made.rows.cut.num_rows == 1
    with pytest.raises(DataError, match=f"--max-length {len(whole.rows.input_ids)}"):
        made_of(path, UNMARKED, max_length=8)


def test_a_template_that_refuses_a_conversation_is_told(tmp_path: Path) -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match=r"line 1: the chat template refuses it \(roles must alternate"):
        made_of(file_of(tmp_path, TALK), template)


def test_a_tokenizer_without_a_template_is_refused() -> None:
    with pytest.raises(TeacherError, match=r"has no chat template; put the chat_template\.jinja"):
        Turns(byte_pairs(), (ASSISTANT,), "a teacher")
    with pytest.raises(DataError, match=r"no \.jsonl file"):
        check_chat(Path(__file__))


def test_another_template_is_another_tokenizer_and_makes_other_rows(tmp_path: Path) -> None:
    digests = {save_tokenizer(byte_pairs(template), False).sha256 for template in (None, MARKED, UNMARKED)}
    assert len(digests) == 3
    path = file_of(tmp_path, TALK)
    assert made_of(path, MARKED).fingerprint == made_of(path, UNMARKED).fingerprint
    assert made_of(path, MARKED).fingerprint != made_of(path, MARKED.replace("<|end|>", "")).fingerprint


def test_the_templates_of_real_models_nest(tmp_path: Path) -> None:
    own = language_tokenizer()
    # As ChatML has it, with a system turn of its own where there is none.
    own.chat_template = (
        "{% for one in messages %}{% if loop.first and one['role'] != 'system' %}<s>system\nHelp.</s>\n{% endif %}"
        "<s>{{ one['role'] }}\n{{ one['content'] }}</s>\n{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
    )
    made = conversations(file_of(tmp_path, TALK[1:]), Turns(own, (ASSISTANT,), "a teacher"), 512)
    assert made.rows.targets is not None
    assert own.decode(made.rows.input_ids[made.rows.targets]) == "It is a film.\n\nIs it?</s> dull </s>"


def test_marked_turns_are_whole_and_end_where_they_do(tmp_path: Path) -> None:
    talk = [TALK[1], {"role": "assistant", "content": "a film of 5 \u20ac"}, TALK[1]]
    inside = MARKED.replace("<|end|>{% endgeneration %}", "\n{% endgeneration %}")
    made = made_of(file_of(tmp_path, talk), inside)
    # The last character is three tokens.
    assert said(made) == ["a film of 5 \u20ac"]
    from tokenizers import pre_tokenizers

    split = byte_pairs(inside)
    split.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    # No token holds the line break that ends the turn.
    made = conversations(file_of(tmp_path, talk), Turns(split, (ASSISTANT,), "a teacher"), 512)
    assert made.rows.targets is not None
    assert split.decode(made.rows.input_ids[made.rows.targets]) == "afilmof5\u20ac"
