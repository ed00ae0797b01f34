"""`flask virtual-keys`: credentials of providers, under names for callers."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import click
from flask.cli import AppGroup

from ..core.hosts import InternalHost, custom_host
from ..core.permissions import VirtualKey
from ..providers import PROVIDERS
from ..store.repository import RecordNotFound
from . import inputs, output
from .names import ID

virtual_keys = AppGroup(
    "virtual-keys", help="Credentials of providers, under names of their own."
)
_HEADINGS = ("id", "provider", "model", "custom_host", "limits", "disabled")


@virtual_keys.command()
@click.argument("id", type=ID)
@click.option("--provider", required=True, type=click.Choice(list(PROVIDERS)))
@click.option("--key-from", metavar="SOURCE", help=f"Its key: {inputs.SECRET_SOURCES}.")
@click.option(
    "--secret-from",
    multiple=True,
    metavar="NAME=SOURCE",
    help="Another secret of the provider, such as aws_secret_access_key.",
)
@click.option(
    "--setting", multiple=True, metavar="NAME=VALUE", help="What is no secret."
)
@click.option("--custom-host", help="Where it is, if not at the provider's address.")
@click.option("--model", help="The model, if a request names none.")
@click.option("--param", multiple=True, metavar="NAME=VALUE", help="A default.")
@inputs.limit
@click.option("--replace", "replacing", is_flag=True, help="In place of one there is.")
@inputs.report_errors
def create(
    id: str,
    provider: str,
    key_from: str | None,
    secret_from: Sequence[str],
    setting: Sequence[str],
    custom_host: str | None,
    model: str | None,
    param: Sequence[str],
    limit: Sequence[str],
    replacing: bool,
) -> None:
    """Store credentials of a provider as ID. They are never shown again."""
    store = inputs.store()
    if id in store.contents().virtual_keys and not replacing:
        raise click.ClickException(f"there is {id} already; --replace replaces it")
    declaration = PROVIDERS[provider]
    settings = inputs.pairs(setting)
    for declared in declaration.settings:
        if declared.secret and declared.name in settings:
            raise click.ClickException(
                f"{declared.name} is a secret: give it by --secret-from"
            )
    for name, source in inputs.pairs(secret_from).items():
        settings[name] = inputs.secret(str(source), name)
    if not key_from and declaration.needs_key:
        # Some providers take other credentials than a key, such as AWS's pair. If
        # none of their sets is complete, the key is asked for on the terminal.
        has_others = any(
            all(map(settings.get, names)) for names in declaration.credential_settings
        )
        key_from = None if has_others else "prompt"
    if key_from:
        settings["api_key"] = inputs.secret(key_from, "api_key")
    key = VirtualKey(
        id,
        provider,
        settings,
        custom_host,
        model,
        inputs.pairs(param),
        inputs.limits(limit),
    )
    store.put_virtual_key(check_virtual_key(key))
    click.echo(f"virtual key {id}")


def check_virtual_key(key: VirtualKey) -> VirtualKey:
    """*key*, if a request could use it. Raises ValueError."""
    provider = PROVIDERS.get(key.provider)
    if provider is None or not provider.modes:
        raise ValueError(f"provider {key.provider!r} has no text completions")
    # A misspelled setting would be ignored, and its secret stored under a wrong name.
    names = {"api_key", *(setting.name for setting in provider.settings)}
    if undeclared := sorted(set(key.settings) - names):
        raise ValueError(
            f"provider {provider.name} has no {undeclared[0]}; it has "
            f"{', '.join(sorted(names))}"
        )
    # Settings that become a part of a URL, and their checks: an internal host has to be
    # trusted by name, against server-side request forgery.
    checks: dict[str, Callable[[Iterable[str]], object]] = {}
    if key.custom_host:
        host = f"custom host {key.custom_host!r}"
        checks[host] = partial(custom_host, key.custom_host)
    for setting in provider.settings:
        if value := key.settings.get(setting.name):
            checks[setting.name] = partial(setting.check_url, value)
    for name, check in checks.items():
        try:
            check(inputs.named_hosts())
        except InternalHost as e:
            raise ValueError(f"{name}: {inputs.trust_advice(e)}") from e
        except ValueError as e:
            raise ValueError(f"{name}: {e}") from e
    return key


@virtual_keys.command("list")
@output.json_option
@inputs.report_errors
def list_(as_json: bool) -> None:
    """All virtual keys, without what they hold."""
    contents = inputs.store().contents()
    keys = (contents.virtual_keys[id] for id in sorted(contents.virtual_keys))
    output.show(map(_row, keys), _HEADINGS, as_json)


def _row(key: VirtualKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "provider": key.provider,
        "model": key.model,
        "custom_host": key.custom_host,
        "params": dict(key.params),
        "limits": key.limits.to_body(),
        "disabled": key.disabled,
    }


@virtual_keys.command()
@click.argument("id")
@output.json_option
@inputs.report_errors
def show(id: str, as_json: bool) -> None:
    """One virtual key, and the names of what it holds."""
    store = inputs.store()
    row = _row(_stored_key(id))
    names = sorted(store.settings(store.contents().sealed[id]))
    row["holds"] = ",".join(names)
    output.show([row], (*_HEADINGS, "params", "holds"), as_json)


def _stored_key(id: str) -> VirtualKey:
    store = inputs.store()
    contents = store.contents()
    if id not in contents.virtual_keys:
        raise RecordNotFound(id)
    # With its secrets, as `put_virtual_key` stores a key as a whole.
    settings = store.settings(contents.sealed[id])
    return replace(contents.virtual_keys[id], settings=settings)


@virtual_keys.command()
@click.argument("id")
@click.argument("limits", nargs=-1, required=True, metavar="LIMIT=VALUE...")
@inputs.report_errors
def limit(id: str, limits: Sequence[str]) -> None:
    """Change limits of the virtual key ID; LIMIT= takes one away."""
    key = _stored_key(id)
    new_limits = inputs.limits(limits, key.limits)
    inputs.store().put_virtual_key(replace(key, limits=new_limits))


@virtual_keys.command()
@click.argument("id")
@inputs.report_errors
def disable(id: str) -> None:
    """Keep a virtual key, and let nobody use it."""
    inputs.store().put_virtual_key(replace(_stored_key(id), disabled=True))


@virtual_keys.command()
@click.argument("id")
@inputs.report_errors
def enable(id: str) -> None:
    """Let a disabled virtual key be used again."""
    inputs.store().put_virtual_key(replace(_stored_key(id), disabled=False))


@virtual_keys.command()
@click.argument("id")
@inputs.report_errors
def delete(id: str) -> None:
    """Delete a virtual key."""
    inputs.store().delete_virtual_key(id)
