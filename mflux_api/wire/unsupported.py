"""Fields that an API defines and this server cannot honour: refused, unless their value changes nothing."""

from collections.abc import Mapping

from mflux_api.errors import InvalidRequest


def refuse_unsupported(fields: Mapping[str, object], unsupported: Mapping[str, object]) -> None:
    """Raise InvalidRequest for the first field with an effect.

    `unsupported`: the value of each field that changes nothing. Null and empty values never do.
    """
    for name, neutral in unsupported.items():
        value = fields.get(name)
        if value not in (None, "", [], False) and value != neutral:
            raise InvalidRequest(f"{name} is not supported here: leave it out.", field=name)
