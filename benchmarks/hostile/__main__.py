"""`python -m benchmarks.hostile`."""

from benchmarks.hostile.command import main

if __name__ == "__main__":
    main()
