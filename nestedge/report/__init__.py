"""One self-contained HTML page about a build folder.

What stands on the page is gathered here, as text and as positions; report.html.jinja only lays it
out, and escapes all of it.
"""

from nestedge.report.page import write_report

__all__ = ["write_report"]
