"""`python -m benchmarks.converters`."""

import sys

from benchmarks.converters.command import main

sys.exit(main(sys.argv[1:]))
