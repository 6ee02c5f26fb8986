import copy
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.config.schema import Cluster, ConfigError, Generate, RunConfig, Verify, read_config
from flows.config.sections.given import Condition, Event
from flows.stages.trained_model import certified_sampler, sampler_of
from pipeline.diffusion.sampler import INTEGRATORS, Sampler
from storage.artifacts.keys import canonical_json

HOUSE = Path(__file__).parents[3]


def changed(table: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    table = copy.deepcopy(table)
    section, _, name = key.partition(".")
    if name:
        table.setdefault(section, {})[name] = value
    else:
        table[section] = value
    return table


def test_reading_undoes_writing(table: dict[str, Any]) -> None:
    config = RunConfig.from_dict(table)
    assert RunConfig.from_dict(config.to_dict()) == config


def test_what_is_not_said_has_its_default(config: RunConfig) -> None:
    assert config.cluster == Cluster(workers=1)
    assert config.generate == Generate(
        realizations=2,
        times=("2001-01-15",),
        integrator="z-ab2",
        evaluations=6,
        grid_exponent=2.2,
    )


def test_every_integrator_can_be_asked_for_in_whole_steps(table: dict[str, Any]) -> None:
    for name, integrator in INTEGRATORS.items():
        named = changed(table, "generate.integrator", name)
        each = integrator.evaluations_per_step
        one_step = RunConfig.from_dict(changed(named, "generate.evaluations", each))
        assert sampler_of(one_step).integrator is integrator
        assert len(sampler_of(one_step).times) == 2
        if each > 1:
            with pytest.raises(ConfigError, match=f"a multiple of {each}.*{name} takes, got 33"):
                RunConfig.from_dict(changed(named, "generate.evaluations", 33))


def test_only_a_sampler_of_gme_is_the_one_that_is_certified(table: dict[str, Any]) -> None:
    twelve = changed(changed(table, "generate.integrator", "gme"), "generate.evaluations", 12)
    assert len(certified_sampler(RunConfig.from_dict(twelve)).times) == 13
    flow = changed(twelve, "generate.integrator", "z-heun")
    assert certified_sampler(RunConfig.from_dict(flow)) == Sampler(evaluations=256)


@pytest.mark.parametrize("path", sorted((HOUSE / "deploy/configs").glob("*.toml")), ids=str)
def test_the_configurations_that_are_shipped_are_accepted(path: Path) -> None:
    assert read_config(path).run.root.startswith("runs/")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.lerning_rate", 1e-3, r"train\.lerning_rate .*did you mean 'learning_rate'\?"),
        ("generat", {}, r"generat .*did you mean 'generate'\?"),
        ("spectral.xyz", 1, r"spectral\.xyz .*known are lmax, tail, reference, baseline"),
        ("train.steps", "ten", r"train\.steps: expected a whole number, got 'ten'"),
        ("train.steps", True, r"train\.steps: expected a whole number, got True"),
        ("train.steps", 0, r"train\.steps: expected a positive number, got 0"),
        ("generate.evaluations", 0, r"generate\.evaluations: expected a positive number, got 0"),
        ("generate.integrator", "opt", r"generate\.integrator: expected one of ei, .* got 'opt'"),
        ("train.learning_rate", float("nan"), r"train\.learning_rate: .* finite number, got nan"),
        ("train.model", "netwrok", r"train\.model: expected one of network, .*got 'netwrok'"),
        ("spectral.reference", "fitted", r"spectral\.reference: expected one of fit"),
        ("spectral.reference", {"kapa": 1}, r"spectral\.reference\.kapa .*'kappa'"),
        (
            "spectral.reference",
            {"kappa": 1, "beta": -1, "amplitude": 1},
            r"spectral\.reference\.beta: expected a positive number, got -1\.0",
        ),
        ("source.variables", "z", r"source\.variables: expected a list, got 'z'"),
        ("source.variables", ["z", 3], r"source\.variables\[1\]: expected a string, got 3"),
        ("source.variables", ["z", "z"], r"source\.variables: expected each name once"),
        ("source.units", {"zz": "m"}, r"source\.units\.zz is not in .*did you mean 'z'\?"),
        ("source.transform", {"z": "cube"}, r"source\.transform\.z: .*cbrt.* got 'cube'"),
        (
            "source.fill",
            "cubic",
            r"source\.fill: expected one of refuse, harmonic, mask-ever, got 'cubic'",
        ),
        ("source.fill", {"y": 0.0}, r"source\.fill\.y is not in source\.variables"),
        ("source.bounds", {"z": [0, 1]}, r"source\.bounds\.z: expected .*logit.*rank.*'identity'"),
        ("source.valid_range", {"z": [1, 0]}, r"source\.valid_range\.z: expected lowest < high"),
        ("split.test", ["2001-03-01"], r"split\.test: expected first and last day"),
        (
            "split.test",
            ["2001-03-01", "2001-03-05", "2001-03-08"],
            r"split\.test: expected first and last day, of each period where there are several",
        ),
        (
            "split.train",
            [["2001-01-01", "2001-01-09"], ["2001-01-12", "2001-01-20"]],
            r'split\.train: .* in one list; write \["2001-01-01", "2001-01-09", "2001-01-12"',
        ),
        (
            "split.train",
            ["2001-01-01", "2001-01-09", "2001-01-09", "2001-01-20"],
            r"split\.train: expected periods one after the other",
        ),
        (
            "split.train",
            ["2001-01-01", "2001-01-09", "2001-02-09", "2001-02-20"],
            r"split\.train starts on 2001-02-09, before split\.validation ends on 2001-02-28",
        ),
        ("split.test", ["2001-03-01", "March"], r"split\.test: .*got 'March'"),
        ("split.test", ["2001-04-01", "2001-03-01"], r"split\.test: expected first day <= last"),
        ("split.test", ["2001-02-28", "2001-03-31"], r"split\.test starts .* must not overlap"),
        ("generate.times", ["2001-03-02", "2001-03-01"], r"generate\.times: expected dates in"),
        ("cluster.memory", "lots", r"cluster\.memory: expected a size"),
        ("cluster", 2, r"cluster: expected a table, got 2"),
        ("cluster.tls", {"cert": 1}, r"cluster\.tls\.cert: expected a string, got 1"),
        ("cluster.tls", {"crt": ""}, r"cluster\.tls\.crt .*did you mean 'cert'\?"),
        ("source.fill", {"z": "cubic"}, r"source\.fill\.z: expected one of refuse, .*got 'cubic'"),
        ("source.winds", [["u"]], r"source\.winds\[0\]: expected 2 entries, got 1: \['u'\]"),
        ("source.valid_range", {"z": [0, 1, 2]}, r"valid_range\.z: expected 2 entries, got 3"),
        ("source.select", {"x": []}, r"source\.select\.x: expected a finite number, got \[\]"),
        ("spectral.lmax", 5.0, r"spectral\.lmax: expected a whole number, got 5\.0"),
        ("train.learning_rate", "1e-3", r"train\.learning_rate: expected a finite number, got '1e"),
        ("train.dropout", True, r"train\.dropout: expected a finite number, got True"),
        (
            "spectral.reference",
            {"kappa": 1, "beta": 1},
            r"spectral\.reference\.amplitude is missing",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_its_key(
    table: dict[str, Any], key: str, value: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        RunConfig.from_dict(changed(table, key, value))
    assert refusal.value.exit_code == 2


def test_a_missing_key_is_named(table: dict[str, Any]) -> None:
    del table["spectral"]["lmax"]
    with pytest.raises(ConfigError, match=r"spectral\.lmax is missing"):
        RunConfig.from_dict(table)


def test_a_training_without_end_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"train\.minutes or train\.steps"):
        RunConfig.from_dict(changed(table, "train", {}))


def test_a_subset_has_the_keys_that_were_asked_for(config: RunConfig) -> None:
    subset = config.subset("spectral.lmax", "verify")
    assert subset == {"spectral.lmax": 5, "verify.dates": 48, "verify.realizations": 16}


@pytest.mark.parametrize("name", ["sauce", "spectral.lmin"])
def test_a_subset_of_what_is_not_there_is_an_error(config: RunConfig, name: str) -> None:
    with pytest.raises(KeyError, match=name):
        config.subset(name)


def test_dates_may_be_written_as_toml_dates(table: dict[str, Any]) -> None:
    import tomllib

    dates = tomllib.loads("period = [2001-01-01, 2001-01-31]")["period"]
    read = RunConfig.from_dict(changed(table, "split.train", dates))
    assert read.split.train == ("2001-01-01", "2001-01-31")
    moment = tomllib.loads("at = 2001-01-01T12:00:00")["at"]
    with pytest.raises(ConfigError, match=r"run\.root: expected a string, got datetime\.datetime"):
        RunConfig.from_dict(changed(table, "run.root", moment))


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("[run\n")
    with pytest.raises(ConfigError, match=r"broken\.toml is not valid TOML"):
        read_config(path)
    with pytest.raises(ConfigError, match=r"absent\.toml cannot be read"):
        read_config(tmp_path / "absent.toml")


def test_missing_values_have_a_policy_for_all_variables_or_for_each(table: dict[str, Any]) -> None:
    fill = RunConfig.from_dict(changed(table, "source.fill", 0)).source.fill_of("z")
    assert (fill, type(fill)) == (0.0, float)
    declared = RunConfig.from_dict(changed(table, "source.fill", {"z": "harmonic"}))
    assert declared.source.fill_of("z") == "harmonic"
    assert RunConfig.from_dict(changed(table, "source.fill", {})).source.fill_of("z") == "refuse"


def test_a_home_directory_is_expanded_wherever_a_path_is_named(
    table: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    table["run"] = {"root": "~/runs/a", "scratch": "~/scratch"}
    table["source"] |= {"paths": ["~/data/*.nc", "s3://b/~x.zarr"], "covariates": {"n": "~/n.csv"}}
    table["cluster"] = {"kind": "address", "tls": {"ca": "~/ca.pem"}}
    config = RunConfig.from_dict(table)
    assert config.run.root == f"{tmp_path}/runs/a" == str(config.layout.path)
    assert config.layout.on_this_machine == tmp_path / "scratch"
    assert config.source.paths == (f"{tmp_path}/data/*.nc", "s3://b/~x.zarr")
    assert config.source.covariates == {"n": f"{tmp_path}/n.csv"}
    assert config.cluster.tls.ca == f"{tmp_path}/ca.pem"
    assert RunConfig.from_dict(config.to_dict()) == config


def test_a_home_that_is_nobodys_is_refused_with_what_to_write(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"run\.root: ~nobody-here is no home .*\./~nobody-here/"):
        RunConfig.from_dict(changed(table, "run", {"root": "~nobody-here/runs"}))


def test_a_root_has_one_place_however_it_is_written(
    table: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "link").symlink_to("runs")
    written = (
        "runs",
        "runs/",
        "./runs",
        "~/runs",
        "~/runs/",
        "link",
        "link/",
        str(tmp_path / "runs"),
    )
    layouts = [RunConfig.from_dict(changed(table, "run.root", root)).layout for root in written]
    assert len({os.path.realpath(layout.artifacts) for layout in layouts}) == 1
    assert len({os.path.realpath(layout.logs) for layout in layouts}) == 1


def test_a_file_with_a_byte_order_mark_is_read_and_other_encodings_are_named(
    table: dict[str, Any], write_config: Callable[[dict[str, Any]], str], tmp_path: Path
) -> None:
    text = Path(write_config(table)).read_text(encoding="utf-8")
    marked, wide, local = (tmp_path / f"{name}.toml" for name in ("marked", "wide", "local"))
    marked.write_text(text, encoding="utf-8-sig")
    assert read_config(marked) == RunConfig.from_dict(table)
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        wide.write_text(text, encoding=encoding)
        with pytest.raises(ConfigError, match=r"wide\.toml: .*UTF-16.*save it as UTF-8"):
            read_config(wide)
    local.write_bytes(text.encode() + "\n# größer\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"local\.toml: line \d+ is not .*save the file as UTF-8"):
        read_config(local)


def test_a_section_that_is_made_by_hand_is_refused_in_the_same_words() -> None:
    with pytest.raises(ConfigError, match=r"^verify\.dates: expected at least 2, got 1$"):
        Verify(dates=1)
    with pytest.raises(ConfigError, match=r"^workers: expected a whole number, got 'two'$"):
        Cluster(workers="two")  # type: ignore[arg-type]


def test_what_is_written_does_not_depend_on_how_it_was_read(config: RunConfig) -> None:
    again = RunConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert canonical_json(again.to_dict()) == canonical_json(config.to_dict())
    assert pickle.loads(pickle.dumps(config)) == config


def test_particles_are_weighed_by_default_where_a_probability_is_made_of_them():
    event = Event(variable="tas", box=(35.0, 60.0, -10.0, 40.0), above=303.0)
    assert Condition(event=event).particles == 64
    assert Condition(observations="stations.csv").particles == 1
    assert Condition(observations="stations.csv", particles=8).particles == 8
