"""Start the server: `python api_main.py` is `python -m mflux_api serve`. Other commands can be given as well."""

import sys

from mflux_api.cli import leave, main

if __name__ == "__main__":
    arguments = sys.argv[1:]
    is_command = bool(arguments) and not arguments[0].startswith("-")
    leave(main(arguments if is_command else ["serve", *arguments]))
