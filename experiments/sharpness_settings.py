"""The settings of `sharpness`."""

from __future__ import annotations

from dataclasses import dataclass

from isoloss.experiments.options import LARGEST_COUNT, option, redeclared
from isoloss.experiments.settings import Numerics, SampleSettings, SpectrumSettings


@dataclass(frozen=True, kw_only=True)
class SharpnessSettings(SampleSettings, Numerics):
    """What to compute of the sharpness."""

    rho: str = option(
        "0.02,0.05,0.1",
        "Radii of the Euclidean balls, in the unit of the weights; none for none.",
        metavar="RHO,..",
    )
    adaptive_rho: str = option(
        "0.1,0.2,0.5",
        "Radii of the adaptive balls, in units of each weight: at 0.5 none moves by more than half "
        "of itself; none for none.",
        metavar="RHO,..",
    )
    eta: float = option(
        0.0,
        "Added to |w| in the adaptive balls. With 0, weights of 0 stay, and rescaled layers change "
        "nothing.",
        low=0,
    )
    starts: int = option(4, "Starts of each search for the worst case.", low=1, high=10_000)
    ascent_steps: int = option(10, "Points tried from each start.", low=0, high=100_000)
    draws: int = option(
        10, "Pairs of random directions for each average; 0 for none.", low=0, high=1_000_000
    )
    m: int = option(
        128, "Samples of a subset of m-sharpness; 0 for none.", low=0, high=LARGEST_COUNT
    )
    subsets: int = option(20, "Subsets of m-sharpness.", low=1, high=1_000_000)
    probes: int = option(
        50,
        "Products for relative flatness, at most; 0 for neither it nor eigenvalue and trace.",
        low=0,
        high=1_000_000,
    )
    trace_budget: int = redeclared(SpectrumSettings, "trace_budget", 60)
    rescale_check: float | None = option(
        None,
        "Compute all of it once more at other weights of the same function: the first layer that "
        "has a ReLU behind it times this factor, the next one divided by it.",
        above=0,
        high=1e6,
        metavar="FACTOR",
        otherwise="measures are marked by what is known of them",
    )
    split: str = redeclared(SpectrumSettings, "split", "train")
