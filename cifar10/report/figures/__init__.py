"""Arrays in, matplotlib Figures out, for paper and page; no pyplot, so they are drawn headless and share no state.

Fractions in (accuracy, recall, coverage), per cent out. width: in inches, `DOUBLE`, or `SINGLE` for a column or a
phone, where panels stand one below another. A group is a model with its seeds, a dict with "name"; its
place in the list gives colour and marker, or its own "index" where a list leaves groups out.
"""

from cifar10.report.figures.accuracy import accuracy_figure, data_efficiency_figure
from cifar10.report.figures.calibration import FEWEST, coverage_figure, reliability_figure
from cifar10.report.figures.classes import per_class_change_figure, per_class_figure
from cifar10.report.figures.clusters import clustered_confusion_figure
from cifar10.report.figures.confusion import confusion_difference_figure, confusion_image, confusion_matrix_figure
from cifar10.report.figures.corruption import corruption_figure
from cifar10.report.figures.cost import cost_figure, has_cost
from cifar10.report.figures.curves import learning_curves_figure
from cifar10.report.figures.files import save_figure, svg
from cifar10.report.figures.gallery import gallery_figure
from cifar10.report.figures.overview import overview_figure
from cifar10.report.figures.parallel import parallel_figure
from cifar10.report.figures.sizes import sizes_figure
from cifar10.report.figures.style import DOUBLE, SINGLE, group_colour, group_marker
from cifar10.report.figures.sweep import front_figure, importance_figure, job_curves_figure
from cifar10.report.figures.two_classes import two_classes_figure

__all__ = [
    "DOUBLE",
    "FEWEST",
    "SINGLE",
    "accuracy_figure",
    "clustered_confusion_figure",
    "confusion_difference_figure",
    "confusion_image",
    "confusion_matrix_figure",
    "corruption_figure",
    "cost_figure",
    "coverage_figure",
    "data_efficiency_figure",
    "front_figure",
    "gallery_figure",
    "group_colour",
    "group_marker",
    "has_cost",
    "importance_figure",
    "job_curves_figure",
    "learning_curves_figure",
    "overview_figure",
    "parallel_figure",
    "per_class_change_figure",
    "per_class_figure",
    "reliability_figure",
    "save_figure",
    "sizes_figure",
    "svg",
    "two_classes_figure",
]
