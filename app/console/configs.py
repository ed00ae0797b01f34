"""The stored configs as trees, and where a request would go: without calling anyone."""

from typing import Any

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from ..api.config.nodes import ConfigNode
from ..errors import NotFound
from .config_tree import tree
from .dry_run import DryRunRequest, DryRunResult, dry_run
from .services import ConsoleServices

_MODEL = "gpt-3.5-turbo-instruct"

_EXAMPLE = """{
  "strategy": {"mode": "fallback"},
  "targets": [
    {"provider": "openai", "override_params": {"model": "gpt-3.5-turbo-instruct"}},
    {"provider": "anthropic", "override_params": {"model": "claude-haiku-4-5"}}
  ]
}"""


def register(routes: Blueprint, parts: ConsoleServices) -> None:
    """The list, one config, and the form that asks where a request would go."""

    @routes.get("/configs")
    def configs() -> ResponseReturnValue:
        found = parts.directory.configs
        return render_template(
            "console/configs.html",
            trees={
                id: tree(ConfigNode.of(dict(found[id]), strict=True)) for id in found
            },
        )

    @routes.get("/configs/<id>")
    def config(id: str) -> ResponseReturnValue:
        found = parts.directory.config(id)
        if found is None:
            raise NotFound(f"There is no config {id[:80]!r}.")
        question = DryRunRequest(config=id, model=_MODEL)
        return _try(question, tree(ConfigNode.of(dict(found), strict=True)), None)

    @routes.get("/try")
    def blank() -> ResponseReturnValue:
        return _try(DryRunRequest(config=_EXAMPLE, model=_MODEL), None, None)

    @routes.post("/try")
    def tried() -> ResponseReturnValue:
        given = {name: request.form.get(name, "") for name in DryRunRequest.__slots__}
        question = DryRunRequest(**given)
        return _try(question, None, dry_run(question, parts))

    def _try(
        question: DryRunRequest, drawn: Any, verdict: DryRunResult | None
    ) -> ResponseReturnValue:
        page = render_template(
            "console/try.html",
            question=question,
            tree=verdict.tree if verdict else drawn,
            verdict=verdict,
            configs=sorted(parts.directory.configs),
        )
        return page, 400 if verdict and verdict.problems else 200
