"""The one configuration of a run: nested frozen sections, read strictly from TOML.

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
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import WithJsonSchema

from flows.config.strict import ConfigError, nearest, plain, read_table, section
from storage.artifacts.layout import StoreLayout
from storage.conventions.attributes import KNOWN as KNOWN_ATTRIBUTES

__all__ = ["ConfigError", "RunConfig", "read_config", "within"]

Transform = Literal["identity", "cbrt", "log1p", "logit", "rank"]
Fill = Literal["refuse", "harmonic", "mask-ever"] | float
Stamps = Literal["kept", "day", "month", "day-end", "month-end"]
Integrator = Literal["ei", "mei", "gei", "gme", "gei-heun", "z-heun", "z-ab2", "z-rk4"]
_TWO = {"type": "array", "minItems": 2, "maxItems": 2}
Pair = Annotated[tuple[str, str], WithJsonSchema({**_TWO, "items": {"type": "string"}})]
Range = Annotated[tuple[float, float], WithJsonSchema({**_TWO, "items": {"type": "number"}})]
Period = Pair  # first and last day, inclusive, ISO dates; the last may be LATEST
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


@section
class Source:
    """Raw files, and what has to be declared about them; the tables are by variable name."""

    paths: tuple[str, ...]
    """Files or patterns of files: NetCDF, Zarr or GRIB."""
    variables: tuple[str, ...]
    """Names of the variables; a level comes after its name, as in "t@850"."""
    transform: Mapping[str, Transform] = field(default_factory=dict)
    """By variable, a map towards a bell shape: cbrt, log1p, logit or rank."""
    units: Mapping[str, str] = field(default_factory=dict)
    """By variable, the unit where the files say a wrong one or none."""
    missing: Mapping[str, float] = field(default_factory=dict)
    """By variable, the value that stands for missing."""
    valid_range: Mapping[str, Range] = field(default_factory=dict)
    """By variable, lowest and highest value; others are refused."""
    winds: tuple[Pair, ...] | None = None
    """Pairs (u, v) that are one vector field; found by their names if left empty."""
    bounds: Mapping[str, Range] = field(default_factory=dict)
    """By variable, the bounds of logit and rank."""
    fill: Fill | Mapping[str, Fill] = "refuse"
    """Missing values: refuse, harmonic, mask-ever, or the value they stand for."""
    static: tuple[str, ...] = ()
    """Maps without time that the model gets as inputs."""
    covariates: Mapping[str, str] = field(default_factory=dict)
    """Series along time, name and CSV or NetCDF file, such as an index."""
    trend: tuple[str, ...] = ()
    """Covariates, or "time", that the mean of every cell follows."""
    allow_gaps: bool = False
    """Whether days may be lacking in the record."""
    dims: Mapping[str, str] = field(default_factory=dict)
    """By role (time, lat, lon, level, member, lead, cell), the name in the files."""
    select: Mapping[str, float | str] = field(default_factory=dict)
    """One label for each dimension that is not wanted."""
    samples: str = ""
    """A dimension whose values are samples of each time, such as members."""
    period: Period | None = None
    """First and last day to take from the source."""
    drop: tuple[str, ...] = ()
    """Times to leave out: dates, "first/last", or "empty" for those without values."""
    stamps: Stamps | None = None
    """What a time stands for: a day or month it lies in or ends, or an instant."""
    healpix: Literal["ring", "nested"] | None = None
    """Order of HEALPix cells, if the files do not say it."""
    group: str = ""
    """Group in NetCDF or Zarr files."""
    grib: Mapping[str, int | str] = field(default_factory=dict)
    """Keys of eccodes that tell which GRIB messages are meant, such as stepRange."""
    zarr_fill: Literal["value", "missing"] | None = None
    """Whether a fill value of 0 in Zarr 2 is a value, or stands for missing."""
    band: bool = False
    """Whether latitudes may end before the poles; rows that lack are missing."""

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


@section
class Split:
    """Disjoint periods: what is learned from, what is chosen on, and what only scores see.

    The one that comes last may end at "latest": it then grows with the record.
    """

    train: Period
    """First and last day of what is learned from."""
    validation: Period
    """First and last day of what chooses among models."""
    test: Period
    """First and last day of what only scores see."""

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


@section
class WhittleMaternTable:
    """Parameters of a fixed reference measure, q_l = amplitude (kappa^2 + l(l+1))^(-2 beta)."""

    kappa: float
    """Inverse of the correlation length."""
    beta: float
    """Smoothness."""
    amplitude: float
    """Level."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _require(value > 0, f"spectral.reference.{name}", value, "a positive number")


@section
class Spectral:
    """The band limits (inclusive) and the Gaussian measures."""

    lmax: int
    """Highest degree that is learned, inclusive."""
    tail: int | None = None
    """Degrees beyond lmax up to this are drawn from the Gaussian law of the data."""
    reference: Literal["fit", "semi-parametric"] | WhittleMaternTable = "semi-parametric"
    """The measure that all noise is drawn from."""
    baseline: Literal["isotropic", "channels", "m-block"] = "m-block"
    """The Gaussian law that the model starts from."""
    joint: bool = False
    """Whether channels of the reference covary as those of the data do."""
    harmonics: int | None = None
    """Of the yearly cycle, 0 to 2; by default all that the times determine."""
    statistics: Literal["refit", "frozen"] = "refit"
    """When the record grows: fitted anew, or kept as they are."""

    def __post_init__(self) -> None:
        most = f"a whole number up to {LARGEST_DEGREE}"
        _require(1 <= self.lmax <= LARGEST_DEGREE, "spectral.lmax", self.lmax, most)
        beyond = self.tail is None or self.lmax <= self.tail <= LARGEST_DEGREE
        _require(beyond, "spectral.tail", self.tail, f"{most}, at least lmax = {self.lmax}")
        known = self.harmonics is None or 0 <= self.harmonics <= 2
        _require(known, "spectral.harmonics", self.harmonics, "0, 1 or 2")


@section
class Sequence:
    """How days follow each other: the law of a day given the `past` days before it."""

    past: int = 0
    """Times that a time is drawn given; 0: times are drawn by themselves."""

    def __post_init__(self) -> None:
        most = f"a whole number in [0, {LONGEST_PAST}]"
        _require(0 <= self.past <= LONGEST_PAST, "sequence.past", self.past, most)


@section
class Train:
    """The score model and its optimisation; ends at `minutes` or `steps`, whichever is first."""

    model: Literal[
        "network",
        "gaussian:isotropic",
        "gaussian:channels",
        "gaussian:m-block",
        "gaussian:var",
    ] = "network"
    """The network, or one of the exact Gaussian models."""
    minutes: float | None = None
    """The training ends after this time or after its steps, whichever is first."""
    steps: int | None = None
    """The training ends after these steps or after its minutes, whichever is first."""
    batch: int = 32
    """Fields of one step."""
    learning_rate: float = 2e-3
    """Largest learning rate."""
    start: Literal["scratch", "last"] = "scratch"
    """From scratch, or from the weights of the training before."""
    width: int = 64
    """Channels of hidden layers."""
    blocks: int = 4
    """Blocks of the network."""
    dropout: float = 0.0
    """Fraction of hidden features dropped in training."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where torch computes; auto takes a GPU if there is one."""
    ranks: int = 1
    """Processes that train one model together."""
    accumulate: int = 1
    """Parts of a batch, one after the other, where memory is short."""

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


@section
class DrawnSequence:
    """Days that follow each other: each is drawn given those before it."""

    start: str
    """First date."""
    days: int
    """Times, as far apart as those of the source."""
    realizations: int = 1
    """How many sequences; raising it draws only the new ones."""
    from_: str = DRAW
    """What they begin with: "draw", or a date of the source: a forecast."""

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


@section
class Generate:
    """What to draw: `realizations` fields for each calendar time, in microbatches of fixed size."""

    realizations: int
    """Fields drawn for each date; raising it draws only the new ones."""
    times: tuple[str, ...]
    """Dates, in order."""
    integrator: Integrator = "z-ab2"
    """Integrator of the probability flow."""
    evaluations: int = 6
    """Evaluations of the network for each draw."""
    grid_exponent: float = 2.2
    """How the times of the integrator crowd towards the data."""
    batch: int = 8
    """Realizations that one unit of work draws."""
    covariates: Mapping[str, float] = field(default_factory=dict)
    """Values of covariates that are given; others are free."""
    microbatch: int = 4
    """Draws that pass the network together; part of the ensemble's identity."""
    grid: str = "source"
    """Grid of the ensemble, such as "healpix:64"; that of the source by default."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """ACDD attributes that only you know, such as institution."""
    series: bool = False
    """Whether a copy is made that is chunked for series at few places."""
    sequences: tuple[DrawnSequence, ...] = ()
    """Sequences of days, drawn one after the other."""

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


@section
class Verify:
    """How much is drawn for the scores: `realizations` for each of `dates` held-out days."""

    dates: int = 48
    """Held-out days that are scored."""
    realizations: int = 16
    """Fields drawn for each of them."""

    def __post_init__(self) -> None:
        _require(self.dates >= 2, "verify.dates", self.dates, "at least 2")
        _require(self.realizations >= 2, "verify.realizations", self.realizations, "at least 2")


@section
class Tls:
    """Files of a cluster's own certificate authority; what is left out, Dask's settings say."""

    ca: str = ""
    """Certificate of the authority, a file."""
    cert: str = ""
    """Certificate of the run, a file."""
    key: str = ""
    """Key of that certificate, a file."""

    def __post_init__(self) -> None:
        for name in ("ca", "cert", "key"):
            _set(self, **{name: expanded(getattr(self, name), f"cluster.tls.{name}")})


@section
class Slurm:
    """What jobs ask Slurm for, besides memory and GPUs."""

    queue: str = ""
    """The partition."""
    account: str = ""
    """Whose budget it is."""
    walltime: str = "04:00:00"
    """Longest time of a job, such as 04:00:00."""
    per_job: int = 1
    """Workers in one job."""
    interface: str = ""
    """Network of scheduler and workers, such as ib0."""
    directives: tuple[str, ...] = ()
    """More options of sbatch."""
    prologue: tuple[str, ...] = ()
    """Lines of shell before the workers start."""

    def __post_init__(self) -> None:
        _require(self.per_job >= 1, "cluster.slurm.per_job", self.per_job, "at least 1")


@section
class Kubernetes:
    """Where pods run and what they see; names of objects that are there before the run."""

    image: str = ""
    """With this package, the same as that of the run."""
    namespace: str = "default"
    """Where the pods are."""
    claim: str = ""
    """A persistent volume claim that all pods may write."""
    mount: str = "/data"
    """Where that is in every pod."""
    secret: str = ""
    """With ca.pem, cert.pem and key.pem."""
    name: str = "spherescore"
    """Of the DaskCluster."""


@section
class Cluster:
    """The Dask cluster of a run: processes of one thread, here or elsewhere (docs/clusters.md)."""

    kind: Literal["local", "address", "slurm", "kubernetes"] = "local"
    """Where the workers are."""
    workers: int = 2
    """Number of workers."""
    most: int | None = None
    """Up to so many workers while there is work for them."""
    memory: str = "auto"
    """Memory of each worker, such as "2GiB"; auto shares out what there is."""
    unit_minutes: float = 30.0
    """A unit that takes longer is taken for hung."""
    address: str = ""
    """Of a scheduler that runs; if empty, that of SPHERESCORE_SCHEDULER."""
    tls: Tls = field(default_factory=Tls)
    """Files of the cluster's certificate authority."""
    patience: float = 60.0
    """Seconds without any worker, after which the run gives up."""
    gpus: int = 0
    """GPUs of each worker."""
    scratch: str = ""
    """Directory of each host where workers spill."""
    slurm: Slurm = field(default_factory=Slurm)
    """What jobs of Slurm ask for."""
    kubernetes: Kubernetes = field(default_factory=Kubernetes)
    """What pods of Kubernetes are made of."""

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
    sequence: Sequence = field(default_factory=Sequence)
    """How days follow each other."""
    verify: Verify = field(default_factory=Verify)
    """How much is drawn for the scores."""
    cluster: Cluster = field(default_factory=Cluster)
    """The workers that do the units of a stage."""

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
