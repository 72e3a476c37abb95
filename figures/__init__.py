"""Everything that draws: from stored results and arrays to figures fit for a paper."""

from isoloss.figures.classes import classes_figure
from isoloss.figures.comparison import comparison_figure
from isoloss.figures.confusion import confusion_figure
from isoloss.figures.curve import curve_figure
from isoloss.figures.density import density_figure
from isoloss.figures.density_panels import density_panels
from isoloss.figures.layers import layers_figure
from isoloss.figures.quantities import (
    ComparisonGroup,
    ComparisonRow,
    comparison_table,
    group_table,
    single,
)
from isoloss.figures.roc import RocSeries, roc_figure
from isoloss.figures.samples import samples_figure
from isoloss.figures.scale import Scale, shared_scale
from isoloss.figures.style import FigureError, save_figure
from isoloss.figures.surface import KINDS, surface_figure
from isoloss.figures.table import formatted_table
from isoloss.figures.training import training_figure
from isoloss.figures.trials import Trial, trials_figure

__all__ = [
    "KINDS",
    "ComparisonGroup",
    "ComparisonRow",
    "FigureError",
    "RocSeries",
    "Scale",
    "Trial",
    "classes_figure",
    "comparison_figure",
    "comparison_table",
    "confusion_figure",
    "curve_figure",
    "density_figure",
    "density_panels",
    "formatted_table",
    "group_table",
    "layers_figure",
    "roc_figure",
    "samples_figure",
    "save_figure",
    "shared_scale",
    "single",
    "surface_figure",
    "training_figure",
    "trials_figure",
]
