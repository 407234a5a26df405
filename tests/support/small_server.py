"""Run the server with the fixed sizes of two documents at SIDE (64) pixels: a megapixel takes a CPU a minute."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from mflux_api.cli import main
from mflux_api.dialects import edge, flux2_web

SHORT = int(os.environ.get("SIDE", "64"))
LONG, LONGER = SHORT * 3 // 2, SHORT * 7 // 4

if __name__ == "__main__":
    edge.RATIOS = {
        "1:1": (SHORT, SHORT),
        "16:9": (LONGER, SHORT),
        "9:16": (SHORT, LONGER),
        "4:3": (LONG, SHORT),
        "3:4": (SHORT, LONG),
    }
    flux2_web.SIDES = {"square": (SHORT, SHORT), "portrait": (SHORT, LONGER), "landscape": (LONGER, SHORT)}
    sys.exit(main(["serve", *sys.argv[1:]]))
