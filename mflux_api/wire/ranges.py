"""Check numbers where they are used. A field without effect in a request may have any value of its type."""

from mflux_api.errors import InvalidRequest


def check_range(field: str, value: float, least: float, most: float) -> None:
    """Raise InvalidRequest unless `least` <= value <= `most`."""
    if not least <= value <= most:
        raise InvalidRequest(f"{field} must be from {least:g} to {most:g}, not {value:g}.", field=field)


def check_factor(field: str, value: float, most: float) -> None:
    """Raise InvalidRequest unless 0 < value <= `most`."""
    if not 0 < value <= most:
        raise InvalidRequest(f"{field} must be above 0 and at most {most:g}, not {value:g}.", field=field)
