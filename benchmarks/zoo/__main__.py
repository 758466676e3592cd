"""`python -m benchmarks.zoo`: see `command`."""

import sys

from benchmarks.zoo.command import main

sys.exit(main(sys.argv[1:]))
