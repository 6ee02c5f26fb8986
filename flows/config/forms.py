"""The configuration as a form: RunConfig as pydantic models, for parameters of Prefect flows.

What the Prefect UI shows is made of the dataclasses of flows/config/schema: their sections, types,
choices and defaults, each key with a sentence. What is sent is read by `RunConfig.from_dict` first,
so that a bad value is refused with the message that a TOML file would get.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    Tag,
    create_model,
    model_validator,
)

from flows.config.form_texts import SECTIONS, TEXTS
from flows.config.schema import RunConfig, read_config
from flows.config.strict import key_of

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=False)


class _Section(BaseModel):
    model_config = STRICT


class _Form(BaseModel):
    """A whole configuration; `to_table()` is what `RunConfig.from_dict` reads."""

    model_config = STRICT

    @model_validator(mode="wrap")
    @classmethod
    def _read_as_a_file_would_be(cls, data: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        if isinstance(data, Mapping):
            data = without_blanks(data)
            RunConfig.from_dict(data)
        return handler(data)

    def to_table(self) -> dict[str, Any]:
        return without_blanks(self.model_dump(mode="json", exclude_unset=True))


def form_of(kind: type, key: str = "", base: type[BaseModel] = _Section) -> type[BaseModel]:
    """A pydantic model with the fields of a frozen dataclass, titled and described."""
    hints = typing.get_type_hints(kind)
    made: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        name = key_of(field)
        place = f"{key}.{name}" if key else name
        text = TEXTS.get(place) or SECTIONS.get(place)
        annotation = _annotation(hints[field.name], place)
        made[name] = (annotation, Field(_default(field), title=name, description=text))
    return create_model(kind.__name__, __base__=base, **made)


def without_blanks(table: Mapping[str, Any]) -> dict[str, Any]:
    """What was filled in: keys of a form that were left empty are absent in a file."""
    return {
        key: without_blanks(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if value is not None
    }


def config_from(parameter: "str | BaseModel | Mapping[str, Any]") -> RunConfig:
    """The configuration that a flow was given: a path of a TOML file, or the sections.

    Raises:
        ConfigError: If it is not accepted.
    """
    if isinstance(parameter, str):
        return read_config(parameter)
    table = parameter.to_table() if isinstance(parameter, _Form) else parameter
    return RunConfig.from_dict(typing.cast(Mapping[str, Any], table))


def _annotation(kind: Any, place: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return form_of(typing.cast(type, kind), place)
    if origin in (types.UnionType, typing.Union):
        kinds = tuple(_annotation(one, place) for one in arguments)
        return typing.Union[kinds]  # noqa: UP007
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return list[_annotation(arguments[0], place)]  # type: ignore[misc]
        (one,) = {_annotation(argument, place) for argument in arguments}
        count = len(arguments)
        return Annotated[list[one], Field(min_length=count, max_length=count)]  # type: ignore[valid-type]
    if origin is not None and origin is not Literal and issubclass(origin, Mapping):
        return dict[str, _annotation(arguments[1], place)]  # type: ignore[misc]
    return kind


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        made = field.default_factory()
        return {} if dataclasses.is_dataclass(made) else made
    if field.default is dataclasses.MISSING:
        return ...
    return list(field.default) if isinstance(field.default, tuple) else field.default


def _readable(path: str) -> str:
    if not path.endswith(".toml"):
        raise ValueError(f"expected the path of a TOML file, or the sections of one; got {path!r}")
    if Path(path).exists():  # else only the worker's machine knows
        read_config(path)
    return path


Form = form_of(RunConfig, base=_Form)
_File = Annotated[
    str,
    Field(title="Path of a TOML file"),
    AfterValidator(_readable),
]
ConfigParameter = Annotated[
    Annotated[_File, Tag("file")] | Annotated[Form, Tag("sections")],  # type: ignore[valid-type]
    Discriminator(lambda value: "file" if isinstance(value, str) else "sections"),
]
