"""The one configuration of a run: nested frozen sections, read strictly from TOML.

    [run] [source] [split] [spectral] [sequence] [train] [generate] [condition] [verify] [cluster]

Every section (flows/config/sections) refuses nonsense at birth with its dotted key, its value and
what was expected. Paths are relative to the working directory, or begin with `~`. A stage's content
key is made of `RunConfig.subset(...)`, so a key that a stage does not read never invalidates its
artifact.
"""

import codecs
import tomllib
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from flows.config.sections.checks import expanded, require, set_values
from flows.config.sections.cluster import ADDRESS, Cluster, Kubernetes, Slurm, Tls
from flows.config.sections.drawing import DRAW, DrawnScenario, DrawnSequence, Generate, Verify
from flows.config.sections.given import Condition, Event
from flows.config.sections.learning import VAR, Sequence, Spectral, Train, WhittleMaternTable
from flows.config.sections.periods import LATEST, Period, Split, pairs_of, within
from flows.config.sections.source import Scenario, Source
from flows.config.strict import ConfigError, nearest, plain, read_table, section
from storage.artifacts.layout import StoreLayout

__all__ = [
    "ADDRESS",
    "DRAW",
    "LATEST",
    "VAR",
    "Cluster",
    "Condition",
    "ConfigError",
    "DrawnScenario",
    "DrawnSequence",
    "Event",
    "Generate",
    "Kubernetes",
    "Period",
    "Run",
    "RunConfig",
    "Scenario",
    "Sequence",
    "Slurm",
    "Source",
    "Spectral",
    "Split",
    "Tls",
    "Train",
    "Verify",
    "WhittleMaternTable",
    "expanded",
    "pairs_of",
    "read_config",
    "within",
]

LARGEST_FILE = 4 << 20  # a configuration, in bytes


@section
class Run:
    """Where a run lives and the seed from which all its randomness is derived."""

    root: str
    """Directory of the run: everything that it makes lies below it."""
    seed: int = 0
    """All randomness of the run is derived from this number."""
    scratch: str | None = None
    """A directory for logs and the like, where the root is a bucket."""

    def __post_init__(self) -> None:
        set_values(self, root=expanded(self.root, "run.root"))
        if self.scratch is not None:
            set_values(self, scratch=expanded(self.scratch, "run.scratch"))
        plain = self.root.strip() != "" and self.root.isprintable() and len(self.root) < 4096
        expected = "a directory or s3://bucket/prefix, without control characters"
        require(plain, "run.root", self.root[:200], expected)
        try:
            StoreLayout(self.root, self.scratch)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        require(0 <= self.seed < 2**63, "run.seed", self.seed, "a whole number in [0, 2^63)")


@section
class RunConfig:
    """All a run depends on. Written into every artifact as `to_dict()`."""

    run: Run
    """Where the run lives."""
    source: Source
    """The raw files and what has to be declared about them."""
    split: Split
    """Disjoint periods: learned from, chosen on, and seen by the scores only."""
    spectral: Spectral
    """Band limits and the Gaussian measures."""
    train: Train
    """The score model and its optimisation."""
    generate: Generate
    """What is drawn."""
    condition: Condition = field(default_factory=Condition)
    """What fields are drawn given, on request."""
    sequence: Sequence = field(default_factory=Sequence)
    """How days follow each other."""
    verify: Verify = field(default_factory=Verify)
    """How much is drawn for the scores."""
    cluster: Cluster = field(default_factory=Cluster)
    """The workers that do the units of a stage."""

    def __post_init__(self) -> None:
        self._require_covariates()
        if self.train.model == VAR or self.generate.sequences:
            wanted = f'at least 1 for train.model "{VAR}" and for generate.sequences'
            require(self.sequence.past > 0, "sequence.past", self.sequence.past, wanted)
        if self.generate.sequences:
            known = self.train.model in ("network", VAR)
            wanted = f'"network" or "{VAR}" where generate.sequences are drawn'
            require(known, "train.model", self.train.model, wanted)
        if self.conditions_sequences:
            self._require_linear_sequences()
        if self.split.by_members:
            wanted = "what tells members apart, as split.train_members and its kin name them"
            require(self.source.samples != "", "source.samples", self.source.samples, wanted)
        if self.sequence.past:
            alone = self.source.samples == ""
            wanted = "nothing where sequence.past is set: samples do not follow each other"
            require(alone, "source.samples", self.source.samples, wanted)

    def _require_covariates(self) -> None:
        """What is asked for are covariates of the source."""
        known, asked = self.source.covariate_names, self.generate.covariates
        given = {f"generate.covariates.{name}": name for name in asked}
        for one in self.generate.scenarios:
            given |= {f"generate.scenarios.{one.name}.covariates.{n}": n for n in one.covariates}
        if self.condition.event is not None:
            against = self.condition.event.against
            given |= {f"condition.event.against.{name}": name for name in against}
        for drawn in self.generate.sequences:
            given |= {f"generate.sequences.covariates.{n}": n for n in drawn.covariates}
        for key, name in given.items():
            if name not in known:
                raise ConfigError(f"{key} is not in source.covariates{nearest(name, known)}")
        for name in self.source.trend:
            if name in known and name not in asked:
                raise ConfigError(
                    f"source.trend takes what depends on {name} away, so its value is needed to "
                    f"put that back: give generate.covariates.{name}"
                )

    def _require_linear_sequences(self) -> None:
        """Days between days of the record are drawn from the linear law of sequences alone."""
        past, key = self.sequence.past, "sequence.past"
        about = self.condition
        scenarios = [one.name for one in self.source.scenarios]
        alone = "nothing where condition.gaps are filled: a gap is one of a single record"
        require(not (about.gaps and scenarios), "source.scenarios", scenarios, alone)
        asked = "condition.gaps" if about.gaps else "condition.event.days"
        does = "fills gaps exactly" if about.gaps else "knows how likely such days are"
        require(past > 0, key, past, f"at least 1 for {asked}: how days follow each other")
        known = self.train.model in ("network", VAR) and not self.learns_sequences
        wanted = (
            f'"{VAR}" for {asked}, which {does}: a network cannot be given days '
            'to come (or "network" with sequence.learned = false, whose sequences are linear)'
        )
        require(known, "train.model", self.train.model, wanted)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> "RunConfig":
        """Read plain nested tables; `from_dict(config.to_dict()) == config`."""
        return read_table(cls, table)

    @property
    def draws_by_network(self) -> bool:
        """Whether single days are drawn by a network; one of sequences draws no single days."""
        return self.train.model == "network" and not self.learns_sequences

    @property
    def conditions_sequences(self) -> bool:
        """Whether days that follow each other are drawn given something, by the linear law."""
        event = self.condition.event
        return bool(self.condition.gaps) or (event is not None and event.days > 1)

    @property
    def learns_sequences(self) -> bool:
        """Whether the network learns what is new in a day given those before it."""
        learned = self.sequence.past > 0 and self.sequence.learned
        return self.train.model == "network" and learned

    @property
    def layout(self) -> StoreLayout:
        """Where everything of the run lives."""
        return StoreLayout(self.run.root, self.run.scratch)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dicts and lists, absent options left out, ready for JSON and TOML."""
        return {
            section: {key: value for key, value in table.items() if value is not None}
            for section, table in plain(self).items()
        }

    def subset(self, *names: str) -> dict[str, Any]:
        """The part of the configuration that a stage reads, for its content key.

        Args:
            names: Sections ("split") or single keys ("spectral.lmax").
        Returns:
            Plain values by dotted name, e.g. {"split.train": ["2000-01-01", ...], ...}.
        Raises:
            KeyError: If a name is no part of the configuration.
        """
        part: dict[str, Any] = {}
        for name in names:
            section, _, key = name.partition(".")
            table = plain(getattr(self, section, {}))
            if not table or (key and key not in table):
                raise KeyError(f"{name} is no part of RunConfig")
            part |= {f"{section}.{k}": value for k, value in table.items() if key in ("", k)}
        return part


def read_config(path: str | Path) -> RunConfig:
    """Read a run's TOML file.

    Raises:
        ConfigError: If the file cannot be read, is no TOML, or says something that is not accepted;
            the message starts with the path.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise ConfigError("it is no file")
        with Path(path).open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise ConfigError(f"it has more than {LARGEST_FILE} bytes")
        return RunConfig.from_dict(tomllib.loads(_decoded(content)))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {str(error)[:200]}") from error


def _decoded(content: bytes) -> str:
    """The text of a file in UTF-8, with or without a byte order mark."""
    wide = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or b"\0" in content[:64]
    try:
        if not wide:
            return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"line {line} is not written in UTF-8; save the file as UTF-8") from error
    raise ConfigError("the file is written in UTF-16 or the like; save it as UTF-8")
