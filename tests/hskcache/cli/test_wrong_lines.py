"""Command lines that are wrong in the ways of people: each ends in one line and exit code 2, never in a traceback."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hskcache.cli import main as hskcache
from trainer.cli import main as hsktrain


@pytest.fixture(scope="module")
def place(cache: Path, tiny_teacher_dir: Path, tsv_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache, a teacher, data, and things that are none of these."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "cache").symlink_to(cache)
    (folder / "teacher").symlink_to(tiny_teacher_dir)
    (folder / "data.tsv").symlink_to(tsv_file)
    (folder / "binary.tsv").write_bytes(bytes(range(256)) * 8)
    (folder / "binary.csv").write_bytes(bytes(range(256)) * 8)
    (folder / "binary.jsonl").write_bytes(bytes(range(256)) * 8)
    (folder / "binary.parquet").write_bytes(bytes(range(256)) * 8)
    (folder / "binary.yaml").write_bytes(bytes(range(256)) * 8)
    (folder / "nul.csv").write_text("sentence,label\nfi\0ne,1\nbad,0\n")
    (folder / "header.csv").write_text("sentence,label\n")
    (folder / "list.yaml").write_text("- 1\n- 2\n")
    (folder / "word.yaml").write_text("hello\n")
    (folder / "empty.yaml").write_text("")
    (folder / "nan.yaml").write_text("max_length: .nan\nhidden: {width: {fraction: .nan}}\n")
    (folder / "deep.yaml").write_text("[" * 3000 + "]" * 3000)
    (folder / "tag.yaml").write_text("!!python/object/apply:os.system ['true']\n")
    (folder / "stages.yaml").write_text("name: x\nstages: {a: 1}\n")
    (folder / "stagelist.yaml").write_text("name: x\nstages: [1, 2]\n")
    (folder / "task.yaml").write_text("name: [1]\ntext: {a: 1}\n")
    (folder / "array.json").write_text("[1, 2]")
    (folder / "nan.json").write_text('{"model_type": "bert", "hidden_size": NaN}')
    (folder / "words.json").write_text('{"model_type": "bert", "hidden_size": "wide"}')
    (folder / "odd.json").write_text('{"model_type": "bert", "hidden_size": 33, "num_attention_heads": 2}')
    (folder / "less.json").write_text('{"model_type": "bert", "hidden_size": -32, "num_hidden_layers": -1}')
    (folder / "untyped.json").write_text("{}")
    (folder / "strange.json").write_text('{"model_type": "strange"}')
    (folder / "empty").mkdir()
    (folder / "empty.tar").write_bytes(b"")
    (folder / "config-only").mkdir()
    (folder / "config-only" / "config.json").write_text("[]")
    (folder / "words.txt").write_text("one\ntwo\n")
    return folder


BUILD = "hskcache build --device cpu --task sst2 --out o"
FIT = "hsktrain fit --device cpu --out o --eval-data data.tsv"
FINETUNE = "hsktrain finetune --device cpu --out o --tokenizer teacher --task sst2"
STARK = "hsktrain stark --device cpu --out o --task sst2 --eval-data data.tsv"
LINES = f"""
{BUILD} --teacher data.tsv --data data.tsv
{BUILD} --teacher empty --data data.tsv
{BUILD} --teacher cache --data data.tsv
{BUILD} --teacher config-only --data data.tsv
{BUILD} --teacher teacher --data teacher
{BUILD} --teacher teacher --data cache
{BUILD} --teacher teacher --data empty
{BUILD} --teacher teacher --data binary.tsv
{BUILD} --teacher teacher --data binary.csv
{BUILD} --teacher teacher --data binary.jsonl
{BUILD} --teacher teacher --data binary.parquet
{BUILD} --teacher teacher --data header.csv
{BUILD} --teacher teacher --data words.txt
{BUILD} --teacher teacher --data data.tsv --spec list.yaml
{BUILD} --teacher teacher --data data.tsv --spec word.yaml
{BUILD} --teacher teacher --data data.tsv --spec nan.yaml
{BUILD} --teacher teacher --data data.tsv --spec deep.yaml
{BUILD} --teacher teacher --data data.tsv --spec tag.yaml
{BUILD} --teacher teacher --data data.tsv --spec binary.yaml
{BUILD} --teacher teacher --data data.tsv --spec empty
{BUILD} --teacher teacher --data data.tsv --task list.yaml
{BUILD} --teacher teacher --data data.tsv --task task.yaml
{BUILD} --teacher teacher --data data.tsv --task deep.yaml
{BUILD} --teacher teacher --data data.tsv --task empty
{BUILD} --teacher teacher --data data.tsv --out data.tsv
{BUILD} --teacher teacher --data data.tsv --out teacher
{BUILD} --teacher teacher --data data.tsv --shard-rows -3
{BUILD} --teacher teacher --data data.tsv --max-length 99999999999999999999
{BUILD} --teacher teacher --data data.tsv --token-budget 0
{BUILD} --teacher teacher --data data.tsv --layer-map 1,,2
{BUILD} --teacher teacher --data data.tsv --store-layers -1
{BUILD} --teacher teacher --data data.tsv --attention 2l --heads 99
{BUILD} --teacher teacher --data data.tsv --device cuda:x
{BUILD} --teacher teacher --data data.tsv --add-field logits --name ../x
{BUILD} --teacher teacher --add-field logits --name s --out empty
hskcache build --device cpu --out o --teacher teacher --corpus binary.tsv
hskcache build --device cpu --out o --teacher teacher --corpus empty
hskcache build --device cpu --out o --teacher cache --corpus words.txt
hskcache append cache --teacher cache --data data.tsv
hskcache append teacher --teacher teacher --data data.tsv
hskcache append data.tsv --teacher teacher --data data.tsv
hskcache info teacher
hskcache info data.tsv
hskcache view data.tsv 0
hskcache view cache -- -1
hskcache view cache 99999999999999999999
hskcache verify data.tsv
hskcache verify binary.tsv
hskcache audit data.tsv --teacher teacher
hskcache audit cache --teacher cache
hskcache audit cache --teacher empty
hskcache diff cache data.tsv
hskcache diff cache teacher
hskcache repair data.tsv
hskcache repair teacher
hskcache export cache cache
hskcache export cache empty
hskcache export teacher x.h5
hskcache import data.tsv o
hskcache import empty o
hskcache import binary.parquet o
hskcache import cache o
hskcache pack cache cache
hskcache pack cache empty
hskcache pack teacher x.tar
hskcache unpack data.tsv o
hskcache unpack empty o
hskcache unpack empty.tar o
hskcache unpack cache o
hskcache unpack binary.tsv o
hskcache pull data.tsv o
hskcache pull file://nowhere/at/all o
hskcache pull nonsense://x/y o
hskcache push teacher file:///tmp/none/x
hskcache push cache nonsense://x/y
hskcache push cache data.tsv
hskcache sparsify --device cpu --teacher cache --out o --data data.tsv --task sst2 --balance 1
hskcache sparsify --device cpu --teacher teacher --out data.tsv --data data.tsv --task sst2 --balance 1
hskcache sparsify --device cpu --teacher teacher --out o --scores data.tsv
hskcache sparsify --device cpu --teacher teacher --out o --scores empty
hskcache sparsify --device cpu --teacher teacher --out o --data data.tsv --task sst2 --trial-student cache
hskcache sparsify --device cpu --teacher teacher --out o --data data.tsv --task sst2 --balance nan
hskcache sparsify --device cpu --teacher teacher --out o --method magnitude --sparsity 10,x
hskcache sparsify --device cpu --teacher teacher --out o --method magnitude --sparsity 0,10,...
hskcache sparsify --device cpu --teacher teacher --out o --method magnitude --sparsity 0,-10
hskcache augment --data data.tsv --task sst2 --out data.tsv --masked-lm teacher
hskcache augment --data data.tsv --task sst2 --out o.tsv --masked-lm cache
hskcache augment --data data.tsv --task sst2 --out o.tsv --vectors data.tsv
hskcache augment --data data.tsv --task sst2 --out o.tsv --vectors empty
hskcache augment --data data.tsv --task sst2 --out o.tsv --vectors binary.tsv
hskcache augment --data data.tsv --task sst2 --out o.tsv --masked-lm teacher --words [
hskcache augment --data data.tsv --task sst2 --out o.tsv --masked-lm teacher --stop-words empty
hskcache augment --data data.tsv --task sst2 --out o.tsv --masked-lm teacher --stop-words binary.tsv
hskcache augment --data data.tsv --task sst2 --out none/o.tsv --masked-lm teacher
{FIT} --cache teacher --student odd.json
{FIT} --cache data.tsv --student odd.json
{FIT} --cache empty --student odd.json
{FIT} --cache cache --student odd.json
{FIT} --cache cache --student less.json
{FIT} --cache cache --student words.json
{FIT} --cache cache --student nan.json
{FIT} --cache cache --student array.json
{FIT} --cache cache --student untyped.json
{FIT} --cache cache --student strange.json
{FIT} --cache cache --student cache
{FIT} --cache cache --student empty
{FIT} --cache cache --student data.tsv
{FIT} --cache cache --student config-only
{FIT} --cache cache --student teacher --out data.tsv
{FIT} --cache cache --student teacher --eval-data cache
{FIT} --cache cache --student teacher --recipe list.yaml
{FIT} --cache cache --student teacher --recipe word.yaml
{FIT} --cache cache --student teacher --recipe empty.yaml
{FIT} --cache cache --student teacher --recipe deep.yaml
{FIT} --cache cache --student teacher --recipe stages.yaml
{FIT} --cache cache --student teacher --recipe stagelist.yaml --set a.b=1
{FIT} --cache cache --student teacher --recipe empty
{FIT} --cache cache --student teacher --recipe binary.yaml
{FIT} --cache cache --student teacher --set hidden.losses=3
{FIT} --cache cache --student teacher --set hidden.losses.hidden.x.y=3
{FIT} --cache cache --student teacher --set hidden.name.x=3
{FIT} --cache cache --student teacher --set hidden.epochs=[
{FIT} --cache cache --student teacher --set hidden.epochs=nan
{FIT} --cache cache --student teacher --set hidden.epochs=-1
{FIT} --cache cache --student teacher --set =
{FIT} --cache cache --student teacher --field logits=x
{FIT} --cache cache --student teacher --field =
{FIT} --cache cache --student teacher --field logits=nan
{FIT} --cache cache --student teacher --layer-map x
{FIT} --cache cache --student teacher --rows 99999
{FIT} --cache file:///none/at/all --student teacher
{FIT} --cache cache --student teacher --local-bytes -3
{FIT} --teacher teacher --data data.tsv --spec list.yaml --student teacher
{FIT} --teacher cache --data data.tsv --spec empty.yaml --student teacher --task sst2
{FINETUNE} --model cache --data data.tsv --eval-data data.tsv
{FINETUNE} --model empty --data data.tsv --eval-data data.tsv
{FINETUNE} --model data.tsv --data data.tsv --eval-data data.tsv
{FINETUNE} --model nan.json --data data.tsv --eval-data data.tsv
{FINETUNE} --model array.json --data data.tsv --eval-data data.tsv
{FINETUNE} --model less.json --data data.tsv --eval-data data.tsv
{FINETUNE} --model teacher --data data.tsv --eval-data binary.tsv
{FINETUNE} --model teacher --data data.tsv --eval-data data.tsv --tokenizer data.tsv
{FINETUNE} --model teacher --data data.tsv --eval-data data.tsv --tokenizer cache
{FINETUNE} --model teacher --data data.tsv --eval-data data.tsv --tokenizer empty
{FINETUNE} --model teacher --data data.tsv --eval-data data.tsv --out data.tsv
{FINETUNE} --model teacher --data data.tsv --eval-data data.tsv --out teacher
{FINETUNE} --model teacher --data data.tsv --eval-data data.tsv --lr nan
{FINETUNE} --model teacher --data data.tsv --eval-data data.tsv --lr inf
{FINETUNE} --model teacher --data data.tsv --eval-data data.tsv --weight-decay nan
{FINETUNE} --model teacher --data data.tsv --eval-data data.tsv --warmup-ratio nan
{FINETUNE} --model teacher --data data.tsv --eval-data data.tsv --seed 99999999999999999999
{FINETUNE} --model teacher --data data.tsv --eval-data data.tsv --epochs 99999999999999999999
{FINETUNE} --model teacher --data data.tsv --eval-data data.tsv --batch-size 99999999999999999999
hsktrain create cache --out o
hsktrain evaluate cache --data data.tsv --task sst2
hsktrain evaluate empty --data data.tsv --task sst2
hsktrain evaluate data.tsv --data data.tsv --task sst2
hsktrain evaluate teacher --data cache --task sst2
hsktrain evaluate teacher --data binary.tsv --task sst2
hsktrain evaluate teacher --data data.tsv --task mnli
{STARK} --teacher cache --student teacher --data data.tsv
{STARK} --teacher teacher --student cache --data data.tsv
{STARK} --teacher teacher --student teacher --data teacher
{STARK} --teacher teacher --student teacher --data data.tsv --out data.tsv
{STARK} --teacher teacher --student teacher --data data.tsv --out teacher
{STARK} --teacher teacher --student teacher --data data.tsv --recipe mud
{STARK} --teacher teacher --student teacher --data data.tsv --sparsity 1,x
{STARK} --teacher teacher --student teacher --data data.tsv --compare all
{STARK} --teacher teacher --student teacher --data data.tsv --balance nan
"""


def run(line: str, out: Path) -> Result:
    program, *args = (str(out) if word == "o" else word for word in line.split())
    return CliRunner().invoke(hskcache if program == "hskcache" else hsktrain, args)


@pytest.mark.parametrize("line", [line for line in LINES.splitlines() if line])
def test_a_wrong_line_ends_in_one_that_says_so(
    line: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    result = run(line, tmp_path / "o")
    said = result.stderr.splitlines()
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 2, said[-3:]
    assert said[-1].startswith(("error: ", "Error: "))
    assert not any("Traceback" in one for one in said)
    assert len(said[-1]) < 700
