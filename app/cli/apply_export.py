"""`flask apply` and `flask export`: all that is stored, as one YAML file.

    virtual_keys:
      openai: {provider: openai, api_key: "${OPENAI_API_KEY}"}
    configs:
      main: {virtual_key: openai}
    keys:
      nightly-job: {config: main, limits: {requests_per_minute: 60}}
    aliases:
      text-davinci-003: {virtual_key: openai, model: gpt-4o-mini}

`${NAME}` stands for a variable of the environment, `file:PATH` for what a file holds.
"""

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
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
from ..store.secret_extraction import secrets_in
from . import inputs
from .virtual_keys import checked as checked_key

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DeclaredChange:
    """One thing to do: *sign* is +, ~ or -."""

    sign: str
    what: str
    do: Callable[[], Any]


@click.command()
@click.argument("file")
@click.option(
    "--dry-run", is_flag=True, help="Say what would change, and change it not."
)
@click.option("--prune", is_flag=True, help="Delete what the file does not name.")
@with_appcontext
@inputs.friendly
def apply(file: str, dry_run: bool, prune: bool) -> None:
    """Make the store what FILE says (YAML, - for standard input).

    Once applied, to apply it again changes nothing. New gateway keys are printed.
    """
    store = inputs.store()
    wanted = _loaded(inputs.read(file))
    changes = [*_changes(store, wanted), *(_pruned(store, wanted) if prune else ())]
    for change in changes:
        click.echo(f"{change.sign} {change.what}")
        shown = None if dry_run else change.do()
        if shown:
            click.echo(f"  {shown}")
    if not changes:
        click.echo("nothing to change")


_KINDS = ("virtual_keys", "configs", "keys", "aliases")


def _loaded(text: str) -> Document:
    """The file, its references resolved. Raises ValueError for what is strange."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise ValueError(f"no YAML: {e}") from e
    parts = _named("the file", document, _KINDS)
    return {kind: _resolved(_named(kind, parts.get(kind))) for kind in _KINDS}


def _named(what: str, given: Any, known: Collection[str] | None = None) -> Document:
    """The names and values that are *given*, if any. Raises ValueError.

    No value is ever told: it may be a secret.
    """
    if given is not None and not isinstance(given, dict):
        raise ValueError(f"{what}: expected names with values")
    strange = [name for name in given or () if known and name not in known]
    if strange:
        raise ValueError(
            f"{what} has no {strange[0]!r}; it has {', '.join(known or ())}"
        )
    return given or {}


def _with(name: str, what: str, given: Document) -> Document:
    if not given.get(name):
        raise ValueError(f"{what} lacks its {name}")
    return given


_REFERENCE = re.compile(r"\$\{(\w+)\}")


def _resolved(value: Any) -> Any:
    """*value* with its references to variables and files resolved."""
    if isinstance(value, dict):
        return {key: _resolved(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_resolved(each) for each in value]
    if not isinstance(value, str):
        return value
    if value.startswith("file:"):
        return Path(value.removeprefix("file:")).read_text().strip()
    return _REFERENCE.sub(_variable, value)


def _variable(found: re.Match[str]) -> str:
    if found[1] not in os.environ:
        raise ValueError(f"the variable {found[1]} is not set")
    return os.environ[found[1]]


# What has to change


def _changes(store: Repository, wanted: Document) -> Iterator[DeclaredChange]:
    for id, given in wanted["virtual_keys"].items():
        yield from _virtual_key(store, _key_of(id, given))
    for id, given in wanted["configs"].items():
        yield from _config(store, id, given)
    for name, given in wanted["keys"].items():
        yield from _gateway_key(store, _gateway_key_of(name, given))
    for model, given in wanted["aliases"].items():
        yield from _alias(store, model, _alias_of(model, given))


def _key_of(id: str, given: Any) -> VirtualKey:
    """A virtual key; what is no field of its own is a setting of its provider."""
    what = f"virtual key {id}"
    named = _with("provider", what, _named(what, given))
    own = {k: v for k, v in named.items() if k in _VIRTUAL_KEY_FIELDS}
    own |= {"limits": _limits(what, named)}
    settings = {k: v for k, v in named.items() if k not in own}
    return checked_key(VirtualKey(id, settings=settings, **own))


def _gateway_key_of(name: str, given: Any) -> GatewayKey:
    what = f"key {name}"
    named = _named(what, given, _KEY_FIELDS)
    aliases = _named(f"{what}: aliases", named.get("aliases"))
    made = {
        "allowed": _allowed(what, named),
        "aliases": {model: _alias_of(model, each) for model, each in aliases.items()},
        "limits": _limits(what, named),
        "expires": _expiry(named.get("expires")),
    }
    return GatewayKey(name, **named | made)


_VIRTUAL_KEY_FIELDS = ("provider", "custom_host", "model", "params", "disabled")
_KEY_FIELDS = ("config", "allowed", "aliases", "limits", "expires", "disabled")


def _limits(what: str, given: Document) -> Limits:
    try:
        return Limits.of(_named("limits", given.get("limits")))
    except ValueError as e:
        raise ValueError(f"{what}: {e}") from e


def _allowed(what: str, given: Document) -> Document:
    """The lists of what a key may use. A text is none, though it has characters."""
    allowed = _named(f"{what}: allowed", given.get("allowed"), RESOURCES)
    for resource, names in allowed.items():
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise ValueError(f"{what}: allowed {resource} must be a list of names")
    return allowed


def _alias_of(model: str, given: Any) -> Alias:
    what, known = f"alias {model}", [field.name for field in fields(Alias)]
    named = _with("model", what, _named(what, given, known))
    if day := named.get("shutdown_date"):
        # YAML knows dates; a text may be anything.
        named = named | {"shutdown_date": str(date.fromisoformat(str(day)))}
    return Alias(**named)


def _expiry(given: Any) -> int | None:
    return given if isinstance(given, int) else inputs.expiry(given and str(given))


def _virtual_key(store: Repository, key: VirtualKey) -> Iterator[DeclaredChange]:
    contents = store.contents()
    old = contents.virtual_keys.get(key.id)
    sound = old if old and not old.problem else None
    same = sound and serialization.document(sound) == serialization.document(key)
    if not (same and store.settings(contents.sealed[key.id]) == key.settings):
        sign = "~" if old else "+"
        yield DeclaredChange(
            sign, f"virtual key {key.id}", lambda: store.put_virtual_key(key)
        )


def _config(store: Repository, id: str, given: Document) -> Iterator[DeclaredChange]:
    document = validate_config(given, inputs.named_hosts())
    if places := secrets_in(document):
        raise ValueError(f"config {id} holds a secret, at {places[0]}")
    old = store.contents().configs.get(id)
    if old is None or serialization.dumps(old) != serialization.dumps(document):
        sign = "+" if old is None else "~"

        def put() -> None:
            store.put_config(id, document)

        yield DeclaredChange(sign, f"config {id}", put)


def _gateway_key(store: Repository, key: GatewayKey) -> Iterator[DeclaredChange]:
    old = next((k for k in store.contents().keys.values() if k.name == key.name), None)
    if old is None:
        yield DeclaredChange("+", f"key {key.name}", lambda: store.create_key(key))
    elif replace(old, hint="") != key:
        kept = replace(key, hint=old.hint)
        yield DeclaredChange("~", f"key {key.name}", lambda: store.update_key(kept))


def _alias(store: Repository, model: str, alias: Alias) -> Iterator[DeclaredChange]:
    old = store.contents().aliases.get(model)
    if old != alias:
        sign = "~" if old else "+"
        yield DeclaredChange(
            sign, f"alias {model}", lambda: store.put_alias(model, alias)
        )


def _pruned(store: Repository, wanted: Document) -> Iterator[DeclaredChange]:
    contents = store.contents()
    stored: Mapping[str, tuple[Any, str, Callable[[str], None]]] = {
        "aliases": (contents.aliases, "alias", store.delete_alias),
        "keys": (
            [key.name for key in contents.keys.values()],
            "key",
            store.delete_key,
        ),
        "configs": (contents.configs, "config", store.delete_config),
        "virtual_keys": (
            contents.virtual_keys,
            "virtual key",
            store.delete_virtual_key,
        ),
    }
    for kind, (names, word, delete) in stored.items():
        for name in sorted(set(names) - set(wanted[kind])):
            yield DeclaredChange("-", f"{word} {name}", partial(delete, name))


# The other way


@click.command()
@click.argument("file", required=False)
@with_appcontext
@inputs.friendly
def export(file: str | None) -> None:
    """Write all that is stored, as `flask apply` reads it, without any secret.

    Secrets become `${NAME}`; gateway keys themselves are not kept, so that to apply
    the file elsewhere makes new ones.
    """
    text = yaml.safe_dump(_exported(inputs.store()), sort_keys=True)
    if file:
        Path(file).write_text(text)
    else:
        click.echo(text, nl=False)


def _exported(store: Repository) -> Document:
    contents = store.contents()
    keys = sorted(contents.keys.values(), key=lambda key: key.name)
    return {
        "virtual_keys": {
            id: _fields(key) | _placeholders(id, store.settings(contents.sealed[id]))
            for id, key in contents.virtual_keys.items()
        },
        "configs": {id: dict(each) for id, each in contents.configs.items()},
        "keys": {
            key.name: _fields(key) | ({"disabled": True} if key.disabled else {})
            for key in keys
        },
        "aliases": {model: _fields(alias) for model, alias in contents.aliases.items()},
    }


def _fields(record: VirtualKey | GatewayKey | Alias) -> Document:
    fields: Document = yaml.safe_load(serialization.document(record))
    return {key: value for key, value in fields.items() if value is not False}


def _placeholders(id: str, settings: Mapping[str, Any]) -> Document:
    return {name: f"${{{_variable_name(id, name)}}}" for name in settings}


def _variable_name(id: str, name: str) -> str:
    return re.sub(r"\W", "_", f"{id}_{name}").upper()
