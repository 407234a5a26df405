"""Entry point of `python -m mflux_api`."""

from mflux_api.cli import run

if __name__ == "__main__":
    run()
