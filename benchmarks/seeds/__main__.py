"""`python -m benchmarks.seeds`: see `command`."""

import sys

from benchmarks.seeds.command import main

sys.exit(main(sys.argv[1:]))
