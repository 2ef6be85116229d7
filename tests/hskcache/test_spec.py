"""The short form and the spec's file say the same thing both ways, and refuse what they do not understand."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hskcache.errors import SpecError
from hskcache.spec import Depth, Hidden, Keep, Length, Spec, Width, format_keep, parse_keep, parse_spec

COUNTS = st.none() | st.integers(1, 10**9 - 1)
FRACTIONS = st.floats(0, 1, exclude_min=True, allow_subnormal=True)


def hidden_of(keep: Keep) -> Hidden:
    return Hidden(
        depth=Depth(num_layers=keep.layers), length=Length(tokens=keep.tokens), width=Width(fraction=keep.fraction)
    )


@given(layers=COUNTS, tokens=COUNTS, fraction=FRACTIONS)
def test_what_is_formatted_is_parsed_again_exactly(layers: int | None, tokens: int | None, fraction: float) -> None:
    keep = Keep(layers, tokens, fraction)
    assert parse_keep(format_keep(hidden_of(keep))) == keep


@given(layers=COUNTS, tokens=COUNTS, digits=st.none() | st.from_regex(r"(0?\.[0-9]{1,5}|[1-9]e-[1-9])", fullmatch=True))
def test_every_part_may_be_left_out(layers: int | None, tokens: int | None, digits: str | None) -> None:
    parts = [f"{layers}l" if layers else "", f"{tokens}t" if tokens else "", f"{digits}h" if digits else ""]
    text = "_".join(part for part in parts if part)
    if not text or (digits and float(digits) == 0):
        with pytest.raises(SpecError):
            parse_keep(text)
        return
    keep = parse_keep(text)
    assert keep == Keep(layers, tokens, float(digits) if digits else 1.0)
    assert parse_keep(format_keep(hidden_of(keep))) == keep


@pytest.mark.parametrize(
    ("text", "keep"),
    [
        ("1l_10t_0.1h", Keep(1, 10, 0.1)),
        ("1l_10t_.5h", Keep(1, 10, 0.5)),
        ("1e-2h", Keep(None, None, 0.01)),
        ("3l_1h", Keep(3, None, 1.0)),
        ("007t", Keep(None, 7, 1.0)),
        ("full", Keep(None, None, 1.0)),
        ("none", None),
    ],
)
def test_the_short_forms_of_the_paper_and_ours(text: str, keep: Keep | None) -> None:
    assert parse_keep(text) == keep


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not of the form"),
        ("9l_", "not of the form"),
        ("_9l", "not of the form"),
        ("1l__0.1h", "not of the form"),
        ("1l10t", "'1l10' is not a number of tokens"),
        ("10t_1l", "not of the form"),
        ("1l_2l", "not of the form"),
        ("l_t_h", "not of the form"),
        ("1.5l", "'1.5' is not a number of layers"),
        ("-1t", "'-1' is not a number of tokens"),
        ("1_000t", "not of the form"),
        ("9999999999t", "not a number of tokens"),
        ("0l", "0 layers"),
        ("0t", "0 tokens"),
        ("0h", "the share of columns is 0;"),
        ("1.5h", "the share of columns is 1.5;"),
        ("-0.1h", "the share of columns is -0.1;"),
        ("nanh", "the share of columns is nan;"),
        ("infh", "the share of columns is inf;"),
        ("tenh", "'ten' is not a number"),
        ("10%", "not of the form"),
        ("Full", "'Ful' is not a number of layers"),
        ("everything", "not of the form"),
    ],
)
def test_other_short_forms_are_refused_with_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as error:
        parse_keep(text)
    assert repr(text) in str(error.value)


@given(st.text(max_size=12))
def test_any_text_gives_counts_or_one_sentence(text: str) -> None:
    try:
        keep = parse_keep(text)
    except SpecError:
        return
    assert keep is None or (0 < keep.fraction <= 1 and keep.layers != 0 and keep.tokens != 0)


def test_logits_alone_are_the_short_form_none() -> None:
    assert format_keep(None) == "none"
    assert format_keep(Hidden()) == "full"
    assert format_keep(hidden_of(Keep(1, 10, 0.1))) == "1l_10t_0.1h"


SPECS = st.builds(
    Spec,
    hidden=st.none()
    | st.builds(
        Hidden,
        depth=st.builds(
            Depth,
            student_layers=st.integers(1, 24),
            target=st.none() | st.integers(1, 24),
            num_layers=st.none() | st.integers(1, 24),
        ),
        length=st.builds(
            Length,
            tokens=st.none() | st.integers(1, 512),
            score=st.sampled_from(
                ["attention", "attention-logit", "received", "left", "right", "random", "cls", "all"]
            ),
            score_layer=st.sampled_from(["producing", "last", "mapped"]),
            specials=st.booleans(),
            seed=st.integers(0, 2**63),
        ),
        width=st.builds(
            Width,
            scheme=st.sampled_from(["magnitude", "uniform", "random", "pca", "all"]),
            fraction=FRACTIONS,
            seed=st.integers(0, 2**63),
        ),
        encoding=st.sampled_from(["float32", "float16", "bfloat16", "int8", "int4"]),
    ),
    max_length=st.integers(3, 512),
    token_budget=st.integers(1, 10**6),
    compute_dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
    shard_rows=st.none() | st.integers(1, 10**6),
)


@given(SPECS)
def test_a_spec_written_as_yaml_or_json_is_read_again_exactly(spec: Spec) -> None:
    assert parse_spec(yaml.safe_dump(spec.model_dump(), sort_keys=False), "file") == spec
    assert parse_spec(spec.model_dump_json(), "file") == spec


def test_an_empty_file_is_the_default_and_every_key_may_stand_alone() -> None:
    assert parse_spec("", "file") == Spec()
    assert parse_spec("hidden: null", "file") == Spec(hidden=None)
    seeds = parse_spec("hidden: {length: {seed: 3}, width: {seed: 4}}", "file").hidden
    assert seeds is not None
    assert (seeds.length.seed, seeds.width.seed) == (3, 4)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hidden: [", "s.yaml is not YAML"),
        ("- 1", "s.yaml: the document"),
        ("hiden: null", "s.yaml: hiden: there is no such key"),
        ("hidden: {width: {fraction: 0}}", r"hidden.width.fraction: .*greater than 0.*given 0"),
        ("hidden: {width: {fraction: 1.1}}", r"hidden.width.fraction: .*less than or equal to 1.*given 1.1"),
        ("hidden: {width: {fraction: .nan}}", "hidden.width.fraction"),
        ("hidden: {width: {fraction: '0.1'}}", "hidden.width.fraction: .*number"),
        ("hidden: {length: {tokens: 1.5}}", "hidden.length.tokens"),
        ("hidden: {length: {score: best}}", "hidden.length.score: .*'attention'.*given 'best'"),
        ("hidden: {depth: {target: 0}}", "hidden.depth.target"),
        ("max_length: 2", "max_length: .*3"),
        ("compute_dtype: float64", "compute_dtype"),
        ("shard_rows: true", "shard_rows"),
    ],
)
def test_a_file_that_is_no_spec_is_refused_with_its_name_and_key(text: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as error:
        parse_spec(text, "s.yaml")
    assert str(error.value).startswith("s.yaml")
    assert "\n" not in str(error.value)


def test_a_fraction_of_one_is_exactly_one() -> None:
    assert parse_keep("1.0h") == Keep(None, None, 1.0)
    assert format_keep(hidden_of(Keep(None, 4, math.nextafter(1, 0)))) != "4t"
