"""`flask configs`: routes that callers name by an id."""

import json
from typing import Any

import click
import yaml
from flask.cli import AppGroup

from ..api.config.parsing import validate_config
from ..store.repository import RecordNotFound
from ..store.secret_extraction import extract_secrets, secret_paths
from . import inputs, output
from .names import ID

configs = AppGroup("configs", help="Routes that callers name by an id.")


@configs.command()
@click.argument("id", type=ID)
@click.argument("file")
@click.option(
    "--move-secrets", is_flag=True, help="Put secrets in it into virtual keys."
)
@inputs.report_errors
def create(id: str, file: str, move_secrets: bool) -> None:
    """Store the config in FILE (JSON or YAML, - for standard input) as ID.

    Of an ID that is there already, it becomes the newest version.
    """
    # YAML's parser reads JSON, too.
    text = inputs.read(file)
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise click.ClickException(f"neither JSON nor YAML: {e}") from e
    document = validate_config(document, inputs.named_hosts())
    store = inputs.store()
    if (paths := secret_paths(document)) and not move_secrets:
        raise click.ClickException(
            f"it holds secrets, at {', '.join(paths)}: name a virtual key there, or "
            "let --move-secrets make one"
        )
    # Keys first: a config must not name one that is not there yet.
    document, new_keys = extract_secrets(document, id)
    for key in new_keys:
        store.put_virtual_key(key)
        click.echo(f"virtual key {key.id} has its secrets")
    click.echo(f"config {id}, version {store.put_config(id, document)}")


@configs.command("list")
@output.json_option
@inputs.report_errors
def list_(as_json: bool) -> None:
    """All configs."""
    contents = inputs.store().contents()
    rows = [
        {
            "id": id,
            "mode": str((document.get("strategy") or {}).get("mode", "single")),
            # A config without targets is its own, single one.
            "targets": len(document.get("targets", [1])),
        }
        for id, document in sorted(contents.configs.items())
    ]
    output.show(rows, ("id", "mode", "targets"), as_json)


@configs.command()
@click.argument("id")
@click.option("--version", type=int, help="An older version.")
@inputs.report_errors
def show(id: str, version: int | None) -> None:
    """The JSON of a config."""
    versions = inputs.store().versions(id)
    number = versions[0].number if version is None else version
    click.echo(json.dumps(_document(versions, number), indent=2))


def _document(versions: Any, number: int) -> Any:
    for version in versions:
        if version.number == number:
            return version.document
    raise RecordNotFound(f"version {number}")


@configs.command()
@click.argument("id")
@output.json_option
@inputs.report_errors
def history(id: str, as_json: bool) -> None:
    """The versions of a config, newest first."""
    rows = [
        {"version": each.number, "created": output.day(each.created)}
        for each in inputs.store().versions(id)
    ]
    output.show(rows, ("version", "created"), as_json)


@configs.command()
@click.argument("id")
@click.argument("version", type=int)
@inputs.report_errors
def rollback(id: str, version: int) -> None:
    """Make an older version the newest again."""
    # Validated again: the rules, or the trusted hosts, may have changed since. The old
    # version is not touched, but stored once more with a new number.
    store = inputs.store()
    document = validate_config(
        _document(store.versions(id), version), inputs.named_hosts()
    )
    click.echo(f"config {id}, version {store.put_config(id, document)}")


@configs.command()
@click.argument("id")
@inputs.report_errors
def delete(id: str) -> None:
    """Delete a config, and all its versions."""
    inputs.store().delete_config(id)
