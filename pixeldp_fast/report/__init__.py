"""What a run of certificates amounts to: curves, tables, plots and files."""

from pixeldp_fast.report.curve import Curve, certified_curve, curves_csv
from pixeldp_fast.report.files import load_named, write_comparison, write_report
from pixeldp_fast.report.limits import largest_radius, smallest_n
from pixeldp_fast.report.summary import Named, Summary, default_radii, summarise

__all__ = [
    "Curve",
    "Named",
    "Summary",
    "certified_curve",
    "curves_csv",
    "default_radii",
    "largest_radius",
    "load_named",
    "smallest_n",
    "summarise",
    "write_comparison",
    "write_report",
]
