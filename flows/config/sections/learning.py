"""[spectral], [sequence], [train]: the Gaussian measures, how days follow, the score model."""

from typing import Literal

from flows.config.sections.checks import require
from flows.config.strict import ConfigError, section

__all__ = ["VAR", "Sequence", "Spectral", "Train", "WhittleMaternTable"]

LARGEST_DEGREE = 20_000  # a kilometre
LONGEST_PAST = 8  # days that a day is drawn given
VAR = "gaussian:var"  # the linear law of sequences


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
            require(value > 0, f"spectral.reference.{name}", value, "a positive number")


@section
class Spectral:
    """The band limits (inclusive) and the Gaussian measures."""

    lmax: int
    """Highest degree that is learned, inclusive."""
    tail: int | None = None
    """Degrees beyond lmax up to this are drawn from the Gaussian law of the data."""
    reference: Literal["fit", "semi-parametric"] | WhittleMaternTable = "semi-parametric"
    """The measure that all noise is drawn from."""
    baseline: Literal["isotropic", "channels", "m-block", "averaged"] = "averaged"
    """The Gaussian law that the model starts from."""
    block_degree: Literal["auto"] | int = "auto"
    """Up to it laws know all degrees of an order together; auto: as far as 512 MiB reach."""
    joint: bool = False
    """Whether channels of the reference covary as those of the data do."""
    harmonics: int | None = None
    """Of the yearly cycle, 0 to 2; by default all that the times determine."""
    statistics: Literal["refit", "frozen"] = "refit"
    """When the record grows: fitted anew, or kept as they are."""

    def __post_init__(self) -> None:
        most = f"a whole number up to {LARGEST_DEGREE}"
        require(1 <= self.lmax <= LARGEST_DEGREE, "spectral.lmax", self.lmax, most)
        beyond = self.tail is None or self.lmax <= self.tail <= LARGEST_DEGREE
        require(beyond, "spectral.tail", self.tail, f"{most}, at least lmax = {self.lmax}")
        last, blocks = self.tail or self.lmax, self.block_degree
        known = blocks == "auto" or 0 <= blocks <= last
        most = f'"auto", or a whole number in [0, {last}], the last degree that is drawn'
        require(known, "spectral.block_degree", blocks, most)
        known = self.harmonics is None or 0 <= self.harmonics <= 2
        require(known, "spectral.harmonics", self.harmonics, "0, 1 or 2")


@section
class Sequence:
    """How days follow each other: the law of a day given the `past` days before it."""

    past: int = 0
    """Times that a time is drawn given; 0: times are drawn by themselves."""
    learned: bool = True
    """Whether a network learns sequences; else it learns single days, and sequences are linear."""

    def __post_init__(self) -> None:
        most = f"a whole number in [0, {LONGEST_PAST}]"
        require(0 <= self.past <= LONGEST_PAST, "sequence.past", self.past, most)


@section
class Train:
    """The score model and its optimisation; ends at `minutes` or `steps`, whichever is first."""

    model: Literal[
        "network",
        "gaussian:isotropic",
        "gaussian:channels",
        "gaussian:m-block",
        "gaussian:averaged",
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
            require(value is None or value > 0, f"train.{name}", value, "a positive number")
        each = f"at most train.batch, {self.batch}"
        require(self.ranks <= self.batch, "train.ranks", self.ranks, each)
        require(0 <= self.dropout < 1, "train.dropout", self.dropout, "a number in [0, 1)")
