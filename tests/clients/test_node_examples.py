"""The documents' JavaScript examples under Node.js, with only address, key and size changed."""

import re
from pathlib import Path

import pytest
from PIL import Image

from tests.support.documents import COMET_SIZE, comet_replacements, edge_replacements, read_example, run_example
from tests.support.live_server import LiveServer

pytestmark = [pytest.mark.system, pytest.mark.node]


def test_comets_javascript_waits_for_its_picture(guarded: LiveServer, tmp_path: Path) -> None:
    found = run_example("comet.js", read_example("cometapi.js", comet_replacements(guarded), *COMET_SIZE), tmp_path)
    assert re.search(rf"Image ready: {guarded.url}/files/\w+/0\.jpeg\?", found)


def test_the_edge_workers_javascript_writes_a_picture_and_its_cost(small: LiveServer, tmp_path: Path) -> None:
    found = run_example("edge.js", read_example("edge_node.js", edge_replacements(small)), tmp_path)
    assert re.search(r"Cost: 0\.0\d\d\d บาท\nSize: 112×64", found)
    with Image.open(tmp_path / "generated.png") as image:
        assert image.size == (112, 64)
