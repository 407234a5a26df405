"""Run the server with short waits between the attempts to deliver a webhook."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from mflux_api.cli import main
from mflux_api.jobs import webhooks

if __name__ == "__main__":
    webhooks.BACKOFF = (1.0, 1.0, 2.0, 4.0, 8.0)
    sys.exit(main(["serve", *sys.argv[1:]]))
