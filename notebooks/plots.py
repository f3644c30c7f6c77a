"""The look of the plots, shared by the notebooks."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import PercentFormatter

BLUE = "#3569a8"
RED = "#c8553d"
GREY = "#8a8f98"


def style() -> None:
    """Make the plots of this notebook look like those of the others."""
    plt.rcParams.update(
        {
            "axes.axisbelow": True,
            "axes.edgecolor": GREY,
            "axes.grid": True,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlelocation": "left",
            "axes.titlesize": "medium",
            "axes.titleweight": "bold",
            "figure.constrained_layout.use": True,
            "figure.dpi": 100,
            "grid.alpha": 0.25,
            "legend.frameon": False,
        }
    )


def percent(axis: Axis) -> None:
    """Write the numbers of an axis as percentages."""
    axis.set_major_formatter(PercentFormatter(1, decimals=0))


def reference(axes: Axes, value: float, text: str) -> None:
    """Draw a horizontal line to compare bars with."""
    axes.axhline(value, color=RED, linewidth=1)
    place = axes.get_yaxis_transform()
    axes.text(1.01, value, text, color=RED, fontsize="small", va="center", transform=place)
