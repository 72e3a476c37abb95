"""The settings of measurements: which network and data, how much of them, on what machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoloss.experiments.direction_specs import HELP as DIRECTIONS
from isoloss.experiments.direction_specs import absolute_direction
from isoloss.experiments.options import (
    LARGEST_COUNT,
    LARGEST_SEED,
    OptionError,
    Options,
    option,
    redeclared,
)
from isoloss.plugins import absolute_spec

DEFAULT_DATA_DIR = Path("data")
SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors", ".bin")  # of files of weights
LARGEST_SAMPLE = 10_000
# The subset that surfaces and curvature are measured on is the same for every seed of directions
# and probes, so that what differs between seeds is those alone.
SAMPLE_SEED = 0
# The splits that an answer to "which split" means.
SPLITS = {"train": ("train",), "val": ("val",), "test": ("test",), "both": ("train", "test")}


def absolute_specs(specs: Sequence[str]) -> tuple[str, ...]:
    """Return specs that mean the same from any folder."""
    return tuple(map(absolute_spec, specs))


@dataclass(frozen=True, kw_only=True)
class Results(Options):
    """Where runs are."""

    results: Path = option(
        Path("results"), "Folder that runs are written to.", env="ISOLOSS_RESULTS"
    )


@dataclass(frozen=True, kw_only=True)
class Folders(Results):
    """Where runs and data are."""

    data_dir: Path | None = option(
        None,
        "Folder of the data.",
        env="ISOLOSS_DATA",
        otherwise=f"the run's own, else ./{DEFAULT_DATA_DIR}",
    )
    download: bool = option(False, "Allow fetching missing data from the network.")


@dataclass(frozen=True, kw_only=True)
class Around(Folders):
    """What weights from elsewhere belong to: a network, data and a loss."""

    key: str | None = option(
        None,
        "Which weights of a FILE from elsewhere: an entry, as ema or ema.state_dict, or what the "
        "names of the tensors begin with, as ema_model.",
        otherwise="state_dict, model, ..",
    )
    trust_pickle: bool = option(
        False,
        "Run whatever code such a file holds where it cannot be read otherwise: only for one of "
        "your own. The weights are kept in a plain form.",
    )
    model: str | None = option(
        None, "Network: a name of `list models`, file.py:factory or module:factory."
    )
    model_arg: dict[str, Any] = option({}, "Argument of the network.")
    dataset: str | None = option(
        None, "Data: a name of `list data`, file.py:factory or module:factory."
    )
    dataset_arg: dict[str, Any] = option({}, "Argument of the data set.")
    loss: str | None = option(
        None,
        "Loss: a name of `list losses`, file.py:function or module:function.",
        aliases=("loss_name",),
        otherwise="the run's own",
    )
    closure: str | None = option(
        None,
        "In place of a loss: file.py:function, or module:function, of (model, batch), one value "
        "a sample.",
        otherwise="the run's own, if any",
        convert=absolute_spec,
    )
    loss_arg: dict[str, Any] = option({}, "Argument of the loss or closure.")


@dataclass(frozen=True, kw_only=True)
class Selection(Around):
    """What to look at: a run, or weights from elsewhere."""

    run: str | None = option(
        None, "Name of a run.", positional=True, metavar="RUN", otherwise="the newest"
    )
    checkpoint: str | None = option(
        None,
        "last, best or epoch-N of the run (kept with --checkpoint-every); or a FILE of weights "
        "from elsewhere, which is imported as a run and needs a model and a dataset to be named.",
        aliases=("model_file",),
        otherwise="last",
    )


@dataclass(frozen=True, kw_only=True)
class Machine(Options):
    """What computes."""

    device: str = option("auto", "auto, cpu, cuda[:N], xpu or mps; auto takes the fastest.")


@dataclass(frozen=True, kw_only=True)
class Numerics(Machine):
    """What computes, how exactly, and from which random numbers."""

    seed: int = option(0, "Seed of everything random.", low=0, high=LARGEST_SEED)
    dtype: str = option(
        "float32",
        "Precision of the passes; bfloat16 is autocast.",
        choices=("float32", "float64", "bfloat16"),
    )


@dataclass(frozen=True, kw_only=True)
class Spreading(Options):
    """Who does the work; no part of what is computed."""

    workers: int | str | None = option(
        None,
        "Processes that share the points: a number, or auto for one a GPU, on CPUs one a processor "
        "(of several threads each where OMP_NUM_THREADS or the file's plan says so).",
        low=1,
        high=10_000,
        choices=("auto",),
        otherwise="this process alone",
    )
    cluster: str | None = option(
        None,
        "Workers on a Ray cluster (extra `cluster`) in place of processes: its address, or auto "
        "for the one that runs here, else one that is started on this machine alone.",
        metavar="auto|ADDRESS",
        otherwise="this machine",
    )


@dataclass(frozen=True, kw_only=True)
class SampleSettings(Options):
    """Which samples and parameters the loss is a function of, and how it is evaluated."""

    samples: int | str | None = option(
        None,
        "Samples of the split, drawn with a fixed seed in proportion to the classes.",
        low=1,
        high=LARGEST_COUNT,
        choices=("all",),
        otherwise=f"all up to {LARGEST_SAMPLE}, above that {LARGEST_SAMPLE}",
    )
    sample_fraction: float | None = option(
        None,
        "Share of the split's samples, in place of `samples`.",
        above=0,
        high=1,
        aliases=("percentage",),
        otherwise="`samples`",
    )
    sample_balance: bool = option(
        False, "Draw equally many samples of each class; their loss is not that of the split."
    )
    parameters: tuple[str, ...] = option(
        (),
        "Parameters that are moved, by name: a pattern such as layer1.* or, to leave some out, "
        "!*.bias; trainable or all. May be repeated.",
        metavar="PATTERN",
        otherwise="trainable",
    )
    batch_size: int | None = option(
        None,
        "Samples in one forward pass; changes speed and rounding only.",
        low=1,
        high=LARGEST_COUNT,
        otherwise="chosen to fit",
    )
    bn: str = option(
        "eval",
        "Batch norm: eval (stored statistics), train (of each statistics batch), or recalibrate "
        "(estimated anew at each point).",
    )
    bn_batch: int = option(
        128, "Samples of one batch-norm statistics batch.", low=2, high=LARGEST_COUNT
    )


@dataclass(frozen=True, kw_only=True)
class SurfaceSettings(SampleSettings, Numerics):
    """What surface to evaluate."""

    x: str = option("-1:1:51", "First axis, both ends included.", metavar="MIN:MAX:COUNT")
    y: str | None = option(None, "Second axis; a curve without it.", metavar="MIN:MAX:COUNT")
    xdir: str = option(
        "random",
        f"Direction of x: {DIRECTIONS}.",
        metavar="DIRECTION",
        convert=absolute_direction,
    )
    ydir: str = option("random", "The same for y.", metavar="DIRECTION", convert=absolute_direction)
    dir_type: str | None = option(
        None,
        "Whether buffers (batch norm's running mean and variance) move with the weights: weights "
        "moves the weights alone, states both.",
        choices=("weights", "states"),
        aliases=("dir_type",),
        otherwise="states towards another checkpoint, what a file has, else weights",
    )
    norm: str | None = option(
        None,
        "filter, layer, weight, dfilter, dlayer, model or none (Li et al. 2018).",
        otherwise="filter for random directions, none for others",
    )
    xnorm: str | None = option(None, "The same for x alone.")
    ynorm: str | None = option(None, "The same for y alone.")
    ignore: str | None = option(
        None,
        "biasbn keeps biases and batch norm fixed, or none.",
        otherwise="biasbn for random directions, none for others",
    )
    xignore: str | None = option(None, "For x alone.")
    yignore: str | None = option(None, "For y alone.")
    orthogonal: bool = option(
        True,
        "Whether a random direction is made orthogonal to the other after normalisation; two "
        "given ones stay what they are.",
        off="no-orthogonal",
    )
    repeat: int = option(
        1,
        "Independent draws of the random direction, or plane, in one file. The loss along one may "
        "be several times that along another: figures show the median and what the draws span. "
        "The first is that of the seed alone.",
        low=1,
        high=10_000,
    )
    also: tuple[str, ...] = option(
        (),
        "What else to compute at each point, on the first split: grad_norm, of the gradient, or "
        "eigenvalues, the largest and the smallest of the Hessian. May be repeated.",
        metavar="NAME",
    )
    metric: tuple[str, ...] = option(
        (),
        "Metric of your own, file.py:function or module:function of (outputs, targets), one value "
        "a sample, whose mean becomes the column train_FUNCTION. May be repeated.",
        metavar="SPEC",
        convert=absolute_specs,
    )
    split: str = option(
        "train",
        "Samples to measure on; both is train and test.",
        choices=tuple(SPLITS),
    )

    @property
    def normalisation(self) -> tuple[str | None, str | None]:
        """The rules of x and y; None for that of the direction's kind."""
        return self.xnorm or self.norm, self.ynorm or self.norm

    @property
    def ignored(self) -> tuple[str | None, str | None]:
        """What x and y leave fixed; None for the rule of the direction's kind."""
        return self.xignore or self.ignore, self.yignore or self.ignore


@dataclass(frozen=True, kw_only=True)
class TrajectorySettings(SurfaceSettings):
    """What plane to draw the paths of trainings on, and how finely."""

    x: str = redeclared(
        SurfaceSettings,
        "x",
        "auto:31",
        help="First axis, both ends included; auto:COUNT holds all paths with a margin.",
        metavar="MIN:MAX:COUNT|auto:COUNT",
    )
    y: str | None = redeclared(
        SurfaceSettings,
        "y",
        "auto:31",
        help="The same for the second axis.",
        metavar="MIN:MAX:COUNT|auto:COUNT",
    )
    xdir: str = redeclared(
        SurfaceSettings, "xdir", "pca:0", otherwise="pca:0 of the epochs of all runs together"
    )
    ydir: str = redeclared(
        SurfaceSettings, "ydir", "pca:1", otherwise="pca:1 of the epochs of all runs together"
    )


@dataclass(frozen=True, kw_only=True)
class SpectrumSettings(SampleSettings, Numerics):
    """What to compute of the curvature."""

    top: int = option(5, "Largest eigenvalues to compute; 0 for none.", low=0, high=10_000)
    smallest: int | None = option(
        None,
        "Algebraically smallest eigenvalues, as well.",
        low=0,
        high=10_000,
        otherwise="1, none without top",
    )
    tol: float | None = option(
        None,
        "Residual asked for, relative to the eigenvalue.",
        above=0,
        otherwise="1e-4, or what products of the precision allow",
    )
    max_products: int = option(300, "Products to spend on eigenvalues.", low=1, high=1_000_000)
    trace_error: float = option(0.05, "Relative standard error asked for.", above=0)
    trace_budget: int = option(120, "Products for the trace; 0 for none.", low=0, high=1_000_000)
    probes: int = option(6, "Random probes of the density; 0 for none.", low=0, high=10_000)
    steps: int = option(50, "Lanczos steps for each probe.", low=1, high=10_000)
    layers: bool = option(
        False, "Measure the block of each layer, too: largest eigenvalue, trace, Frobenius norm."
    )
    operator: str = option(
        "hessian",
        "Matrices, separated by commas: hessian; ggn, the generalised Gauss-Newton matrix; "
        "residual, hessian - ggn; fisher, of the network's own predictions; mc-fisher, with one "
        "drawn target a sample; empirical-fisher, with the true targets; gradient-covariance.",
        metavar="NAME,..",
    )
    exact: bool = option(
        False,
        "All eigenvalues of the dense matrix in place of estimates, for up to 20,000 parameters: "
        "as many products, and memory for 5 such matrices in float64.",
    )
    basis: int | None = option(
        None,
        "Vectors of the network's size that a Lanczos basis holds at most, for large networks: "
        "fewer take more products. It limits the steps of the density; the trace is "
        "Hutchinson's where it is less than half its products.",
        low=4,
        high=10_000,
        otherwise="twice the eigenvalues and 40, within 2 GiB",
    )
    eigenvectors: bool = option(
        True,
        "Whether eigenvectors are stored, as large as the weights each.",
        off="no-eigenvectors",
    )
    split: str = option("train", "Samples to measure on.", choices=("train", "val", "test"))


@dataclass(frozen=True, kw_only=True)
class Along(Options):
    """At which checkpoints of a training to measure."""

    epochs: str | None = option(
        None,
        "Measure along the training instead, at checkpoints kept with --checkpoint-every: all, "
        "epochs as 0,5,10, or START:STOP:STEP as ::5. Then top is 1 and trace_budget 0 unless "
        "given; smallest, probes and steps are not taken.",
        metavar="EPOCHS",
        otherwise="one checkpoint alone",
    )


@dataclass(frozen=True, kw_only=True)
class OverTrainingSettings(Along, SampleSettings, Numerics):
    """What to compute of the curvature at each checkpoint of a training."""

    epochs: str | None = redeclared(Along, "epochs", "all", otherwise="")
    top: int = redeclared(SpectrumSettings, "top", 1, low=1, help="Largest eigenvalues.")
    tol: float | None = redeclared(SpectrumSettings, "tol", None)
    max_products: int = redeclared(SpectrumSettings, "max_products", 300)
    trace_error: float = redeclared(SpectrumSettings, "trace_error", 0.05)
    trace_budget: int = redeclared(SpectrumSettings, "trace_budget", 0)
    operator: str = redeclared(
        SpectrumSettings, "operator", "hessian", help="One matrix, as of `hessian`."
    )
    split: str = redeclared(SpectrumSettings, "split", "train")


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings(SurfaceSettings, SpectrumSettings):
    """What to measure of each of several networks, alike: a surface or curve, and a spectrum.

    The options of both, quick where nothing is given.
    """

    x: str = redeclared(SurfaceSettings, "x", "-1:1:11")
    y: str | None = redeclared(
        SurfaceSettings, "y", "-1:1:11", none="none", help="Second axis; none for a curve."
    )
    samples: int | str | None = redeclared(SampleSettings, "samples", 1000, otherwise="")
    top: int = redeclared(SpectrumSettings, "top", 1)
    trace_budget: int = redeclared(SpectrumSettings, "trace_budget", 60)
    probes: int = redeclared(SpectrumSettings, "probes", 2)
    steps: int = redeclared(SpectrumSettings, "steps", 30)
    split: str = redeclared(SpectrumSettings, "split", "train")

    def __post_init__(self) -> None:
        """Check the values; refuse what a comparison would compute and not show."""
        super().__post_init__()
        for name, of in (("also", "surface"), ("metric", "surface"), ("layers", "hessian")):
            if getattr(self, name):
                raise OptionError(name, f"a comparison does not show it: give it to `{of}`")
