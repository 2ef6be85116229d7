"""Options or keywords that say what to keep of a teacher, and the spec that they add up to. Needs no torch."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from hskcache.build.request import AdditionRequest, BuildRequest, Texts
from hskcache.errors import SpecError
from hskcache.nearest import meant
from hskcache.spec import (
    Attention,
    ComputeDtype,
    Embedding,
    Hidden,
    Keep,
    Packing,
    PairsName,
    PoolingWord,
    ScoreLayer,
    ScoreName,
    Spec,
    Vocabulary,
    WidthName,
    layer_map_changes,
    numbers,
    numbers_or_word,
    parse_keep,
    parse_spec,
    parse_vocabulary,
)
from hskcache.strict import first_problem, read_text

_TOP = {name: name for name in ("max_length", "token_budget", "shard_rows")} | {"dtype": "compute_dtype"}
_SHARED = {
    "student_layers": ("depth", "student_layers"),
    "depth_target": ("depth", "target"),
    "score": ("length", "score"),
    "score_layer": ("length", "score_layer"),
    "specials": ("length", "specials"),
}
_PACKING = tuple(Packing.model_fields)
"""Options of a corpus alone."""
# Options that only one kind of knowledge has.
_OWN = {"width": "hidden", "heads": "attention", "dims": "embedding", "normalize": "embedding", "prompt": "embedding"}
_POOLINGS = get_args(PoolingWord)


_WORDS = {
    "hidden": ("hidden states", "are", "--keep 10t"),
    "attention": ("attention", "is", "--attention 16t"),
    "embedding": ("embeddings", "are", "--embedding mean"),
}


@dataclass(frozen=True)
class Keeping:
    """Values of the options of the same names that say what to keep; None for what was not given."""

    keep: str | None = None
    student_layers: int | None = None
    depth_target: int | None = None
    layer_map: str | None = None
    student_layer_numbers: str | None = None
    store_layers: str | None = None
    attention: str | None = None
    heads: str | None = None
    embedding: str | None = None
    vocabulary: str | None = None
    dims: int | None = None
    normalize: bool | None = None
    prompt: str | None = None
    score: ScoreName | None = None
    score_layer: ScoreLayer | None = None
    specials: bool | None = None
    width: WidthName | None = None
    encoding: str | None = None
    max_length: int | None = None
    token_budget: int | None = None
    dtype: ComputeDtype | None = None
    shard_rows: int | None = None
    stride: int | None = None
    pairs: PairsName | None = None
    short_rows: float | None = None
    copies: int | None = None
    mask: float | None = None
    seed: int | None = None
    spec_file: Path | None = None

    def given(self, name: str) -> bool:
        """True where an option was given."""
        return getattr(self, name) is not None

    def spec(self, base: Spec | None = None) -> Spec:
        """The spec that they add up to: the file of ``--spec`` first, then what the others say.

        Its ``max_length`` and ``token_budget`` are set only where one of them says it, and of its packing what they
        say. ``base``: what holds where they say nothing; None is the defaults. Raises SpecError if the file or an
        option is out of range, or options contradict each other.
        """
        spec, file = base or Spec(), self.spec_file
        if file is not None:
            spec = parse_spec(read_text(file, f"--spec {file}", "give a YAML or JSON file"), str(file))
        values = spec.model_dump()
        values |= {key: getattr(self, name) for name, key in _TOP.items() if self.given(name)}
        if self.spec_file is None:
            for name in ("max_length", "token_budget"):
                if not self.given(name) and name not in spec.model_fields_set:
                    del values[name]
        # What is not said stays so: for a corpus the teacher decides it, see make_corpus_build.
        values["packing"] = spec.packing.model_dump(exclude_unset=True)
        values["packing"] |= {name: getattr(self, name) for name in _PACKING if self.given(name)}
        if self.stride is not None:
            values["windows"] = {**values.get("windows", {}), "overlap": self.stride}
        values["hidden"] = self._kept(spec.hidden or Hidden(), spec.hidden is not None, self._parsed("keep"))
        values["attention"] = self._kept(
            spec.attention or Attention(), spec.attention is not None, self._parsed("attention")
        )
        values["embedding"] = self._embedding(spec.embedding)
        values["vocabulary"] = self._vocabulary(spec.vocabulary)
        if values["embedding"] is not None and self.keep is None and file is None and base is None:
            # Who asks for embeddings hardly wants all states of all tokens, too.
            values["hidden"] = None
        is_new = file is None and base is None
        has_next = values["vocabulary"] is not None
        if self._says_positions_alone and has_next and (is_new or spec.hidden is None):
            values["hidden"] = None
        elif self._says_positions and has_next and values["hidden"] is not None:
            # Those of next tokens.
            values["hidden"]["length"]["targets"] = True
        # A spec says all: without the key nothing is kept, see build.resolving.language_spec.
        if values["vocabulary"] is None and is_new and self.vocabulary is None:
            del values["vocabulary"]
        if values["hidden"] is not None and is_new and not self._says_states:
            del values["hidden"]
        self._refuse_idle({"hidden": Hidden(), "vocabulary": None, **values})
        try:
            made = Spec.model_validate(values)
        except ValidationError as error:
            raise SpecError(f"what to keep: {first_problem(error, Spec)}") from None
        if is_new and not has_next and self._says_positions_alone:
            # Of a language model these are positions of next tokens, see build.resolving.language_spec.
            made.model_fields_set.discard("hidden")
        return made

    @property
    def _says_states(self) -> bool:
        """True where an option says how hidden states or attention are kept, or which."""
        names = (*_SHARED, "keep", "layer_map", "student_layer_numbers", "store_layers", "width", "encoding")
        return any(self.given(name) for name in names)

    @property
    def says_more_than_positions(self) -> bool:
        """True where an option says how hidden states are kept, or which, beside how many positions and the best."""
        names = ("student_layers", "depth_target", "layer_map", "student_layer_numbers", "store_layers", "width")
        return any(self.given(name) for name in (*names, "encoding"))

    @property
    def _says_positions(self) -> bool:
        """True where ``--keep`` says how many positions are kept."""
        keep = self._parsed("keep")[1]
        return keep is not None and (keep.tokens is not None or keep.share is not None)

    @property
    def _says_positions_alone(self) -> bool:
        """True where it says nothing else of hidden states, and nor does another option."""
        keep = self._parsed("keep")[1]
        is_alone = keep is not None and (keep.layers, keep.fraction) == (None, 1.0)
        return self._says_positions and is_alone and not self.says_more_than_positions

    def refuse_packing(self) -> None:
        """Raise if there is an option of a corpus, where there is none. Raises SpecError if one was given."""
        for name in _PACKING:
            if self.given(name):
                raise SpecError(
                    f"--{name.replace('_', '-')} says how a corpus is packed; give --corpus FILE, or leave it out"
                )

    def _parsed(self, name: str) -> tuple[bool, Keep | None]:
        """Presence of a short form, and what it says."""
        text = getattr(self, name)
        if text is None:
            return False, None
        keep = parse_keep(text, f"--{name}")
        if name == "attention" and keep is not None and keep.fraction < 1.0:
            raise SpecError(
                f"--attention {text!r}: attention scores have no columns; give layers and tokens, as in 2l_16t"
            )
        return True, keep

    def _kept(self, base: Hidden | Attention, is_kept: bool, said: tuple[bool, Keep | None]) -> dict[str, Any] | None:
        """Hidden states or attention as the options change them; None where they are not kept."""
        was_given, keep = said
        if keep is None and (was_given or not is_kept):
            return None
        values = base.model_dump()
        if keep is not None:
            values["depth"]["num_layers"], values["depth"]["kept"] = keep.layers, None
            values["length"] |= {"tokens": keep.tokens, "share": keep.share, "targets": False}
            if isinstance(base, Hidden):
                values["width"]["fraction"] = keep.fraction
        for name, (part, key) in _SHARED.items():
            if self.given(name):
                values[part][key] = getattr(self, name)
        if self.encoding is not None:
            values["encoding"] = self.encoding
        if isinstance(base, Hidden) and self.width is not None:
            values["width"]["scheme"] = self.width
        if isinstance(base, Attention) and self.heads is not None:
            values["heads"] = numbers_or_word(self.heads, "--heads", ("all", "mean"))
        values["depth"] |= self._depth(keep)
        return values

    def _vocabulary(self, base: Vocabulary | None) -> dict[str, Any] | None:
        """Next tokens as the options change them; None where they are not kept, or nothing is said of them."""
        kept = None if self.vocabulary is None else parse_vocabulary(self.vocabulary)
        if kept is None and (base is None or self.vocabulary is not None):
            return None
        values = (base or Vocabulary()).model_dump()
        values |= {} if kept is None else {"count": None, **kept}
        length, keep = (base or Vocabulary()).length.model_dump(), self._parsed("keep")[1]
        if keep is not None:
            length |= {"tokens": keep.tokens, "share": keep.share}
        if length["tokens"] is None and length.get("share") is None:
            return {**values, "length": {}}
        length |= {
            key: getattr(self, name) for name, (part, key) in _SHARED.items() if part == "length" and self.given(name)
        }
        return {**values, "length": length | {"targets": True}}

    def _embedding(self, base: Embedding | None) -> dict[str, Any] | None:
        """Embeddings as the options change them; None where they are not kept."""
        if self.embedding == "none" or (self.embedding is None and base is None):
            return None
        values = (base or Embedding()).model_dump()
        if self.embedding is not None:
            if self.embedding not in _POOLINGS:
                listed, near = ", ".join([*_POOLINGS, "none"]), meant(self.embedding, [*_POOLINGS, "none"])
                raise SpecError(f"--embedding {self.embedding!r} is none of {listed}{near}")
            values["pooling"] = self.embedding
        said = {name: getattr(self, name) for name in ("dims", "normalize", "prompt", "encoding") if self.given(name)}
        return values | said

    def _depth(self, keep: Keep | None) -> dict[str, Any]:
        """Changes that ``--layer-map``, ``--student-layer-numbers`` and ``--store-layers`` make to the depth."""
        changes: dict[str, Any] = {}
        if self.student_layer_numbers is not None:
            changes["kept"] = numbers(self.student_layer_numbers, "--student-layer-numbers")
            if keep is None:
                changes["num_layers"] = None
        if self.layer_map is not None:
            changes |= layer_map_changes(self.layer_map)
            if changes["layers"] is not None and self.student_layers is None:
                changes["student_layers"] = len(changes["layers"])
        if self.store_layers is not None:
            changes["stored"] = numbers_or_word(self.store_layers, "--store-layers", ("mapped", "all"))
        return changes

    def _refuse_idle(self, values: dict[str, Any]) -> None:
        """Refuse options that say how something is kept of which nothing is."""
        idle = {name: kept for name, kept in _OWN.items() if values[kept] is None}
        if values["hidden"] is None and values["attention"] is None:
            idle |= dict.fromkeys([*_SHARED, "layer_map", "student_layer_numbers", "store_layers"], "hidden")
            if values["embedding"] is None:
                idle["encoding"] = "hidden"
            if values["vocabulary"] is not None and values["vocabulary"]["length"]:
                for name in ("score", "specials"):
                    del idle[name]
        for name, kept in idle.items():
            if self.given(name):
                what, be, example = _WORDS[kept]
                raise SpecError(
                    f"--{name.replace('_', '-')} says how {what} {be} kept, but none {be}; leave it out, or give "
                    f"{example}"
                )


def build_request(teacher: str, texts: Texts, keeping: Keeping, device: str, base: Spec | None = None) -> BuildRequest:
    """The cache that these options ask for, ``base`` where they say nothing.

    Raises SpecError if there is not one source of texts, or no such spec.
    """
    texts.check()
    spec = keeping.spec(base)
    if texts.corpus is None:
        keeping.refuse_packing()
    return BuildRequest(teacher, texts, spec, device)


def keeping_of(request: AdditionRequest, keeping: Keeping) -> AdditionRequest:
    """A field to add with what is to be kept of it.

    Raises SpecError if something was given that the cache has, or what is to be kept cannot be.
    """
    for name in ("max_length", "shard_rows"):
        if keeping.given(name):
            raise SpecError(f"--{name.replace('_', '-')} is the cache's own; leave it out with --add-field")
    keeping.refuse_packing()
    return replace(request, spec=keeping.spec(request.spec))
