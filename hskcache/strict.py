"""Models that refuse what they do not know, the text that people write them in, and what is wrong with it in a line."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails

from hskcache.errors import SpecError
from hskcache.nearest import meant

# YAML 1.1 takes 1e-4, which everybody writes, for a word.
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z")
_QUOTED = re.compile(r"'([^']*)'")


class Strict(BaseModel):
    """A frozen model that refuses unknown keys; its validator is built when it is needed, as most are not."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    @classmethod
    def defaults(cls) -> Self:
        """The model with nothing said, as a default of another one: its validator is not built for that."""
        return cls.model_construct()  # type: ignore[return-value]


class Grown(Strict):
    """A strict model that got keys later, which are not written where they have their defaults.

    So what was written before is spelled as it was. ``later``: these keys.
    """

    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _written(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = written(self)
        defaults = {key: type(self).model_fields[key].default for key in self.later}
        return {key: one for key, one in values.items() if key not in defaults or getattr(self, key) != defaults[key]}


class Extended(BaseModel):
    """A frozen model that refuses unknown keys but for those of a table: kinds and terms that come with their models.

    ``further``: by key, the model of its value; keys that are fields of the class are validated as such.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, defer_build=True)

    further: ClassVar[Mapping[str, type[BaseModel]]] = {}

    @model_validator(mode="after")
    def _with_further(self) -> "Extended":
        given = self.__pydantic_extra__
        assert given is not None
        for key in list(given):
            value = given.pop(key)
            if key not in self.further:
                problem = InitErrorDetails(type="extra_forbidden", loc=(key,), input=value)
                raise ValidationError.from_exception_data(type(self).__name__, [problem])
            if value is not None:
                model = self.further[key]
                # By way of JSON, in which a list stands for a tuple.
                given[key] = value if isinstance(value, model) else _read(model, value, key)
        return self


def _read(model: type[BaseModel], value: Any, key: str) -> BaseModel:
    """A model from plain values. Raises ValidationError, whose places begin with the key that they stand under."""
    try:
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        problems = [
            InitErrorDetails(type=one["type"], loc=(key, *one["loc"]), input=one["input"], ctx=one.get("ctx", {}))
            for one in error.errors()
        ]
        raise ValidationError.from_exception_data(model.__name__, problems) from None


def read_text(path: Path, what: str, advice: str) -> str:
    """The text of a file that people write. Raises SpecError, which begins with ``what`` and ends with the advice."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SpecError(f"{what}: {error.strerror}; {advice}") from None
    except UnicodeDecodeError:
        raise SpecError(f"{what} is not UTF-8 text; {advice}") from None


def parse_yaml(text: str, source: str) -> Any:
    """Plain values from YAML, or from JSON, which is YAML. Raises SpecError naming ``source``."""
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML in which 1e-4 is a number."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))
    try:
        return yaml.load(text, Loader)  # noqa: S506  (it is a SafeLoader)
    except yaml.YAMLError as error:
        raise SpecError(f"{source} is not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise SpecError(f"{source} is nested too deeply to be read") from None


def first_problem(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """The first complaint of pydantic as one line: where, what was given, what was expected.

    ``model``: that was asked for; of an unknown key the known ones are listed then, and of a word the nearest told.
    """
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"]) or "the document"
    if problem["type"] == "extra_forbidden" and model is not None:
        keys, key = _keys(model, problem["loc"][:-1]), str(problem["loc"][-1])
        return f"{where}: there is no such key; there are {', '.join(keys)}{meant(key, keys)}"
    given = "" if problem["type"] in {"missing", "extra_forbidden"} else f" (given {problem['input']!r:.80})"
    near = ""
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        near = meant(problem["input"], _QUOTED.findall(problem["ctx"]["expected"]))
    return f"{where}: {problem['msg'].removeprefix('Value error, ')}{given}{near}"


def _keys(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The keys of the model at a place within another, as pydantic tells places."""
    for key in path:
        if isinstance(key, str) and key in model.model_fields:
            model = next(_models(model.model_fields[key].annotation), model)
        elif issubclass(model, Extended):
            model = model.further.get(str(key), model)
    further = model.further if issubclass(model, Extended) else {}
    return list(dict.fromkeys([*model.model_fields, *further]))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Models that a value of this type is, or holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
