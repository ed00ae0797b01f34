"""`flask apply` and `flask export`: the whole store as one YAML file.

    virtual_keys:
      openai: {provider: openai, api_key: "${OPENAI_API_KEY}"}
    configs:
      main: {virtual_key: openai}
    keys:
      nightly-job: {config: main, limits: {requests_per_minute: 60}}
    aliases:
      text-davinci-003: {virtual_key: openai, model: gpt-4o-mini}

`${NAME}` stands for an environment variable, `file:PATH` for the text of a file.
Applying computes the differences to the store first, so that nothing is changed where
a part of the file is wrong.
"""

import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import click
import yaml
from flask.cli import with_appcontext

from ..api.config.parsing import validate_config
from ..core.limits import Limits
from ..core.permissions import RESOURCES, Alias, GatewayKey, VirtualKey
from ..store import serialization
from ..store.repository import Repository
from ..store.secret_extraction import secret_paths
from . import inputs
from .virtual_keys import check_virtual_key

Document = dict[str, Any]

_KINDS = ("virtual_keys", "configs", "keys", "aliases")

# The fields of a virtual key itself; any other one is a setting of its provider, which
# `check_virtual_key` knows.
_VIRTUAL_KEY_FIELDS = ("provider", "custom_host", "model", "params", "disabled")
_KEY_FIELDS = ("config", "allowed", "aliases", "limits", "expires", "disabled")

_REFERENCE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class StoreChange:
    """One difference to the store: *sign* is + (added), ~ (changed) or - (deleted).

    *apply* makes the change. With *shows_key* its result is a new gateway key, which is
    shown only this once.
    """

    sign: str
    what: str
    apply: Callable[[], object]
    shows_key: bool = False


@click.command()
@click.argument("file")
@click.option(
    "--dry-run", is_flag=True, help="Say what would change, and change it not."
)
@click.option("--prune", is_flag=True, help="Delete what the file does not name.")
@with_appcontext
@inputs.report_errors
def apply(file: str, dry_run: bool, prune: bool) -> None:
    """Make the store what FILE says (YAML, - for standard input).

    Once applied, to apply it again changes nothing. New gateway keys are printed.
    """
    store = inputs.store()
    document = load(inputs.read(file))
    # A list, so that all of the file is checked before the first change is made. Each
    # change is a transaction of its own; after a failure, the command can be repeated.
    changes = list(differences(store, document))
    if prune:
        changes += removals(store, document)
    for change in changes:
        click.echo(f"{change.sign} {change.what}")
        result = None if dry_run else change.apply()
        if change.shows_key and result:
            click.echo(f"  {result}")
    if not changes:
        click.echo("nothing to change")


# The file


def load(text: str) -> Document:
    """The file with all references resolved. Raises ValueError."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise ValueError(f"no YAML: {e}") from e
    parts = _mapping("the file", document, _KINDS)
    return {kind: _resolve(_mapping(kind, parts.get(kind))) for kind in _KINDS}


def _mapping(what: str, value: Any, names: Collection[str] | None = None) -> Document:
    """*value*, which has to be a mapping with no other keys than *names*.

    None, which YAML makes of a name without a value, is an empty one.

    No error quotes a value: it may be a secret.
    """
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{what}: expected names with values")
    for name in value or ():
        if names and name not in names:
            raise ValueError(f"{what} has no {name!r}; it has {', '.join(names)}")
    return value or {}


def _resolve(value: Any) -> Any:
    """*value* with its references to variables and files resolved."""
    if isinstance(value, dict):
        return {key: _resolve(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_resolve(each) for each in value]
    if not isinstance(value, str):
        return value
    # After the YAML was parsed: a secret may have characters that mean something in it.
    if value.startswith("file:"):
        return Path(value.removeprefix("file:")).read_text().strip()

    def variable(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ValueError(f"the variable {match[1]} is not set")
        return os.environ[match[1]]

    return _REFERENCE.sub(variable, value)


def parse_virtual_key(id: str, value: Any) -> VirtualKey:
    what = f"virtual key {id}"
    document = _require("provider", what, _mapping(what, value))
    own = {k: v for k, v in document.items() if k in _VIRTUAL_KEY_FIELDS}
    own["limits"] = _parse_limits(what, document)
    settings = {k: v for k, v in document.items() if k not in own}
    return check_virtual_key(VirtualKey(id, settings=settings, **own))


def parse_gateway_key(name: str, value: Any) -> GatewayKey:
    what = f"key {name}"
    document = _mapping(what, value, _KEY_FIELDS)
    allowed = _mapping(f"{what}: allowed", document.get("allowed"), RESOURCES)
    for resource, names in allowed.items():
        # A single text would count as a list of its characters.
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise ValueError(f"{what}: allowed {resource} must be a list of names")
    aliases = _mapping(f"{what}: aliases", document.get("aliases"))
    # Unix seconds, as `flask export` writes them; or 30d; or a date, which YAML parses
    # and `str` turns back into 2027-01-31.
    expires = document.get("expires")
    if not isinstance(expires, int):
        expires = inputs.expiry(expires and str(expires))
    fields = document | {
        "allowed": allowed,
        "aliases": {model: parse_alias(model, each) for model, each in aliases.items()},
        "limits": _parse_limits(what, document),
        "expires": expires,
    }
    return GatewayKey(name, **fields)


def parse_alias(model: str, value: Any) -> Alias:
    what, names = f"alias {model}", [field.name for field in fields(Alias)]
    document = _require("model", what, _mapping(what, value, names))
    if day := document.get("shutdown_date"):
        # YAML makes a date of what looks like one, and a text of all else.
        document = document | {"shutdown_date": str(date.fromisoformat(str(day)))}
    return Alias(**document)


def _require(name: str, what: str, document: Document) -> Document:
    if not document.get(name):
        raise ValueError(f"{what} lacks its {name}")
    return document


def _parse_limits(what: str, document: Document) -> Limits:
    try:
        return Limits.of(_mapping("limits", document.get("limits")))
    except ValueError as e:
        raise ValueError(f"{what}: {e}") from e


# Differences to the store


def differences(store: Repository, document: Document) -> Iterator[StoreChange]:
    """What has to be added or changed. Raises ValueError and InvalidRoute."""
    contents = store.contents()
    for id, value in document["virtual_keys"].items():
        key, old = parse_virtual_key(id, value), contents.virtual_keys.get(id)
        # Settings are compared decrypted: Fernet's ciphertext differs each time. A key
        # that this version cannot parse is replaced in any case.
        same = (
            old is not None
            and not old.problem
            and serialization.document(old) == serialization.document(key)
            and store.settings(contents.sealed[id]) == key.settings
        )
        if not same:
            put = partial(store.put_virtual_key, key)
            yield StoreChange("~" if old else "+", f"virtual key {id}", put)
    for id, value in document["configs"].items():
        config, stored = validate_config(
            value, inputs.named_hosts()
        ), contents.configs.get(id)
        if paths := secret_paths(config):
            raise ValueError(f"config {id} holds a secret, at {paths[0]}")
        # As sorted JSON, in which the order of keys makes no difference.
        if stored is None or serialization.dumps(stored) != serialization.dumps(config):
            put_config = partial(store.put_config, id, config)
            sign = "+" if stored is None else "~"
            yield StoreChange(sign, f"config {id}", put_config)
    keys = {key.name: key for key in contents.keys.values()}
    for name, value in document["keys"].items():
        yield from _gateway_key_change(
            store, parse_gateway_key(name, value), keys.get(name)
        )
    for model, value in document["aliases"].items():
        alias, old_alias = parse_alias(model, value), contents.aliases.get(model)
        if alias != old_alias:
            put = partial(store.put_alias, model, alias)
            yield StoreChange("~" if old_alias else "+", f"alias {model}", put)


def _gateway_key_change(
    store: Repository, key: GatewayKey, old: GatewayKey | None
) -> Iterator[StoreChange]:
    """The change of one gateway key, if there is any.

    Hints are not compared: they are the end of the key itself, which no file has.
    """
    what = f"key {key.name}"
    if old is None:
        yield StoreChange("+", what, partial(store.create_key, key), shows_key=True)
    elif replace(old, hint="") != key:
        update = partial(store.update_key, replace(key, hint=old.hint))
        yield StoreChange("~", what, update)


def removals(store: Repository, document: Document) -> Iterator[StoreChange]:
    """What has to be deleted, as *document* does not name it."""
    contents = store.contents()
    # In this order no record that is left names one that is gone, should a later
    # deletion fail.
    names = [key.name for key in contents.keys.values()]
    kinds: list[tuple[str, Collection[str], str, Callable[[str], None]]] = [
        ("aliases", contents.aliases, "alias", store.delete_alias),
        ("keys", names, "key", store.delete_key),
        ("configs", contents.configs, "config", store.delete_config),
        (
            "virtual_keys",
            contents.virtual_keys,
            "virtual key",
            store.delete_virtual_key,
        ),
    ]
    for kind, stored, word, delete in kinds:
        for name in sorted(set(stored) - set(document[kind])):
            yield StoreChange("-", f"{word} {name}", partial(delete, name))


# Export


@click.command()
@click.argument("file", required=False)
@with_appcontext
@inputs.report_errors
def export(file: str | None) -> None:
    """Write all that is stored, as `flask apply` reads it, without any secret.

    Secrets become `${NAME}`; gateway keys themselves are not kept, so that to apply
    the file elsewhere makes new ones.
    """
    # `settings` decrypts, but only the names in its result are written.
    store = inputs.store()
    contents = store.contents()
    virtual_keys = {
        id: _fields(key)
        | {
            name: f"${{{_variable_name(id, name)}}}"
            for name in store.settings(contents.sealed[id])
        }
        for id, key in contents.virtual_keys.items()
    }
    keys = sorted(contents.keys.values(), key=lambda key: key.name)
    document = {
        "virtual_keys": virtual_keys,
        "configs": {id: dict(each) for id, each in contents.configs.items()},
        "keys": {
            key.name: _fields(key) | ({"disabled": True} if key.disabled else {})
            for key in keys
        },
        "aliases": {model: _fields(alias) for model, alias in contents.aliases.items()},
    }
    text = yaml.safe_dump(document, sort_keys=True)
    if file:
        Path(file).write_text(text)
    else:
        click.echo(text, nl=False)


def _fields(record: VirtualKey | GatewayKey | Alias) -> Document:
    # JSON is valid YAML. `disabled: false` is the default, and left out.
    document: Document = yaml.safe_load(serialization.document(record))
    return {name: value for name, value in document.items() if value is not False}


def _variable_name(id: str, name: str) -> str:
    return re.sub(r"\W", "_", f"{id}_{name}").upper()
