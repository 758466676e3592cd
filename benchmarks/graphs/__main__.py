"""`python -m benchmarks.graphs`: see `command`."""

import sys

from benchmarks.graphs.command import main

sys.exit(main(sys.argv[1:]))
