"""`python -m nestedge`: the command line where the script is not on the path."""

from nestedge.cli import main

if __name__ == "__main__":
    main(prog_name="nestedge")
