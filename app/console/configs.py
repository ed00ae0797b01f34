"""The stored configs as trees, and the form for a dry run."""

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from ..api.config.nodes import ConfigNode
from ..errors import NotFound
from .config_tree import TreeNode, config_tree
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


def register(routes: Blueprint, services: ConsoleServices) -> None:
    """Add the list, the page of one config, and the form for a dry run to *routes*."""

    @routes.get("/configs")
    def configs() -> ResponseReturnValue:
        documents = services.store.configs
        trees = {
            id: config_tree(ConfigNode.of(dict(document), strict=True))
            for id, document in documents.items()
        }
        return render_template("console/configs.html", trees=trees)

    @routes.get("/configs/<id>")
    def config(id: str) -> ResponseReturnValue:
        document = services.store.config(id)
        if document is None:
            raise NotFound(f"There is no config {id[:80]!r}.")
        tree = config_tree(ConfigNode.of(dict(document), strict=True))
        return dry_run_page(DryRunRequest(config=id, model=_MODEL), tree)

    @routes.get("/try")
    def dry_run_form() -> ResponseReturnValue:
        return dry_run_page(DryRunRequest(config=_EXAMPLE, model=_MODEL))

    @routes.post("/try", endpoint="dry_run")
    def run() -> ResponseReturnValue:
        fields = {name: request.form.get(name, "") for name in DryRunRequest.__slots__}
        dry_request = DryRunRequest(**fields)
        result = dry_run(dry_request, services)
        return dry_run_page(dry_request, result.tree, result)

    def dry_run_page(
        dry_request: DryRunRequest,
        tree: TreeNode | None = None,
        result: DryRunResult | None = None,
    ) -> ResponseReturnValue:
        # A refused request is a result of the dry run, with the status that the request
        # itself would get.
        page = render_template(
            "console/try.html", dry_request=dry_request, tree=tree, result=result
        )
        return page, 400 if result and result.problems else 200
