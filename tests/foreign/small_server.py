"""The server, with the fixed sizes of two documents painted at 64 pixels a side: a megapixel takes a CPU a minute."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from mflux_api.cli import main
from mflux_api.dialects import edge, flux2_web

if __name__ == "__main__":
    edge.RATIOS = {"1:1": (64, 64), "16:9": (112, 64), "9:16": (64, 112), "4:3": (96, 64), "3:4": (64, 96)}
    flux2_web.SIDES = {"square": (64, 64), "portrait": (64, 112), "landscape": (112, 64)}
    sys.exit(main(["serve", *sys.argv[1:]]))
