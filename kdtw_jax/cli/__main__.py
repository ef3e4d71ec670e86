"""`python -m kdtw_jax.cli`, where the command `kdtw` is not on the path."""

import sys

from kdtw_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
