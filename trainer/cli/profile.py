"""``hsktrain profile``: what a model costs, beside another."""

from typing import TYPE_CHECKING, Any

import click

from hskcache import console, runtime, units
from hskcache.completion import places
from hskcache.errors import SpecError
from hskcache.options import as_json, device
from hskcache.ranges import Whole
from hskcache.system import load
from trainer.cli import options

if TYPE_CHECKING:
    from trainer.profiling import ProfiledModel, Speed

_LIMIT = 1 << 16


class _Numbers(click.ParamType):  # type: ignore[type-arg]
    """Whole numbers above 0 with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        flag = "the numbers" if param is None else param.opts[0]
        words = [word.strip() for word in str(value).split(",")]
        if not all(word.isascii() and word.isdigit() and 0 < int(word) <= _LIMIT for word in words):
            raise SpecError(f"{flag} {value!r}: give whole numbers from 1 to {_LIMIT} with commas between: 32,128")
        return tuple(dict.fromkeys(map(int, words)))


@click.command()
@click.argument("model", shell_complete=places)
@click.option("--against", metavar="TEACHER", help="Another model, to compare with: like MODEL.", shell_complete=places)
@click.option("--lengths", type=_Numbers(), default="128", metavar="32,128", help="Tokens of the rows.")
@click.option("--batch-sizes", type=_Numbers(), default="1,32", metavar="1,32", help="Rows of a forward pass.")
@click.option("--repetitions", type=Whole(min=1), default=7, help="Of each side in each setting.")
@click.option("--no-speed", is_flag=True, help="Leave out rows a second, which alone take long.")
@options.bf16
@device
@as_json
def profile(
    model: str,
    against: str | None,
    lengths: tuple[int, ...],
    batch_sizes: tuple[int, ...],
    repetitions: int,
    no_speed: bool,
    bf16: bool,
    device: str,
    as_json: bool,
) -> None:
    """Tell parameters, bytes, FLOPs a row and rows a second of MODEL.

    MODEL is a shape by name (tinybert4, tinybert6, rosita6, bert-base), a config.json, a folder or a hub id; shapes
    have random weights. With --against both take turns in one run, and ratios say how many times smaller, cheaper or
    faster MODEL is, with the quartiles over repetitions. FLOPs count matrix products, two for each product and sum.
    """
    place = runtime.resolve_device(device)
    from trainer import profiling

    with runtime.quiet():
        sources = {"model": model} | ({} if against is None else {"against": against})
        sides = {name: profiling.open_side(source, place) for name, source in sources.items()}
    for side in sides.values():
        side.require_lengths(lengths)
    flops = {name: {length: side.flops(length) for length in lengths} for name, side in sides.items()}
    timings = [] if no_speed else _timed(sides, (lengths, batch_sizes), repetitions, bf16)
    if as_json:
        console.print_json(_facts(sides, flops, timings, place))
    else:
        click.echo(_table(sides, flops, timings))


def _timed(
    sides: "dict[str, ProfiledModel]", settings: tuple[tuple[int, ...], tuple[int, ...]], repetitions: int, bf16: bool
) -> "list[Speed]":
    from trainer.profiling import speeds

    lengths, batch_sizes = settings
    total = len(sides) * len(lengths) * len(batch_sizes) * (repetitions + 1)
    with console.advancing("profile", total, "runs") as advance:
        return list(speeds(sides, settings, repetitions, bf16, advance))


def _table(sides: "dict[str, ProfiledModel]", flops: dict[str, dict[int, int]], found: "list[Speed]") -> str:
    from trainer.study.aligned import aligned

    heads = ["ratio", "(quartiles)" if found else ""] if len(sides) > 1 else []
    lines = [["", *(side.source for side in sides.values()), *heads]]
    costs = {
        "parameters": {name: side.num_parameters for name, side in sides.items()},
        "bytes": {name: side.num_bytes for name, side in sides.items()},
        **{f"FLOPs a row, L={length}": {name: flops[name][length] for name in sides} for length in flops["model"]},
    }
    for what, values in costs.items():
        told = [units.human_bytes(value) if what == "bytes" else _short(value) for value in values.values()]
        ratio = [f"{values['against'] / values['model']:.2f}x", ""] if len(sides) > 1 else []
        lines.append([what, *told, *ratio])
    for speed in found:
        rates = [f"{speed.rows_a_second(name):,.1f}" for name in sides]
        ratio = []
        if len(sides) > 1:
            quartiles = speed.times.spread("against", "model")
            ratio = [f"{speed.times.ratio('against', 'model'):.2f}x", "({:.2f}-{:.2f})".format(*quartiles)]
        lines.append([f"rows/s, L={speed.length}, B={speed.batch_size}", *rates, *ratio])
    return aligned(lines, num_words=1)


def _short(count: float) -> str:
    """A count with three digits: ``14.4 M``."""
    units = ["", " k", " M", " G", " T"]
    while count >= 999.5 and len(units) > 1:
        count, units = count / 1000, units[1:]
    digits = 0 if count >= 99.95 or units[0] == "" else 1 if count >= 9.995 else 2
    return f"{count:.{digits}f}{units[0]}"


def _facts(
    sides: "dict[str, ProfiledModel]", flops: dict[str, dict[int, int]], found: "list[Speed]", device: str
) -> dict[str, Any]:

    import torch

    facts: dict[str, Any] = {
        name: {
            "source": side.source,
            "class": type(side.model).__name__,
            "num_parameters": side.num_parameters,
            "num_bytes": side.num_bytes,
            "on_disk": side.file_bytes is not None,
            "flops": {str(length): count for length, count in flops[name].items()},
        }
        for name, side in sides.items()
    }
    facts["speed"] = [_speed_facts(speed, list(sides)) for speed in found]
    about = {"threads": torch.get_num_threads(), "load": load()}
    return facts | {"environment": runtime.environment(torch.device(device)) | about}


def _speed_facts(speed: "Speed", names: list[str]) -> dict[str, Any]:
    rates = {name: speed.rows_a_second(name) for name in names}
    facts = {"length": speed.length, "batch_size": speed.batch_size, "rows_a_second": rates}
    if len(names) > 1:
        facts["times_as_fast"] = speed.times.ratio("against", "model")
        facts["quartiles"] = list(speed.times.spread("against", "model"))
    return facts | {"seconds_a_row": {name: speed.times.seconds[name] for name in names}}
