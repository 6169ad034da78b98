"""`python -m mlae_lab`: the command line."""

import sys

from mlae_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
