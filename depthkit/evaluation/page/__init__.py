"""Pages that open without a network: scores, comparisons and runs, with maps drawn under a colour bar in their unit.

``html.write_page`` fills a template of ``templates``; a page has its final name only when it is whole. To add a page, add a
template that extends ``base.html`` and a module that gathers what it shows.
"""

from depthkit.evaluation.page.colours import ColourScale
from depthkit.evaluation.page.maps import Maps, MapsFile
from depthkit.evaluation.page.run import run_page

__all__ = ["ColourScale", "Maps", "MapsFile", "run_page"]
