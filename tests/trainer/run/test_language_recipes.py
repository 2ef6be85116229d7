"""Recipes for language models beside the plain one, and students whose chats look otherwise."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from language_models import TEMPLATE, language_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from hskcache.cli import main as hskcache
from trainer.cli import main as hsktrain

SENTENCES = [
    f"{subject} {end}." for subject in ("the film", "this story") for end in ("is warm", "is dull", "has charm")
]


def done(group: Any, *args: object) -> Result:
    result = CliRunner().invoke(group, list(map(str, args)), catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result


@pytest.mark.parametrize("recipe", ["lm-hidden", "heal"])
def test_the_recipe_runs_to_a_checkpoint_that_says_the_text_better(recipe: str, tmp_path: Path) -> None:
    teacher, text = language_model(tmp_path / "teacher"), tmp_path / "text.txt"
    text.write_text("\n\n".join(SENTENCES) + "\n")
    kept = ("--keep", "full", "--student-layers", 2, "--max-length", 16, "--vocabulary", "top:8")
    done(
        hskcache, "build", "--teacher", teacher, "--corpus", text, *kept, "--out", tmp_path / "c.hsk", "--device", "cpu"
    )
    done(hsktrain, "create", "--from", teacher, "--layers", "2,4", "--out", tmp_path / "start")
    given = ("--cache", tmp_path / "c.hsk", "--student", tmp_path / "start", "--recipe", recipe, "--device", "cpu")
    tuned = [("--set", f"{stage}.{key}") for stage in ("hidden", "prediction") for key in ("batch_size=3", "epochs=4")]
    settings = [one for pair in tuned if recipe == "lm-hidden" or "prediction" in pair[1] for one in pair]
    out = tmp_path / "student"
    done(hsktrain, "fit", *given, *settings, "--eval-data", text, "--out", out)
    before, after = (
        json.loads(done(hsktrain, "evaluate", "--model", model, "--corpus", text, "--json").stdout)["metrics"]
        for model in (tmp_path / "start", out)
    )
    assert after["bits_per_byte"] < before["bits_per_byte"]
    assert AutoModelForCausalLM.from_pretrained(out).config.num_hidden_layers == 2


def test_a_student_with_another_chat_template_is_refused(tmp_path: Path) -> None:
    teacher, chats = language_model(tmp_path / "teacher"), tmp_path / "chats.jsonl"
    turns = [{"role": "user", "content": "how was it"}, {"role": "assistant", "content": "it was warm"}]
    chats.write_text(json.dumps({"messages": turns}) + "\n")
    out = ("--out", tmp_path / "c.hsk", "--device", "cpu")
    done(hskcache, "build", "--teacher", teacher, "--chat", chats, "--vocabulary", "top:8", *out)
    student = language_model(tmp_path / "student")
    given = ("fit", "--cache", tmp_path / "c.hsk", "--student", student, "--recipe", "lm", "--device", "cpu", "--out")
    done(hsktrain, *given, tmp_path / "same")
    tokenizer = AutoTokenizer.from_pretrained(student)
    tokenizer.chat_template = TEMPLATE.replace(": ", " says ")
    tokenizer.save_pretrained(student)
    refused = CliRunner().invoke(hsktrain, [*map(str, given), str(tmp_path / "other")])
    assert refused.exit_code == 2
    assert "the chat template of" in refused.stderr
    assert not (tmp_path / "other").exists()
