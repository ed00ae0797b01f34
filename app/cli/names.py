"""The type of arguments that name a record of the store."""

from typing import Any

import click

from ..api.routing.routing_headers import is_id


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
