"""The one configuration of a run: nested frozen dataclasses, read strictly from TOML.

    [run] [source] [split] [spectral] [sequence] [train] [generate] [verify] [cluster]

Every section refuses nonsense at birth with its dotted key, its value and what was expected. Paths
are relative to the working directory, or begin with `~`. A stage's content key is made of
`RunConfig.subset(...)`, so a key that a stage does not read never invalidates its artifact.
"""

import codecs
import itertools
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from flows.config.strict import ConfigError, nearest, plain, read_table
from storage.artifacts.layout import StoreLayout
from storage.conventions.attributes import KNOWN as KNOWN_ATTRIBUTES

__all__ = ["ConfigError", "RunConfig", "read_config", "within"]

Transform = Literal["identity", "cbrt", "log1p", "logit", "rank"]
Fill = Literal["refuse", "harmonic", "mask-ever"] | float
Stamps = Literal["kept", "day", "month", "day-end", "month-end"]
Integrator = Literal["ei", "mei", "gei", "gme", "gei-heun", "z-heun", "z-ab2", "z-rk4"]
Period = tuple[str, str]  # first and last day, inclusive, ISO dates; the last may be LATEST
LATEST = "latest"  # the last day that there is

ROLES = ("time", "lat", "lon", "level", "member", "lead", "cell")  # of dimensions of a source
ROLE_UNITS = (("units", "time"), ("units", "lead"))  # of coordinates, by their role
DATED = r"\d{4}-\d\d(-\d\d(T\d\d(:\d\d(:\d\d)?)?)?)?"  # a month, a day, a time
BOUNDED = 'source.transform "logit" or "rank" of a variable with bounds'
LARGEST_FILE = 4 << 20  # a configuration, in bytes
LARGEST_DEGREE = 20_000  # a kilometre
LONGEST_PAST = 8  # days that a day is drawn given
VAR = "gaussian:var"  # the linear law of sequences
DRAW = "draw"  # where a sequence begins: in the law of single days
ADDRESS = r"(tcp|tls)://.+:\d+"  # of a Dask scheduler; tcp on loopback only
EVALUATIONS_PER_STEP = {"gei-heun": 2, "z-heun": 2, "z-rk4": 4}  # one where not said


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where a run lives and the seed from which all its randomness is derived."""

    root: str  # a directory, or s3://bucket/prefix
    seed: int = 0
    scratch: str | None = None  # a directory for logs and the like, where the root is a bucket

    def __post_init__(self) -> None:
        _set(self, root=expanded(self.root, "run.root"))
        if self.scratch is not None:
            _set(self, scratch=expanded(self.scratch, "run.scratch"))
        plain = self.root.strip() != "" and self.root.isprintable() and len(self.root) < 4096
        expected = "a directory or s3://bucket/prefix, without control characters"
        _require(plain, "run.root", self.root[:200], expected)
        try:
            StoreLayout(self.root, self.scratch)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        _require(0 <= self.seed < 2**63, "run.seed", self.seed, "a whole number in [0, 2^63)")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Raw files, and what has to be declared about them; the tables are by variable name."""

    paths: tuple[str, ...]
    variables: tuple[str, ...]
    transform: Mapping[str, Transform] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)  # overrides a wrong or absent attribute
    missing: Mapping[str, float] = field(default_factory=dict)  # a value that stands for missing
    valid_range: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    winds: tuple[tuple[str, str], ...] | None = None  # pairs (u, v); None: found by their names
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # of logit and rank
    fill: Fill | Mapping[str, Fill] = "refuse"  # missing values; a number is what they stand for
    static: tuple[str, ...] = ()  # maps without time, given to the model as inputs
    covariates: Mapping[str, str] = field(default_factory=dict)  # series along time: name = file
    trend: tuple[str, ...] = ()  # covariates, or "time", that the mean of every cell follows
    allow_gaps: bool = False
    dims: Mapping[str, str] = field(default_factory=dict)  # role = coordinate or dimension
    select: Mapping[str, float | str] = field(default_factory=dict)  # one label of a dimension
    samples: str = ""  # a dimension, scalar or attribute whose values are samples of each time
    period: Period | None = None  # the part of the source to take
    drop: tuple[str, ...] = ()  # dates, "first/last", or "empty": times that are left out
    stamps: Stamps | None = None  # what a stamp of time stands for; None: as its bounds say
    healpix: Literal["ring", "nested"] | None = None  # order of cells, if the files do not say it
    group: str = ""  # in NetCDF or Zarr files
    grib: Mapping[str, int | str] = field(default_factory=dict)  # keys of messages, by eccodes
    zarr_fill: Literal["value", "missing"] | None = None  # what a fill value of 0 is in Zarr 2
    band: bool = False  # whether latitudes may end before the poles; the rest is missing

    def __post_init__(self) -> None:
        _require(len(self.paths) > 0, "source.paths", self.paths, "at least one file")
        series = {
            name: expanded(path, f"source.covariates.{name}")
            for name, path in self.covariates.items()
        }
        paths = tuple(expanded(path, "source.paths") for path in self.paths)
        _set(self, paths=paths, covariates=series)
        _require(len(self.variables) > 0, "source.variables", self.variables, "at least one name")
        for name in self.trend:
            if name != "time" and name not in self.covariates:
                raise ConfigError(
                    f'source.trend: {name} is neither "time" nor in source.covariates'
                    f"{nearest(name, tuple(self.covariates))}"
                )
        for key in ("variables", "static", "trend"):
            names = getattr(self, key)
            _require(len(set(names)) == len(names), f"source.{key}", names, "each name once")
        for name in self.covariates:
            taken = name in self.variables or name in self.static
            _require(not taken, "source.covariates", name, "a name of its own")
        for place, pair in enumerate(self.winds or ()):
            for name in pair:
                transform = self.transform.get(name, "identity")
                key = f"source.winds[{place}]"
                _require(name in self.variables, key, name, "names of source.variables")
                _require(transform == "identity", key, name, "variables without a transform")
        paired = [name for pair in self.winds or () for name in pair]
        _require(len(set(paired)) == len(paired), "source.winds", paired, "each name once")
        fill = self.fill if isinstance(self.fill, Mapping) else {}
        for name in fill:
            known = (*self.variables, *self.static)
            if name not in known:
                raise ConfigError(
                    f"source.fill.{name} is not in source.variables{nearest(name, known)}"
                )
        for key in ("transform", "units", "missing", "valid_range", "bounds"):
            for name in getattr(self, key):
                if name not in self.variables and (key, name) not in ROLE_UNITS:
                    raise ConfigError(
                        f"source.{key}.{name} is not in source.variables"
                        f"{nearest(name, self.variables)}"
                    )
        for role in self.dims:
            if role not in ROLES:
                raise ConfigError(f"source.dims.{role} is not known{nearest(role, ROLES)}")
        if self.period is not None:
            for day in self.period:
                _require_day(day, "source.period")
            ordered = self.period[0] <= self.period[1]
            _require(ordered, "source.period", self.period, "first day <= last day")
        for entry in self.drop:
            dated = re.fullmatch(rf"{DATED}(/{DATED})?", entry)
            expected = 'a date, a range "first/last" of dates, or "empty"'
            _require(entry == "empty" or dated is not None, "source.drop", entry, expected)
        for key in ("valid_range", "bounds"):
            for name, (low, high) in getattr(self, key).items():
                _require(low < high, f"source.{key}.{name}", (low, high), "lowest < highest")
        for name in self.bounds:
            used = self.transform.get(name) in ("logit", "rank")
            _require(used, f"source.bounds.{name}", self.transform.get(name, "identity"), BOUNDED)

    def fill_of(self, name: str) -> str | float:
        """What is done about missing values of a variable."""
        return self.fill.get(name, "refuse") if isinstance(self.fill, Mapping) else self.fill


@dataclass(frozen=True, kw_only=True)
class Split:
    """Disjoint periods: what is learned from, what is chosen on, and what only scores see.

    The one that comes last may end at "latest": it then grows with the record.
    """

    train: Period
    validation: Period
    test: Period

    def __post_init__(self) -> None:
        periods = {name: getattr(self, name) for name in ("train", "validation", "test")}
        for name, period in periods.items():
            for day in period[:1] if period[1] == LATEST else period:
                _require_day(day, f"split.{name}")
            _require(period[0] <= period[1], f"split.{name}", period, "first day <= last day")
        ordered = sorted(periods.items(), key=lambda item: item[1])
        for (name, (_, last)), (other, (first, _)) in itertools.pairwise(ordered):
            if first <= last:
                raise ConfigError(
                    f"split.{other} starts on {first}, before split.{name} ends on {last}; "
                    "the periods must not overlap"
                )


@dataclass(frozen=True, kw_only=True)
class WhittleMaternTable:
    """Parameters of a fixed reference measure, q_l = amplitude (kappa^2 + l(l+1))^(-2 beta)."""

    kappa: float
    beta: float
    amplitude: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _require(value > 0, f"spectral.reference.{name}", value, "a positive number")


@dataclass(frozen=True, kw_only=True)
class Spectral:
    """The band limits (inclusive) and the Gaussian measures."""

    lmax: int  # what is learned
    tail: int | None = None  # degrees beyond lmax up to this are drawn as the data's Gaussian law
    reference: Literal["fit", "semi-parametric"] | WhittleMaternTable = "semi-parametric"
    baseline: Literal["isotropic", "channels", "m-block", "eof"] = "m-block"
    joint: bool = False  # whether the channels of the reference covary as those of the data do
    harmonics: int | None = None  # of the yearly cycle; None: all that the training times determine
    statistics: Literal["refit", "frozen"] = "refit"  # of new days: fitted anew, or kept

    def __post_init__(self) -> None:
        most = f"a whole number up to {LARGEST_DEGREE}"
        _require(1 <= self.lmax <= LARGEST_DEGREE, "spectral.lmax", self.lmax, most)
        beyond = self.tail is None or self.lmax <= self.tail <= LARGEST_DEGREE
        _require(beyond, "spectral.tail", self.tail, f"{most}, at least lmax = {self.lmax}")
        known = self.harmonics is None or 0 <= self.harmonics <= 2
        _require(known, "spectral.harmonics", self.harmonics, "0, 1 or 2")


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """How days follow each other: the law of a day given the `past` days before it."""

    past: int = 0  # 0: days are drawn by themselves

    def __post_init__(self) -> None:
        most = f"a whole number in [0, {LONGEST_PAST}]"
        _require(0 <= self.past <= LONGEST_PAST, "sequence.past", self.past, most)


@dataclass(frozen=True, kw_only=True)
class Train:
    """The score model and its optimisation; ends at `minutes` or `steps`, whichever is first."""

    model: Literal[
        "network",
        "gaussian:isotropic",
        "gaussian:channels",
        "gaussian:m-block",
        "gaussian:eof",
        "gaussian:var",
    ] = "network"
    minutes: float | None = None
    steps: int | None = None
    batch: int = 32
    learning_rate: float = 2e-3
    start: Literal["scratch", "last"] = "scratch"  # or the weights of the training before
    width: int = 64
    blocks: int = 4
    dropout: float = 0.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    ranks: int = 1  # processes that train one model together, on workers of the cluster
    accumulate: int = 1  # parts of a rank's batch, one after the other, where memory is short

    def __post_init__(self) -> None:
        if self.model == "network" and self.minutes is None and self.steps is None:
            raise ConfigError("train.minutes or train.steps is needed: the training has no end")
        counts = ("steps", "batch", "width", "blocks", "ranks", "accumulate")
        for name in (*counts, "minutes", "learning_rate"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"train.{name}", value, "a positive number")
        each = f"at most train.batch, {self.batch}"
        _require(self.ranks <= self.batch, "train.ranks", self.ranks, each)
        _require(0 <= self.dropout < 1, "train.dropout", self.dropout, "a number in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class DrawnSequence:
    """Days that follow each other: each is drawn given those before it."""

    start: str
    days: int  # times, as far apart as those of the source
    realizations: int = 1
    from_: str = DRAW  # or a date of the source, the day before `start`: a forecast

    def __post_init__(self) -> None:
        key = "generate.sequences"
        _require_day(self.start, f"{key}.start")
        for name in ("days", "realizations"):
            value = getattr(self, name)
            _require(value > 0, f"{key}.{name}", value, "a positive number")
        if self.from_ != DRAW:
            _require_day(self.from_, f"{key}.from")
            before = self.from_ < self.start
            _require(before, f"{key}.from", self.from_, f'"{DRAW}" or the day before start')


@dataclass(frozen=True, kw_only=True)
class Generate:
    """What to draw: `realizations` fields for each calendar time, in microbatches of fixed size."""

    realizations: int
    times: tuple[str, ...]
    integrator: Integrator = "z-ab2"
    evaluations: int = 6  # of the network, for each draw
    grid_exponent: float = 2.2  # times horizon * (1 - k / steps)^exponent
    batch: int = 8  # realizations that one unit of work draws
    covariates: Mapping[str, float] = field(default_factory=dict)  # given; others are free
    microbatch: int = 4  # draws that pass the model together; part of the ensemble's identity
    grid: str = "source"  # or another one, by name: pipeline/sphere/named_grids
    attributes: Mapping[str, str] = field(default_factory=dict)  # of ACDD, for readers
    series: bool = False  # whether a copy is made that is chunked for series at few places
    sequences: tuple[DrawnSequence, ...] = ()  # one, for now

    def __post_init__(self) -> None:
        for name in ("realizations", "evaluations", "grid_exponent", "batch", "microbatch"):
            value = getattr(self, name)
            _require(value > 0, f"generate.{name}", value, "a positive number")
        each = EVALUATIONS_PER_STEP.get(self.integrator, 1)
        _require(
            self.evaluations % each == 0,
            "generate.evaluations",
            self.evaluations,
            f"a multiple of {each}, what a step of {self.integrator} takes",
        )
        for name in self.attributes:
            if name not in KNOWN_ATTRIBUTES:
                raise ConfigError(
                    f"generate.attributes.{name} is no attribute that a user gives"
                    f"{nearest(name, KNOWN_ATTRIBUTES)}; those of ACDD-1.3 are: "
                    f"{', '.join(KNOWN_ATTRIBUTES)}"
                )
        if self.grid != "source":
            from pipeline.sphere.named_grids import grid_named

            try:
                grid_named(self.grid)
            except ValueError as error:
                raise ConfigError(f"generate.grid: {error}") from error
        _require(len(self.sequences) <= 1, "generate.sequences", len(self.sequences), "one at most")
        _require(len(self.times) > 0, "generate.times", self.times, "at least one date")
        for day in self.times:
            _require_day(day, "generate.times")
        _require(
            list(self.times) == sorted(set(self.times)),
            "generate.times",
            self.times,
            "dates in order, each once",
        )


@dataclass(frozen=True, kw_only=True)
class Verify:
    """How much is drawn for the scores: `realizations` for each of `dates` held-out days."""

    dates: int = 48
    realizations: int = 16

    def __post_init__(self) -> None:
        _require(self.dates >= 2, "verify.dates", self.dates, "at least 2")
        _require(self.realizations >= 2, "verify.realizations", self.realizations, "at least 2")


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Files of a cluster's own certificate authority; what is left out, Dask's settings say."""

    ca: str = ""
    cert: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        for name in ("ca", "cert", "key"):
            _set(self, **{name: expanded(getattr(self, name), f"cluster.tls.{name}")})


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """What jobs ask Slurm for, besides memory and GPUs."""

    queue: str = ""  # the partition
    account: str = ""
    walltime: str = "04:00:00"
    per_job: int = 1  # workers in one job
    interface: str = ""  # network of scheduler and workers, e.g. "ib0"
    directives: tuple[str, ...] = ()  # more options of sbatch, e.g. "--constraint=skylake"
    prologue: tuple[str, ...] = ()  # lines of shell before the workers start, e.g. "module load"

    def __post_init__(self) -> None:
        _require(self.per_job >= 1, "cluster.slurm.per_job", self.per_job, "at least 1")


@dataclass(frozen=True, kw_only=True)
class Kubernetes:
    """Where pods run and what they see; names of objects that are there before the run."""

    image: str = ""  # with this package, the same as that of the run
    namespace: str = "default"
    claim: str = ""  # a persistent volume claim that all pods may write
    mount: str = "/data"  # where it is in every pod, and in that of the run
    secret: str = ""  # with ca.pem, cert.pem and key.pem; cluster.tls names those of the run
    name: str = "spherescore"  # of the DaskCluster


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The Dask cluster of a run: processes of one thread, here or elsewhere (docs/clusters.md)."""

    kind: Literal["local", "address", "slurm", "kubernetes"] = "local"
    workers: int = 2  # at least so many, where the run starts them
    most: int | None = None  # and up to so many while there is work for them; not local
    memory: str = "auto"  # per worker, e.g. "2GiB"; "auto" shares out what the machine has
    unit_minutes: float = 30.0  # if no unit of work ends for so long, the run gives up
    address: str = ""  # of a scheduler that runs already; if left out, SPHERESCORE_SCHEDULER's
    tls: Tls = field(default_factory=Tls)
    patience: float = 60.0  # seconds without any worker, after which a run gives up
    gpus: int = 0  # of each worker, where the run starts them; not local
    scratch: str = ""  # directory of each host where workers spill; by default its temporary one
    slurm: Slurm = field(default_factory=Slurm)
    kubernetes: Kubernetes = field(default_factory=Kubernetes)

    def __post_init__(self) -> None:
        _set(self, scratch=expanded(self.scratch, "cluster.scratch"))
        _require(1 <= self.workers <= 10_000, "cluster.workers", self.workers, "1 to 10,000")
        known = self.unit_minutes > 0
        _require(known, "cluster.unit_minutes", self.unit_minutes, "a positive number")
        spelled = re.fullmatch(r"auto|(?!0+(\.0+)?\s*[KMGT])\d+(\.\d+)?\s*[KMGT]i?B", self.memory)
        _require(spelled is not None, "cluster.memory", self.memory, 'a size like "2GiB" or "auto"')
        _require(self.patience > 0, "cluster.patience", self.patience, "a positive number")
        if self.kind == "address":
            known = self.address == "" or re.fullmatch(ADDRESS, self.address) is not None
            _require(known, "cluster.address", self.address, "an address like tls://host:8786")
        else:
            none = f'nothing where cluster.kind is "{self.kind}" (only "address" takes one)'
            _require(not self.address, "cluster.address", self.address, none)
        if self.most is not None:
            least = self.most >= self.workers
            _require(least, "cluster.most", self.most, "at least cluster.workers")
        started = self.kind not in ("local", "address")
        for name in ("most", "gpus", "scratch"):
            value = getattr(self, name)
            takers = '(only "slurm" and "kubernetes" take it)'
            kinds = f'nothing where cluster.kind is "{self.kind}" {takers}'
            _require(started or not value, f"cluster.{name}", value, kinds)
        if started:
            said = self.memory != "auto"
            _require(said, "cluster.memory", self.memory, "a size, which is what jobs ask for")
        if self.kind == "kubernetes":
            _require(self.most is None, "cluster.most", self.most, "nothing: its size is fixed")
            for name in ("image", "claim", "secret"):
                value = getattr(self.kubernetes, name)
                _require(value != "", f"cluster.kubernetes.{name}", value, "a name")
        alone = self.gpus == 0 or self.slurm.per_job == 1
        _require(alone, "cluster.slurm.per_job", self.slurm.per_job, "1 where workers have GPUs")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All a run depends on. Written into every artifact as `to_dict()`."""

    run: Run
    source: Source
    split: Split
    spectral: Spectral
    train: Train
    generate: Generate
    sequence: Sequence = field(default_factory=Sequence)
    verify: Verify = field(default_factory=Verify)
    cluster: Cluster = field(default_factory=Cluster)

    def __post_init__(self) -> None:
        for name in self.generate.covariates:
            if name not in self.source.covariates:
                raise ConfigError(
                    f"generate.covariates.{name} is not in source.covariates"
                    f"{nearest(name, tuple(self.source.covariates))}"
                )
        if self.train.model == VAR or self.generate.sequences:
            wanted = f'at least 1 for train.model "{VAR}" and for generate.sequences'
            _require(self.sequence.past > 0, "sequence.past", self.sequence.past, wanted)
        if self.generate.sequences:
            wanted = f'"{VAR}" where generate.sequences are drawn'
            _require(self.train.model == VAR, "train.model", self.train.model, wanted)
        if self.sequence.past:
            alone = self.source.samples == ""
            wanted = "nothing where sequence.past is set: samples do not follow each other"
            _require(alone, "source.samples", self.source.samples, wanted)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> "RunConfig":
        """Read plain nested tables; `from_dict(config.to_dict()) == config`."""
        return read_table(cls, table)

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


def expanded(path: str, key: str) -> str:
    """A path with `~` in the place of a home directory expanded; all others as they are.

    Raises:
        ConfigError: If there is no such home directory.
    """
    found = os.path.expanduser(path)
    if found.startswith("~"):
        raise ConfigError(
            f"{key}: {path.partition('/')[0]} is no home directory of this machine; write the path "
            f"in full, or ./{path} for a directory of that name"
        )
    return found


def within(period: Period) -> slice:
    """The times of a period, for `sel`; a last day of 31 is the end of its month everywhere."""
    first, last = period
    if last == LATEST:
        return slice(first, None)
    beyond = last.endswith("-31") or last.endswith("-02-30")  # not in every calendar
    return slice(first, last[:7] if beyond else last)


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


def _set(made: object, **values: object) -> None:
    """Values in their normal form, at birth."""
    for name, value in values.items():
        object.__setattr__(made, name, value)


def _require(condition: bool, key: str, value: object, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{key}: expected {expected}, got {value!r}")


def _require_day(day: str, key: str) -> None:
    # Not datetime.date: calendars of 360 days have a 30 February.
    match = re.fullmatch(r"\d{4}-(\d{2})-(\d{2})", day)
    valid = match is not None and 1 <= int(match[1]) <= 12 and 1 <= int(match[2]) <= 31
    _require(valid, key, day, 'a date like "2002-07-15"')
