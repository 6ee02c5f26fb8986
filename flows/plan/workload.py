"""What a run is asked for, and the machines it is asked of: what all counts are made of."""

from dataclasses import dataclass
from math import ceil

from flows.stages.generate.chunks import UNIT_TIMES, times_of_unit
from flows.stages.train.judging import Judging
from pipeline.gaussian.moments import block_bytes

CANDIDATES = 6  # whose fields verification scores: model, two Gaussian laws, observed, analogues
VALIDATIONS = 12  # of J_G on validation fields
WINDOW = 7  # days around a date whose fields of other years are draws of the climatology
OTHER_YEARS = 30  # at most
MOVED = 4500  # products in the time that a value of a block's feature maps takes (widths 16 to 64)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The sizes of a run on which its costs depend.

    Attributes:
        times, fitted: of the series; of training and validation together.
        validated, tested: of validation and test alone.
        nlat, points: rings of the grid; cells of one field.
        steps: of training; None if `minutes` end it.
        foretold: how many steps the minutes are likely to be, where there are prices.
        ensemble, verification: realizations, and the times of each.
        together: realizations that one task draws.
        shard: times in one unit of ingest.
        years: of training, or its members: what verification finds fields like a date in.
        accumulate: parts of a batch that a process trains on one after the other.
        drawn_points: cells of one field of the ensemble, if it is drawn on another grid.
        series: whether the ensemble is copied for readers of series.
        block_degree: up to which Gaussian laws keep the covariances of each order; lmax if None.
        sequences: realizations and days of each.
        past: days that a day of them is drawn given.
        learned: evaluations of the network for each of these days; 0 for the linear law.
    """

    times: int
    fitted: int
    channels: int
    nlat: int
    points: int
    lmax: int
    ensemble: tuple[int, int]
    verification: tuple[int, int]
    validated: int = 0
    tested: int = 0
    steps: int | None = None
    minutes: float | None = None
    foretold: int | None = None
    batch: int = 32
    accumulate: int = 1
    width: int = 64
    blocks: int = 4
    evaluations: int = 12
    together: int = 8
    microbatch: int = 4
    shard: int = 64
    years: int = 1
    drawn_points: int | None = None
    series: bool = False
    block_degree: int | None = None
    sequences: tuple[tuple[int, int], ...] = ()
    past: int = 0
    learned: int = 0

    @property
    def coefficients(self) -> int:
        return (self.lmax + 1) ** 2

    @property
    def drawn(self) -> int:
        return self.ensemble[0] * self.ensemble[1]

    @property
    def scored(self) -> int:
        return self.verification[0] * self.verification[1]

    @property
    def like(self) -> int:
        """Training fields of the calendar days of verification."""
        return min(self.years, OTHER_YEARS) * self.verification[1]

    @property
    def compared(self) -> int:
        """Fields that are scored: of the model and two Gaussian laws, of other years, whole and
        cut to lmax, and of the climatology."""
        return (CANDIDATES - 3) * self.scored + (2 + WINDOW) * self.like

    @property
    def followed(self) -> int:
        """Days of all sequences together."""
        return sum(realizations * days for realizations, days in self.sequences)

    @property
    def sequence_units(self) -> tuple[int, int]:
        """Units of the states of all sequences, and of their fields."""
        states = sum(n * ceil(days / UNIT_TIMES) for n, days in self.sequences)
        fields = sum(n * ceil(days / self.times_of(days)) for n, days in self.sequences)
        return states, fields

    def times_of(self, days: int) -> int:
        """Times in a unit of the fields of a sequence."""
        return times_of_unit(self.channels * (self.drawn_points or self.points), days)

    @property
    def field_bytes(self) -> int:
        """One field of all channels, float32."""
        return 4 * self.channels * self.points

    @property
    def legendre_flops(self) -> int:
        """Products of the transforms of all channels of one field, hemispheres folded."""
        return self.channels * self.nlat * self.coefficients

    @property
    def degree(self) -> int:
        """The block degree."""
        return self.lmax if self.block_degree is None else min(self.block_degree, self.lmax)

    @property
    def covariances(self) -> int:
        """Numbers in the covariances of all orders up to the block degree, and of the channels of
        each degree beyond it."""
        blocks, beyond = block_bytes(self.channels, self.degree) // 8, self.lmax - self.degree
        return blocks + self.channels**2 * beyond

    @property
    def mixed(self) -> int:
        """Products that mix the channels of all coefficients beyond the block degree."""
        return self.channels**2 * (self.coefficients - (self.degree + 1) ** 2)

    @property
    def factored(self) -> int:
        """Numbers of the laws, each as often as its matrix has rows: what their fit costs."""
        orders = (self.degree + 1) ** 4 if self.degree else 1
        return self.channels**3 * (orders + self.lmax - self.degree)

    @property
    def network_products(self) -> int:
        """One evaluation of one field: convolutions on the network's own grid of 2 (lmax + 1)^2
        cells, four transforms, the basis of the Gaussian law there and back; and the feature maps
        that are moved meanwhile, as the products that take as long."""
        width, cells = self.width, 2 * self.coefficients
        moved = MOVED * self.blocks * cells * width
        convolutions = 18 * cells * width * (10 * self.channels + 20 + 2 * self.blocks * width)
        transforms = 4 * self.channels * (self.lmax + 1) * self.coefficients
        return convolutions + moved + transforms + 6 * self.covariances + 6 * self.mixed


@dataclass(frozen=True, kw_only=True)
class Machines:
    """What a run has.

    Attributes:
        workers: Dask workers of one thread.
        gpus: what trains and samples; without any, the CPU that was measured does.
        gpu_speed: products that one of them does in a second, in the network.
        memory: of the machine that trains [bytes]; None: as much as it takes.
        ranks: that train on workers; one trains beside the run.
    """

    workers: int = 2
    gpus: int = 0
    gpu_speed: float = 0.0
    memory: int | None = None
    ranks: int = 1


def judging_of(load: Workload) -> Judging:
    return Judging.of(
        steps=load.steps or load.foretold,
        batch=load.batch,
        validations=VALIDATIONS,
        fields=load.validated,
        numbers=load.channels * load.coefficients,
    )
