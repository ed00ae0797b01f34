"""Authorization: whether a caller may have a target called.

A target is put together from what several authors write: the operator (stored configs,
virtual keys, aliases), the caller (a config in a header, the body, headers), and the
rules of precedence between them. Each of these can change which provider is called, for
which model, and with whose credentials, so no single step can decide alone what is
allowed. Therefore `authorize` looks at the finished target only, and derives what the
caller may have from what is stored, not from how the target came about. The gateway
calls it just before a target is planned, looked up in the cache, or called; the API
calls it earlier as well, so that a forbidden request costs nothing.

The rules:

- The provider, and every name under which a model is requested, must be allowed to the
  gateway key: after overrides, defaults, aliases, and the defaults of a virtual key.
- A virtual key must be allowed to the gateway key, or be named by the stored config of
  the request, or be the target of a stored alias, for that alias's model.
- Other models that a body offers in place of its `model` are refused to a key that is
  limited in models or in money.
- With GATEWAY_BYOK=0 no credential may be the caller's own, however it is sent.
- No gateway key may stand where a credential of a provider does.
"""

from collections.abc import Iterator

from ..core.credentials import holds_gateway_key
from ..core.forwarding import is_credential_header
from ..core.parameter_aliases import MODEL_ALTERNATIVES
from ..core.permissions import Permissions
from ..core.request import CompletionRequest
from ..core.routing import Target
from ..errors import Forbidden, InvalidRequest, Unauthorized
from ..providers import PROVIDERS
from ..providers.declaration import Provider


def authorize(target: Target, permissions: Permissions) -> None:
    """Raise Forbidden, Unauthorized or InvalidRequest unless *target* may be called."""
    authorize_listing(target, permissions)
    if target.request is None:
        return
    if permissions.key:
        for model in models_requested(target, target.request):
            _check_list(permissions, "models", model)
    # Fields that let the provider choose another model: which one answers, and what it
    # costs, cannot be checked in advance.
    key = permissions.key
    alternatives = MODEL_ALTERNATIVES & target.request.params.keys()
    if not alternatives:
        return
    limits_models = key is not None and "models" in key.allowed
    limits_money = target.limits.has_money or (key is not None and key.limits.has_money)
    if limits_models or limits_money:
        raise Forbidden(
            f"This key is limited in models or money, so {next(iter(alternatives))!r} "
            "may not offer the provider other models than 'model'."
        )


def authorize_listing(target: Target, permissions: Permissions) -> None:
    """The same for a list of models, a request without a model."""
    _check_list(permissions, "providers", target.provider)
    provider = PROVIDERS.get(target.provider)
    if provider and provider.embedded and not permissions.is_known:
        raise gateway_key_required()
    if target.virtual_key is not None:
        _check_virtual_key(target, permissions)
    elif not permissions.byok:
        _refuse_own_credentials(target, provider, permissions)
    # Refuse what would send a gateway key to a provider. The options of a virtual key
    # are the operator's own.
    values = {"the key of the provider": target.api_key or "", **target.headers}
    if target.virtual_key is None:
        values |= {k: v for k, v in target.options.items() if isinstance(v, str)}
    for name, value in values.items():
        if holds_gateway_key(value):
            raise InvalidRequest(
                f"A key of this gateway stands in {name}, from where it would be sent "
                "to the provider. Send it as Authorization: Bearer YOUR_KEY alone.",
                code="misplaced_gateway_key",
            )


def models_requested(target: Target, request: CompletionRequest) -> Iterator[str]:
    """The names of the model that *target* is asked for.

    There is a second one where a setting names the deployment that will answer.
    """
    yield request.model
    provider = PROVIDERS.get(target.provider)
    for name in provider.model_settings if provider else ():
        if value := target.options.get(name):
            yield str(value)


def gateway_key_required() -> Unauthorized:
    return Unauthorized(
        "You didn't provide an API key of this gateway. Send it as Authorization: "
        "Bearer YOUR_KEY, x-portkey-api-key or api-key.",
        code="missing_api_key",
    )


def _check_list(permissions: Permissions, resource: str, name: str) -> None:
    if permissions.key and not permissions.key.may_use(resource, name):
        raise Forbidden(
            f"This key may not use the {resource.removesuffix('s')} {name[:80]!r}."
        )


def _check_virtual_key(target: Target, permissions: Permissions) -> None:
    name, key = str(target.virtual_key), permissions.key
    if not permissions.is_known:
        raise gateway_key_required()
    if any(map(is_credential_header, target.headers)):
        raise Forbidden("A virtual key cannot be used with credentials in a header.")
    if key is None or key.may_use("virtual_keys", name):
        return
    if name in permissions.config_virtual_keys:
        return
    # An alias grants its virtual key for its own model, and for nothing else.
    alias = permissions.stored_alias(target.aliased_model)
    model = target.request.model if target.request else ""
    if alias is None or not alias.leads_to(name, model):
        raise Forbidden(
            f"This key may not use the virtual key {name[:80]!r}, or there is none."
        )


def _refuse_own_credentials(
    target: Target, provider: Provider | None, permissions: Permissions
) -> None:
    """Refuse credentials of a target without a virtual key that are not stored."""
    settings = provider.settings if provider else ()
    values = {s.name: target.options.get(s.name) for s in settings if s.secret}
    if not (provider and provider.embedded):
        values["a key of the provider"] = target.api_key
    stored = permissions.config_secrets
    own = [name for name, value in values.items() if value and str(value) not in stored]
    own += filter(is_credential_header, target.headers)
    if own:
        raise Forbidden(
            "This gateway accepts no credentials of providers from callers "
            f"(GATEWAY_BYOK=0), but the request has: {', '.join(sorted(own))}."
        )
