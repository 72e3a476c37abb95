"""The settings of how work is spread over workers."""

from __future__ import annotations

from dataclasses import dataclass

from isoloss.experiments.options import Options, option


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
