"""Base64 as clients send it."""

import base64
from urllib.parse import quote

import pytest

from mflux_api.web.pictures import decode_base64, is_url

DATA = bytes(range(256)) * 2 + b"\xfb\xff\xfe" * 7 + b"?"
PLAIN = base64.b64encode(DATA).decode()
FORMS = {
    "plain": PLAIN,
    "without padding": PLAIN.rstrip("="),
    "with line breaks": base64.encodebytes(DATA).decode(),
    "with line breaks of Windows": base64.encodebytes(DATA).decode().replace("\n", "\r\n"),
    "in the URL alphabet": base64.urlsafe_b64encode(DATA).decode(),
    "in the URL alphabet without padding": base64.urlsafe_b64encode(DATA).decode().rstrip("="),
    "between blanks": f"  {PLAIN}\n",
    "a data URL": f"data:image/png;base64,{PLAIN}",
    "a data URL with parameters": f"data:image/png;name=a.png;base64,{PLAIN}",
    "a data URL in capitals": f" DATA:image/PNG;BASE64,{PLAIN}",
    "a data URL with escapes": f"data:image/png;base64,{quote(PLAIN, safe='')}",
    "a data URL without padding": f"data:image/png;base64,{PLAIN.rstrip('=')}",
}


@pytest.mark.parametrize("form", FORMS)
def test_base64_is_decoded_in_every_form(form: str) -> None:
    assert decode_base64(FORMS[form]) == DATA


@pytest.mark.parametrize("text", ["a", "äöü", "data:image/png;base64,a"])
def test_broken_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_base64(text)


@pytest.mark.parametrize("text", ["http://a/b", "HTTPS://a/b", "  https://a/b"])
def test_addresses_are_known_in_any_case(text: str) -> None:
    assert is_url(text)
