"""`flask virtual-keys`: credentials of providers, under names that callers may know."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import click
from flask.cli import AppGroup

from ..core.hosts import InternalHost, custom_host
from ..core.permissions import VirtualKey
from ..providers import PROVIDERS, Provider
from ..store.repository import RecordNotFound
from . import inputs, output
from .names import ID

virtual_keys = AppGroup(
    "virtual-keys", help="Credentials of providers, under names of their own."
)
_SOURCE = "- for standard input, file:PATH, env:NAME, or prompt"
_HEADINGS = ("id", "provider", "model", "custom_host", "limits", "disabled")


@virtual_keys.command()
@click.argument("id", type=ID)
@click.option("--provider", required=True, type=click.Choice(list(PROVIDERS)))
@click.option("--key-from", metavar="SOURCE", help=f"Its key: {_SOURCE}.")
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
@inputs.friendly
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
    declared = PROVIDERS[provider]
    given = _plain(declared, setting) | _secret(declared, secret_from)
    wanted = key_from or ("prompt" if _wants_a_key(declared, given) else None)
    if wanted:
        given["api_key"] = inputs.secret(wanted, "api_key")
    key = VirtualKey(
        id,
        provider,
        given,
        custom_host,
        model,
        inputs.pairs(param),
        inputs.limits(limit),
    )
    store.put_virtual_key(checked(key))
    click.echo(f"virtual key {id}")


def checked(key: VirtualKey) -> VirtualKey:
    """*key*, if a request could use it. Raises ValueError."""
    provider = PROVIDERS.get(key.provider)
    if provider is None or not provider.modes:
        raise ValueError(f"provider {key.provider!r} has no text completions")
    known = {"api_key", *(setting.name for setting in provider.settings)}
    strange = sorted(set(key.settings) - known)
    if strange:
        raise ValueError(
            f"provider {provider.name} has no {strange[0]}; it has "
            f"{', '.join(sorted(known))}"
        )
    for name, check in _urls(provider, key):
        try:
            check(inputs.named_hosts())
        except InternalHost as e:
            raise ValueError(f"{name}: {inputs.friendly_host(e)}") from e
        except ValueError as e:
            raise ValueError(f"{name}: {e}") from e
    return key


def _urls(
    provider: Provider, key: VirtualKey
) -> Iterator[tuple[str, Callable[[Iterable[str]], object]]]:
    """The names of all that leads to a URL, and what checks each."""
    if key.custom_host:
        yield f"custom host {key.custom_host!r}", partial(custom_host, key.custom_host)
    for setting in provider.settings:
        value = key.settings.get(setting.name)
        if value:
            yield setting.name, partial(setting.check_url, value)


def _plain(provider: Provider, given: Sequence[str]) -> dict[str, Any]:
    values = inputs.pairs(given)
    for setting in provider.settings:
        if setting.secret and setting.name in values:
            raise click.ClickException(
                f"{setting.name} is a secret: give it by --secret-from"
            )
    return values


def _secret(provider: Provider, given: Sequence[str]) -> dict[str, Any]:
    sources = inputs.pairs(given)
    return {name: inputs.secret(str(sources[name]), name) for name in sources}


def _wants_a_key(provider: Provider, given: dict[str, Any]) -> bool:
    stands_for_one = any(all(map(given.get, names)) for names in provider.keys)
    return provider.needs_key and not stands_for_one


@virtual_keys.command("list")
@output.as_json
@inputs.friendly
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
@output.as_json
@inputs.friendly
def show(id: str, as_json: bool) -> None:
    """One virtual key, and the names of what it holds."""
    store = inputs.store()
    key = _found(id)
    held = sorted(store.settings(store.contents().sealed[id]))
    row = _row(key) | {"holds": ",".join(held)}
    output.show([row], (*_HEADINGS, "params", "holds"), as_json)


def _found(id: str) -> VirtualKey:
    store = inputs.store()
    contents = store.contents()
    if id not in contents.virtual_keys:
        raise RecordNotFound(id)
    settings = store.settings(contents.sealed[id])
    return replace(contents.virtual_keys[id], settings=settings)


@virtual_keys.command()
@click.argument("id")
@click.argument("limits", nargs=-1, required=True, metavar="LIMIT=VALUE...")
@inputs.friendly
def limit(id: str, limits: Sequence[str]) -> None:
    """Change limits of the virtual key ID; LIMIT= takes one away."""
    key = _found(id)
    changed = inputs.limits(limits, key.limits)
    inputs.store().put_virtual_key(replace(key, limits=changed))


@virtual_keys.command()
@click.argument("id")
@inputs.friendly
def disable(id: str) -> None:
    """Keep a virtual key, and let nobody use it."""
    inputs.store().put_virtual_key(replace(_found(id), disabled=True))


@virtual_keys.command()
@click.argument("id")
@inputs.friendly
def enable(id: str) -> None:
    """Let a disabled virtual key be used again."""
    inputs.store().put_virtual_key(replace(_found(id), disabled=False))


@virtual_keys.command()
@click.argument("id")
@inputs.friendly
def delete(id: str) -> None:
    """Delete a virtual key."""
    inputs.store().delete_virtual_key(id)
