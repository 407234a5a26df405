"""The documents' JavaScript under the real node, with nothing changed but address, key and size."""

import re
from pathlib import Path

import pytest
from PIL import Image

from tests.foreign.documents import COMET_SIZE, comet, edge, run, text
from tests.server.live import Live

pytestmark = [pytest.mark.system, pytest.mark.node]


def test_comets_javascript_waits_for_its_picture(guarded: Live, tmp_path: Path) -> None:
    found = run("comet.js", text("cometapi.js", comet(guarded), *COMET_SIZE), tmp_path)
    assert re.search(rf"Image ready: {guarded.url}/files/\w+/0\.jpeg\?", found)


def test_the_edge_workers_javascript_writes_a_picture_and_its_cost(small: Live, tmp_path: Path) -> None:
    found = run("edge.js", text("edge_node.js", edge(small)), tmp_path)
    assert re.search(r"Cost: 0\.0\d\d\d บาท\nSize: 112×64", found)
    with Image.open(tmp_path / "generated.png") as image:
        assert image.size == (112, 64)
