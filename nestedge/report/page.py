"""The page as a file."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from nestedge.documents import write_whole
from nestedge.report import chart
from nestedge.report.data import Report, report_data
from nestedge.report.records import read_records
from nestedge.report.wording import UNMEASURED
from nestedge.selection import Budget

_TEMPLATE = "report.html.jinja"


def write_report(
    folder: Path, output: Path, *, budget: Budget | None = None, root: Path = Path("/")
) -> None:
    """Writes the page about a build folder: one file that needs no other, and no network.

    The same folder gives the same page. Of latencies it shows those that were measured on the
    machine that this runs on, for the devices that this machine is, as `nestedge pick` does.

    Args:
        folder: of a build.
        output: the file to write.
        budget: to pick an artifact for on each device.
        root: the folder in which the files of this machine's system lie.

    Raises:
        UsageError: the folder has no build.json.
        FormatError: one of its documents is not what it says.
        IntegrityError: an artifact is gone, or a file is not the one that was built.
        OSError: the page cannot be written; an older one stays.
    """
    records = read_records(folder, root=root)
    write_whole(output, render(report_data(records, budget=budget)).encode())


def render(report: Report) -> str:
    """The page, as HTML; whatever comes from the report is escaped."""
    environment = Environment(
        # By the name of a file alone, jinja2 would not know that this one is HTML.
        autoescape=True,
        loader=PackageLoader("nestedge.report", ""),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    template = environment.get_template(_TEMPLATE)
    return template.render(report=report, chart=chart, unmeasured=UNMEASURED)
