"""`flask configs`: routes that callers name by an id."""

import json
from typing import Any

import click
import yaml
from flask.cli import AppGroup

from ..api.config.parsing import validate_config
from ..store.repository import RecordNotFound
from ..store.secret_extraction import extracted, secrets_in
from . import inputs, output
from .names import ID

configs = AppGroup("configs", help="Routes that callers name by an id.")


@configs.command()
@click.argument("id", type=ID)
@click.argument("file")
@click.option(
    "--move-secrets", is_flag=True, help="Put secrets in it into virtual keys."
)
@inputs.friendly
def create(id: str, file: str, move_secrets: bool) -> None:
    """Store the config in FILE (JSON or YAML, - for standard input) as ID.

    Of an ID that is there already, it becomes the newest version.
    """
    document = config_in(inputs.read(file))
    store = inputs.store()
    if secrets_in(document) and not move_secrets:
        places = ", ".join(secrets_in(document))
        raise click.ClickException(
            f"it holds secrets, at {places}: name a virtual key there, or let "
            "--move-secrets make one"
        )
    document, moved = extracted(document, id)
    for key in moved:
        store.put_virtual_key(key)
        click.echo(f"virtual key {key.id} has its secrets")
    click.echo(f"config {id}, version {store.put_config(id, document)}")


def config_in(text: str) -> dict[str, Any]:
    """The config in *text*, checked as that of a header is. Raises InvalidRoute."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise click.ClickException(f"neither JSON nor YAML: {e}") from e
    return validate_config(document, inputs.named_hosts())


@configs.command("list")
@output.as_json
@inputs.friendly
def list_(as_json: bool) -> None:
    """All configs."""
    contents = inputs.store().contents()
    rows = [
        {
            "id": id,
            "mode": _mode(document),
            "targets": len(document.get("targets", [1])),
        }
        for id, document in sorted(contents.configs.items())
    ]
    output.show(rows, ("id", "mode", "targets"), as_json)


def _mode(document: Any) -> str:
    return str((document.get("strategy") or {}).get("mode", "single"))


@configs.command()
@click.argument("id")
@click.option("--version", type=int, help="An older version.")
@inputs.friendly
def show(id: str, version: int | None) -> None:
    """The JSON of a config."""
    versions = inputs.store().versions(id)
    wanted = versions[0].number if version is None else version
    click.echo(json.dumps(_document(versions, wanted), indent=2))


def _document(versions: Any, number: int) -> Any:
    found = (each.document for each in versions if each.number == number)
    document = next(found, None)
    if document is None:
        raise RecordNotFound(f"version {number}")
    return document


@configs.command()
@click.argument("id")
@output.as_json
@inputs.friendly
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
@inputs.friendly
def rollback(id: str, version: int) -> None:
    """Make an older version the newest again."""
    store = inputs.store()
    document = validate_config(
        _document(store.versions(id), version), inputs.named_hosts()
    )
    click.echo(f"config {id}, version {store.put_config(id, document)}")


@configs.command()
@click.argument("id")
@inputs.friendly
def delete(id: str) -> None:
    """Delete a config, and all its versions."""
    inputs.store().delete_config(id)
