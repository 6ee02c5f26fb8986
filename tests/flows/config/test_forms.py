"""The form of a run: what the Prefect UI shows, and what is refused with which words."""

import json
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest
from pydantic import TypeAdapter, ValidationError

from flows.config.forms import ConfigParameter, config_from
from flows.config.schema import RunConfig
from flows.config.strict import adapter

READER: TypeAdapter[Any] = TypeAdapter(ConfigParameter)


def test_every_key_of_the_configuration_has_its_sentence() -> None:
    sections = adapter(RunConfig).json_schema()
    for name, section in {"": sections, **sections["$defs"]}.items():
        for key, known in section["properties"].items():
            assert known.get("description", "").endswith("."), f"{name}.{key}"


def test_a_form_reads_what_a_file_says(
    config: RunConfig, table: dict[str, Any], write_config: Callable[[dict[str, Any]], str]
) -> None:
    assert config_from(READER.validate_python(table)) == config
    assert config_from(READER.validate_python(json.loads(json.dumps(config.to_dict())))) == config
    assert config_from(READER.validate_python(write_config(table))) == config
    assert config_from(config.to_dict()) == config


def test_what_is_left_empty_in_a_form_is_absent(table: dict[str, Any]) -> None:
    expected = RunConfig.from_dict(table)
    table["spectral"]["tail"] = None
    table["cluster"] = table["cluster"] | {"memory": None}
    assert config_from(READER.validate_python(table)) == expected


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("train", "steps", -1, r"train\.steps: expected a positive number, got -1"),
        ("train", "step", 5, r"train\.step is not a known key; did you mean 'steps'\?"),
        ("train", "steps", "many", r"train\.steps: expected a whole number, got 'many'"),
        ("spectral", "baseline", "eofs", r"spectral\.baseline: expected one of isotropic, "),
        ("split", "train", ["2001-01-01"], r"split\.train: expected first and last day"),
    ],
)
def test_bad_values_are_refused_in_the_words_of_a_file(
    section: str, key: str, value: Any, words: str, table: dict[str, Any]
) -> None:
    table[section][key] = value
    with pytest.raises(ValidationError, match=words):
        READER.validate_python(table)


def test_a_path_that_is_no_toml_file_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"expected the path of a TOML file.*'demo'"):
        READER.validate_python("demo")


def test_the_schema_has_sections_choices_defaults_and_texts() -> None:
    schema = READER.json_schema()
    file, form = schema["oneOf"]
    assert file["type"] == "string"
    sections = schema["$defs"][form["$ref"].rpartition("/")[2]]
    assert list(sections["properties"]) == list(get_type_hints(RunConfig))
    train = schema["$defs"]["Train"]["properties"]
    assert train["batch"] == {
        "default": 32,
        "description": "Fields of one step.",
        "title": "batch",
        "type": "integer",
    }
    assert "gaussian:m-block" in train["model"]["enum"]
    assert schema["$defs"]["Split"]["properties"]["train"]["minItems"] == 2
    period = schema["$defs"]["Source"]["properties"]["period"]
    assert '"maxItems": 2, "minItems": 2' in json.dumps(period, sort_keys=True)
    assert set(sections["required"]) == {
        "run", "source", "split", "spectral", "train", "generate"
    }  # fmt: skip
