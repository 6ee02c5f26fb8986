"""The configuration as a form: the parameter of Prefect's flows, a path or the sections.

The schema is that of flows/config/schema: what the UI shows are its sections, types, choices,
defaults and sentences, and what is sent is read as a TOML file would be, with the same messages.
"""

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from flows.config.schema import RunConfig, read_config


def without_blanks(table: Mapping[str, Any]) -> dict[str, Any]:
    """What was filled in: keys of a form that were left empty are absent in a file."""
    return {
        key: without_blanks(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if value is not None
    }


def config_from(parameter: "str | RunConfig | Mapping[str, Any]") -> RunConfig:
    """The configuration that a flow was given: a path of a TOML file, or the sections.

    Raises:
        ConfigError: If it is not accepted.
    """
    if isinstance(parameter, str):
        return read_config(parameter)
    return _filled_in(parameter)


def _filled_in(given: Any) -> RunConfig:
    if isinstance(given, RunConfig):
        return given
    return RunConfig.from_dict(without_blanks(typing.cast(Mapping[str, Any], given)))


def _readable(path: str) -> str:
    if not path.endswith(".toml"):
        raise ValueError(f"expected the path of a TOML file, or the sections of one; got {path!r}")
    if Path(path).exists():  # else only the worker's machine knows
        read_config(path)
    return path


_File = Annotated[
    str,
    Field(title="Path of a TOML file"),
    AfterValidator(_readable),
]
_Form = Annotated[RunConfig, BeforeValidator(_filled_in)]
ConfigParameter = Annotated[
    Annotated[_File, Tag("file")] | Annotated[_Form, Tag("sections")],
    Discriminator(lambda value: "file" if isinstance(value, str) else "sections"),
]
