"""`python -m mflux_api`."""

import sys

from mflux_api.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
