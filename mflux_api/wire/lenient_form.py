"""Request bodies in which what is absent may be written in several ways."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class LenientForm(BaseModel):
    """A form in which null, an empty text and a missing field mean the same.

    Clients of the APIs that are imitated send all three: optional fields of generated clients, forms of web pages. A
    required field is left as it is, for its own error. `ABSENT`: the values that count as missing. `KEPT`: fields that
    are left as they are, too.
    """

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, protected_namespaces=())

    ABSENT: ClassVar[tuple[object, ...]] = (None, "")
    KEPT: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _drop_absent(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        kept = cls.KEPT.union(name for name, field in cls.model_fields.items() if field.is_required())
        return {name: value for name, value in content.items() if name in kept or value not in cls.ABSENT}
