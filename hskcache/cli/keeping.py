"""The options that say what to keep of a teacher."""

from pathlib import Path
from typing import get_args

import click

from hskcache.build.keeping import Keeping
from hskcache.cli.options import teacher_option, texts
from hskcache.completion import keeps
from hskcache.encoded import ENCODED
from hskcache.options import Command, device, gathered, with_options
from hskcache.ranges import Whole
from hskcache.spec import SCORES, ComputeDtype, PairsName, PoolingWord, ScoreLayer, WidthName

# Defaults are None here and told in the help, so that an option that was not given leaves what --spec says.
_OPTIONS = (
    click.option(
        "--keep",
        metavar="1l_10t_0.1h",
        help="Layers, tokens or a share of them (0.2t), share of columns; a part left out keeps all; full, none. Of a "
        "language model a number of tokens alone is of next tokens.",
        shell_complete=keeps,
    ),
    click.option("--student-layers", type=Whole(min=1), help="Layers of the student to come.  [default: 4]"),
    click.option("--depth-target", type=Whole(min=1), help="Teacher layer of the top student layer.  [default: last]"),
    click.option(
        "--layer-map",
        metavar="uniform|top|bottom|3,6,9,12",
        help="Which teacher layer each student layer learns from.  [default: uniform]",
    ),
    click.option(
        "--student-layer-numbers",
        metavar="1,3",
        help="Student layers that are kept, 0 the embedding output.  [default: the top ones, as many as --keep says]",
    ),
    click.option(
        "--store-layers",
        metavar="mapped|all|0,6,12",
        help="Teacher layers to store: those of the map, all for students of any map, or these.  [default: mapped]",
    ),
    click.option(
        "--attention",
        metavar="2l_16t",
        help="Attention scores: layers and tokens as in --keep; full, none.  [default: none]",
    ),
    click.option("--heads", metavar="all|mean|0,3", help="Which heads' attention.  [default: all]"),
    click.option(
        "--embedding",
        type=click.Choice((*get_args(PoolingWord), "none")),
        help="One vector of each row: the last states pooled as a sentence-transformers folder says (model), or so; "
        "none. Of an encoder without a classifier the rows are the texts of --data.  [default: none]",
    ),
    click.option("--dims", type=Whole(min=1), help="Of --embedding: the first so many values.  [default: all]"),
    click.option(
        "--normalize/--no-normalize",
        default=None,
        help="Of --embedding: whether each has length 1.  [default: as the teacher's folder says, else no]",
    ),
    click.option(
        "--prompt",
        metavar="TEXT",
        help="Of --embedding: text before each row, or the name of one of the teacher's.  [default: the teacher's own]",
    ),
    click.option(
        "--vocabulary",
        metavar="top:32|sampled:50|head|none",
        help="Of a causal language model: what it says of each next token, its likeliest tokens, draws, or its last "
        "states and head, these in an encoding as in head:int4.  [default: top:32]",
    ),
    click.option(
        "--score",
        type=click.Choice(tuple(SCORES)),
        help="What ranks positions; entropy, loss, last: of a language model.  [default: attention]",
    ),
    click.option(
        "--score-layer",
        type=click.Choice(get_args(ScoreLayer)),
        help="Whose attention scores: that of each layer, the teacher's last, or the map's last.  [default: producing]",
    ),
    click.option(
        "--specials/--no-specials", default=None, help="Whether [SEP] and its like may be kept.  [default: specials]"
    ),
    click.option("--width", type=click.Choice(get_args(WidthName)), help="What ranks columns.  [default: magnitude]"),
    click.option(
        "--encoding",
        type=click.Choice(tuple(ENCODED)),
        help="How values are stored.  [default: int8; of embeddings float16]",
    ),
    click.option(
        "--max-length",
        type=Whole(min=3),
        help="Tokens of a row at most.  [default: the teacher's, the task's or 128; of a language model 1024]",
    ),
    click.option(
        "--stride",
        type=Whole(min=0),
        help="Read rows that are longer than the teacher reads in windows that share so many tokens; --max-length is "
        "then beyond what it reads.  [default: such rows are cut]",
    ),
    click.option("--token-budget", type=Whole(min=1), help="Padded tokens of one teacher batch.  [default: 4096]"),
    click.option(
        "--dtype", type=click.Choice(get_args(ComputeDtype)), help="What the teacher computes in.  [default: float32]"
    ),
    click.option("--shard-rows", type=Whole(min=1), help="Rows of a shard.  [default: from the size of a row]"),
    click.option(
        "--pairs",
        type=click.Choice(get_args(PairsName)),
        help="Of --corpus: rows of two texts, the second what follows (next), of another document (random), or half of "
        "each.  [default: mixed for teachers with two token types, else none]",
    ),
    click.option(
        "--short-rows",
        type=click.FloatRange(0.0, 1.0),
        help="Of --corpus: share of rows whose length is drawn.  [default: 0.1 of pairs, else 0]",
    ),
    click.option(
        "--copies", type=Whole(min=1), help="Of --corpus: pack it so often, each time cut elsewhere.  [default: 1]"
    ),
    click.option(
        "--mask",
        type=click.FloatRange(0.0, 1.0, max_open=True),
        help="Of --corpus: share of words to mask, for teacher and student alike.  [default: 0]",
    ),
    click.option("--seed", type=Whole(min=0), help="Of all that is drawn of --corpus.  [default: 0]"),
    click.option(
        "--spec",
        "spec_file",
        type=click.Path(path_type=Path),
        help="All of this and the seeds as YAML or JSON, as `info --spec` prints it; flags override it.",
    ),
)


def keeping(command: Command) -> Command:
    """Give a command everything that decides what is kept as one argument ``keeping``."""
    return with_options(_OPTIONS, gathered(Keeping, "keeping")(command))


def job_options(command: Command) -> Command:
    """A teacher, the texts it runs over, what is kept, and where it computes."""
    return teacher_option(texts(keeping(device(command))))
