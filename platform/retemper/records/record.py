"""The files that stages leave for each other: each is one model here, read and written whole.

A record's fields are the file's names. A file that another version of the program wrote in another form is not
guessed at: reading it is an error that names the stage to run again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from retemper.core.errors import RetemperError
from retemper.core.files import atomic_write, read_json


class Part(BaseModel):
    """A named part of a record: no unknown fields, no conversions but from whole numbers to numbers, no infinities."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class OtherFormError(RetemperError):
    """A file of another version of the program: its stage is to run again."""


class Record(Part):
    """A file under ``runs/``. A subclass that changes its fields raises `FORM` by one."""

    FORM: ClassVar[int] = 1
    STAGE: ClassVar[str]  # what makes the file, as `dvc repro` calls it

    form: int = 0  # of the file: the class's own, or it is not read

    @model_validator(mode="after")
    def _of_today(self) -> Self:
        self.form = self.form or self.FORM
        return self

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a file.

        Raises
        ------
        OtherFormError
            Another version of the program wrote it.
        RetemperError
            It is missing, is not JSON, or is not what its stage writes; the message names the field.
        """
        return cls.of(read_json(path), path)

    @classmethod
    def fix(cls) -> str:
        """How to get the file in today's form."""
        return f"dvc repro -f {cls.STAGE}"

    @classmethod
    def of(cls, content: Any, path: str | Path) -> Self:
        """The record of a file's `content`; `path` is for the error."""
        fix = cls.fix()
        if not isinstance(content, dict):
            raise RetemperError(f"{path} is no record.", expected="names and values", got=repr(content)[:80], fix=fix)
        if content.get("form") != cls.FORM:
            raise OtherFormError(
                f"{path} was made by another version of retemper.",
                expected=f"form {cls.FORM}",
                got=f"form {content['form']}" if "form" in content else "a file without a form",
                fix=fix,
            )
        try:
            return cls.model_validate_json(json.dumps(content))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = ".".join(map(str, first["loc"])) or "the file"
            raise RetemperError(f"{path} is broken: {name}: {first['msg']}.", fix=fix) from None

    def write(self, path: str | Path) -> None:
        """Write the file, whole or not at all; infinities and NaN are errors."""
        with atomic_write(os.fspath(path)) as temporary:
            temporary.write_text(json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False) + "\n")
