"""Flags and the file of --spec add up to one spec."""

from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hskcache.build.keeping import Keeping
from hskcache.cli.keeping import keeping
from hskcache.errors import SpecError
from hskcache.spec import Attention, Depth, Hidden, Length, Spec, Width

FOUND: list[Spec] = []


@click.command()
@keeping
def collect(keeping: Keeping) -> None:
    FOUND.append(keeping.spec())


def spec(*args: object) -> Spec:
    result = CliRunner().invoke(collect, list(map(str, args)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return FOUND[-1]


def refusal(*args: object) -> str:
    with pytest.raises(SpecError) as error:
        CliRunner().invoke(collect, list(map(str, args)), catch_exceptions=False)
    return str(error.value)


def test_no_flags_are_the_default() -> None:
    assert spec() == Spec()
    # The teacher or the task may know better.
    assert "max_length" not in spec().model_fields_set
    assert spec("--pairs", "none").packing.model_fields_set == {"pairs"}


def test_every_flag_sets_its_key() -> None:
    everything = spec(
        *("--keep", "2l_7t_0.3h", "--student-layers", 6, "--depth-target", 10, "--score", "received"),
        *("--score-layer", "last", "--no-specials", "--width", "uniform", "--encoding", "int4", "--max-length", 64),
        *("--token-budget", 100, "--dtype", "bfloat16", "--shard-rows", 5),
    )
    assert everything == Spec(
        hidden=Hidden(
            depth=Depth(student_layers=6, target=10, num_layers=2),
            length=Length(tokens=7, score="received", score_layer="last", specials=False),
            width=Width(scheme="uniform", fraction=0.3),
            encoding="int4",
        ),
        max_length=64,
        token_budget=100,
        compute_dtype="bfloat16",
        shard_rows=5,
    )


def test_a_file_says_everything_and_flags_override_it(tmp_path: Path) -> None:
    written = Spec(
        hidden=Hidden(length=Length(tokens=3, score="random", seed=8), width=Width(scheme="random", seed=9)),
        max_length=32,
    )
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump(written.model_dump()))
    assert spec("--spec", file) == written
    changed = spec("--spec", file, "--keep", "1l", "--score", "left", "--max-length", 16)
    assert changed.hidden is not None
    assert changed.hidden.length == Length(tokens=None, score="left", seed=8)
    assert (changed.hidden.width.seed, changed.max_length) == (9, 16)
    assert spec("--spec", file, "--keep", "none") == written.model_copy(update={"hidden": None})


def test_a_file_without_hidden_states_may_get_them_by_keep(tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    file.write_text('{"hidden": null, "max_length": 9}')
    assert spec("--spec", file) == Spec(hidden=None, max_length=9)
    assert spec("--spec", file, "--keep", "full", "--encoding", "int4") == Spec(
        hidden=Hidden(encoding="int4"), max_length=9
    )


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layers=st.integers(1, 9), tokens=st.integers(1, 99), percent=st.integers(1, 100), length=st.integers(3, 512))
def test_a_spec_s_file_gives_the_spec_of_its_flags(
    tmp_path: Path, layers: int, tokens: int, percent: int, length: int
) -> None:
    by_flags = spec("--keep", f"{layers}l_{tokens}t_{percent / 100}h", "--max-length", length)
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump(by_flags.model_dump()))
    assert spec("--spec", file) == by_flags


@pytest.mark.parametrize("flag", [("--score", "left"), ("--encoding", "int8"), ("--specials",), ("--depth-target", 3)])
def test_a_flag_of_hidden_states_without_hidden_states_is_refused(flag: tuple[object, ...]) -> None:
    assert str(flag[0]) in refusal("--keep", "none", *flag)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing, latin = tmp_path / "missing.yaml", tmp_path / "latin.yaml"
    latin.write_bytes(b"max_length: \xe9")
    assert "No such file" in refusal("--spec", missing)
    assert str(latin) in refusal("--spec", latin)
    assert "Is a directory" in refusal("--spec", tmp_path)


@pytest.mark.parametrize(
    "args",
    [("--depth-target", 0), ("--student-layers", 0), ("--max-length", 2), ("--score", "best"), ("--dtype", "float64")],
)
def test_values_out_of_range_name_the_flag(args: tuple[str, object]) -> None:
    result = CliRunner().invoke(collect, list(map(str, args)))
    assert result.exit_code == 2
    assert args[0] in result.stderr


def test_attention_has_its_own_layers_and_tokens_and_shares_the_rest() -> None:
    both = spec(
        *("--keep", "2l_7t_0.3h", "--attention", "1l_5t", "--heads", "3,0", "--layer-map", "top"),
        *("--score", "left", "--store-layers", "all", "--encoding", "float16"),
    )
    depth = Depth(mapping="top", stored="all")
    assert both == Spec(
        hidden=Hidden(
            depth=depth.model_copy(update={"num_layers": 2}),
            length=Length(tokens=7, score="left"),
            width=Width(fraction=0.3),
            encoding="float16",
        ),
        attention=Attention(
            depth=depth.model_copy(update={"num_layers": 1}),
            length=Length(tokens=5, score="left"),
            heads=[3, 0],
            encoding="float16",
        ),
    )
    assert spec("--keep", "none", "--attention", "full") == Spec(hidden=None, attention=Attention())
    assert spec("--attention", "none") == Spec()


def test_student_layers_may_be_listed(tmp_path: Path) -> None:
    listed = spec("--keep", "7t", "--student-layer-numbers", "1,3", "--score", "right", "--score-layer", "mapped")
    length = Length(tokens=7, score="right", score_layer="mapped")
    assert listed == Spec(hidden=Hidden(depth=Depth(kept=[1, 3]), length=length))
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump(listed.model_dump()))
    assert spec("--spec", file) == listed
    # A flag overrides what the file says of the same.
    assert spec("--spec", file, "--keep", "2l_7t").hidden == Hidden(depth=Depth(num_layers=2), length=length)
    file.write_text("hidden: {depth: {num_layers: 1}}")
    assert spec("--spec", file, "--student-layer-numbers", "2").hidden == Hidden(depth=Depth(kept=[2]))
    assert "'1;3' is not numbers" in refusal("--student-layer-numbers", "1;3")
    assert "--student-layer-numbers" in refusal("--keep", "none", "--student-layer-numbers", "1")


def test_a_written_map_says_how_many_layers_the_student_has(tmp_path: Path) -> None:
    written = spec("--layer-map", "3,6,9", "--store-layers", "0,3")
    assert written == Spec(hidden=Hidden(depth=Depth(student_layers=3, layers=[3, 6, 9], stored=[0, 3])))
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump(written.model_dump()))
    assert spec("--spec", file) == written
    back = spec("--spec", file, "--layer-map", "bottom", "--store-layers", "mapped")
    assert back == Spec(hidden=Hidden(depth=Depth(student_layers=3, mapping="bottom")))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--attention", "0.5h"), "no columns"),
        (("--attention", "1x"), "--attention '1x' is not of the form"),
        (("--heads", "mean"), "--heads says how attention is kept, but none is"),
        (("--heads", "some", "--attention", "full"), "--heads 'some' is not all, mean or numbers"),
        (("--layer-map", "middle"), "--layer-map 'middle' is not uniform, top, bottom or numbers"),
        (("--layer-map", "0,1"), "depth.layers.0"),
        (("--store-layers", "-1"), "--store-layers '-1'"),
        (("--keep", "none", "--attention", "full", "--width", "pca"), "--width says how hidden states are kept"),
    ],
)
def test_attention_and_maps_that_cannot_be_read_are_refused(flags: tuple[str, ...], words: str) -> None:
    assert words in refusal(*flags)
