"""What a surface has at each point besides loss and accuracy: from settings to measures."""

from __future__ import annotations

from collections.abc import Callable

from isoloss.experiments.options import OptionError
from isoloss.experiments.settings import SurfaceSettings
from isoloss.hessian.extremes import ExtremeEigenvalues
from isoloss.landscape.columns import ColumnError, GradientNorm, LossAndAccuracy, Measure
from isoloss.landscape.objective import Metric
from isoloss.plugins import describe_plugin, load_plugin

MEASURES: dict[str, Callable[[SurfaceSettings], Measure]] = {
    "grad_norm": lambda settings: GradientNorm(),
    "eigenvalues": lambda settings: ExtremeEigenvalues(seed=settings.seed),
}


def check_columns(settings: SurfaceSettings) -> None:
    """Refuse columns that do not exist, or come twice.

    Raises:
        OptionError: Naming those there are.
    """
    for option, given, known in (
        ("also", settings.also, MEASURES),
        ("metric", settings.metric, None),
    ):
        for index, name in enumerate(given):
            if known is not None and name not in known:
                raise OptionError(option, f"expected one of {', '.join(known)}, got {name!r}")
            if name in given[:index]:
                raise OptionError(option, f"expected each once, got {name} twice")


def measures_of(settings: SurfaceSettings) -> list[Measure]:
    """Return what is computed at each point.

    Raises:
        OptionError: For columns that do not exist, or metrics of one name.
        PluginError: For a metric that cannot be loaded.
    """
    check_columns(settings)
    metrics: dict[str, Metric] = {}
    about = {}
    for spec in settings.metric:
        name = spec.rpartition(":")[2].rpartition(".")[2]
        if name in metrics:
            raise OptionError("metric", f"expected metrics of different names, got {name} twice")
        metrics[name] = load_plugin(spec).function
        about[name] = describe_plugin(spec, {})
    try:
        first = LossAndAccuracy(metrics, about)
    except ColumnError as error:
        raise OptionError("metric", str(error)) from error
    return [first, *(make(settings) for name, make in MEASURES.items() if name in settings.also)]
