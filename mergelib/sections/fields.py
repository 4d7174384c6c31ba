"""What all sections of a search file share: frozen models, and names out of a registry."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from mergelib.errors import unknown


class Section(BaseModel):
    """A mapping of a search file: its keys and no others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The schema as the form in Prefect's UI understands it.

        The form draws `anyOf` as tabs, but `oneOf` as a box for JSON; a `const` it locks, and a
        list of one value it shows as a choice.
        """
        document = handler(schema)
        for field in handler.resolve_ref_schema(document).get("properties", {}).values():
            if "oneOf" in field:
                field["anyOf"] = field.pop("oneOf")
            for choice in field.get("anyOf", []):
                if "const" in choice:
                    choice["enum"] = [choice.pop("const")]
        return document


class OneOf:
    """A string that must be a key of a registry; the form in Prefect's UI lists the keys."""

    def __init__(self, kind: str, registry: Callable[[], Iterable[str]]) -> None:
        """Name what the keys are, and where they are listed."""
        self._kind, self._registry = kind, registry

    def _check(self, value: str) -> str:
        if value not in self._registry():
            raise ValueError(unknown(self._kind, value, self._registry()))
        return value

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "enum": sorted(self._registry())}


AutoOrCount = Literal["auto"] | Annotated[int, Field(ge=1)]
