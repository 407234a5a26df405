"""The page's files, read as text: requirements of browsers that no other test checks."""

import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

STATIC = ROOT / "mflux_api" / "web" / "static"
PAGES = sorted(STATIC.rglob("*.html"))
SCRIPTS = sorted((STATIC / "studio").glob("*.js"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_page_names_an_icon(page: Path) -> None:
    assert '<link rel="icon"' in page.read_text(encoding="utf-8")


def test_every_option_has_a_value() -> None:
    options = [tag for script in SCRIPTS for tag in re.findall(r"<option\b[^>]*", script.read_text(encoding="utf-8"))]
    assert options
    assert [tag for tag in options if "value=" not in tag] == []


def test_the_form_leaves_judging_to_the_server() -> None:
    forms = re.findall(r"<form\b[^>]*", (STATIC / "studio" / "paint.js").read_text(encoding="utf-8"))
    assert forms
    assert [form for form in forms if "noValidate" not in form] == []
