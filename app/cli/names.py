"""The click type of arguments that name a new record of the store.

Only new ones: a record of an older version may have any name, and can still be deleted.
"""

from typing import Any

import click

from ..core.permissions import is_id


class IdType(click.ParamType[str]):
    name = "id"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        if not is_id(value):
            self.fail(
                f"{value!r} is no id: expected a letter, then letters, digits, '-', "
                "'_' and '.', 80 at most",
                param,
                ctx,
            )
        return str(value)


ID = IdType()
