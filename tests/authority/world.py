"""A gateway with a store, random requests to it, and what each may reach.

What a caller may reach is computed here from what was stored and nothing else, in a few
lines that share no code with the gateway. What was reached is what a scripted upstream
received, and what its answer says (an answer from the cache reaches no upstream).
"""

import json
import random
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from app import create_app
from app.core.limits import Limits
from app.core.permissions import Alias, GatewayKey, VirtualKey
from app.settings import Settings
from app.store import factory
from tests.upstream import Answer, ReceivedRequest, Upstream, completion, reply, whole

OWN_KEY = "sk-the-callers-own-key"

# A key in every provider's shape: text, chat, deployments in the path, own model lists.
PROVIDERS = ("openai", "groq", "azure-openai", "openrouter", "vllm", "together-ai")
MODELS = ("gpt-3.5-turbo-instruct", "gpt-3.5-a", "gpt-4o", "o1-pro", "llama-3")
# Whole names, although they look like those of models of virtual keys.
MODELS += ("@cf/meta/llama-3", "@vk-z/gpt-4o")
VIRTUAL_KEYS = ("vk-a", "vk-b", "vk-c", "vk-d")
CONFIGS = ("cfg-a", "cfg-b", "cfg-c")
PATTERNS = {
    "models": ("gpt-3.5*", "gpt-4o", "llama*", "o1-pro", "@*/gpt-4o", "*"),
    "providers": ("openai", "groq", "azure*", "*"),
    "virtual_keys": ("vk-a", "vk-b", "vk-[cd]", "*"),
    "configs": ("cfg-a", "cfg-b", "*"),
}


@dataclass(frozen=True)
class Reached:
    """One call as the upstream received it."""

    credential: str
    models: tuple[str, ...]
    request: ReceivedRequest


@dataclass
class World:
    """One gateway, its store, and an upstream behind all of its providers."""

    folder: Path
    rng: random.Random
    byok: bool = True
    virtual_keys: dict[str, VirtualKey] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    aliases: dict[str, Alias] = field(default_factory=dict)
    keys: dict[str, GatewayKey] = field(default_factory=dict)
    reached: list[Reached] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.upstream = Upstream([self._answer])
        settings = Settings(
            instance=str(self.folder),
            ledger=False,
            metrics=False,
            log_requests=False,
            byok=self.byok,
            auth="keys",
            secret_key="a secret of the tests",
            store_ttl=3600.0,
            trusted_custom_hosts=("127.0.0.1",),
            default_max_tokens=16,
        )
        self.store = factory.repository(settings)
        self._fill()
        self.app = create_app(settings)

    def close(self) -> None:
        for name in ("lastword", "lastword.directory", "lastword.ledger"):
            self.app.extensions[name].close()
        self.store.engine.dispose()
        self.upstream.stop()

    # Stored records

    def _fill(self) -> None:
        rng = self.rng
        for id in VIRTUAL_KEYS:
            provider = rng.choice(PROVIDERS)
            settings = {"api_key": f"sk-sealed-in-{id}"}
            if provider == "azure-openai":
                settings["azure_deployment_id"] = rng.choice(MODELS)
            if provider == "openai":
                settings["openai_project"] = f"project-of-{id}"
            params = rng.choice([{}, {"top_p": 0.5}, {"n_predict": 9}])
            model = rng.choice([None, *MODELS])
            url = self.upstream.url
            key = VirtualKey(id, provider, settings, url, model, params)
            self.virtual_keys[id] = key
            self.store.put_virtual_key(key)
        for id in CONFIGS:
            self.configs[id] = self._config(stored=True)
            self.store.put_config(id, self.configs[id])
        for model in rng.sample(MODELS, 2):
            self.aliases[model] = self._alias()
            self.store.put_alias(model, self.aliases[model])
        for number in range(8):
            allowed = {
                resource: rng.sample(patterns, rng.choice([0, 1, 1, 2]))
                for resource, patterns in PATTERNS.items()
                if rng.random() < 0.45
            }
            aliases = {rng.choice(MODELS): self._alias()} if rng.random() < 0.3 else {}
            limits = {"money_per_day": 10**6} if rng.random() < 0.2 else {}
            key = GatewayKey(
                f"key-{number}",
                config=rng.choice([None, None, *CONFIGS]),
                allowed=allowed,
                aliases=aliases,
                limits=Limits.of(limits),
            )
            self.keys[self.store.create_key(key)] = key

    def _alias(self) -> Alias:
        rng = self.rng
        date = rng.choice([None, None, "2024-01-04", "9999-12-31"])
        model = rng.choice(MODELS)
        if rng.random() < 0.5:
            return Alias(model, rng.choice(VIRTUAL_KEYS), None, date)
        if rng.random() < 0.3:
            return Alias(self._model_of_key(), None, None, date)
        # Nothing may lead to a provider's real address; this one has none.
        return Alias(model, None, rng.choice([None, "vllm"]), date)

    def _model_of_key(self) -> str:
        return f"@{self.rng.choice(VIRTUAL_KEYS)}/{self.rng.choice(MODELS)}"

    def key_for_all(self) -> str:
        """A gateway key without any limit. To be made before the first request."""
        key = GatewayKey("all")
        text = self.store.create_key(key)
        self.keys[text] = key
        return text

    # Requests

    def _config(self, *, stored: bool, depth: int = 0) -> dict[str, Any]:
        """A random config, as an operator may store or a caller may send it."""
        rng = self.rng
        config: dict[str, Any] = {}
        if depth < 2 and rng.random() < (0.5 if depth == 0 else 0.25):
            mode = rng.choice(["fallback", "loadbalance", "single"])
            targets = [
                self._config(stored=stored, depth=depth + 1)
                for _ in range(rng.randint(1, 3))
            ]
            config |= {"strategy": {"mode": mode}, "targets": targets}
        else:
            config |= self._leaf(stored)
        for name in ("override_params", "default_params"):
            if rng.random() < 0.2:
                config[name] = self._params()
        if rng.random() < 0.2:
            config["model_aliases"] = {
                rng.choice(MODELS): {
                    k: v
                    for k in ("model", "virtual_key", "provider", "shutdown_date")
                    if (v := getattr(self._alias(), k))
                }
                | {"model": rng.choice([*MODELS, self._model_of_key()])}
            }
        if rng.random() < 0.15:
            scope = rng.choice(["config", "credentials"])
            config["cache"] = {"mode": "simple", "scope": scope}
        if rng.random() < 0.15:
            config["forward_headers"] = list(_HEADERS)
        return config

    def _leaf(self, stored: bool) -> dict[str, Any]:
        rng = self.rng
        kind = rng.random()
        if kind < 0.45:
            return {"virtual_key": rng.choice(VIRTUAL_KEYS)}
        if kind < 0.55:
            return {"provider": f"@{rng.choice(VIRTUAL_KEYS)}"}
        if kind < 0.65:
            # The provider is left to the model, or to the headers.
            retry = {"retry": {"attempts": 0}}
            return retry | {"override_params": {"model": self._model_of_key()}}
        leaf = {"provider": rng.choice(PROVIDERS), "custom_host": self.upstream.url}
        if not stored and rng.random() < 0.4:
            leaf["api_key"] = rng.choice([OWN_KEY, *self.keys])
        if not stored and rng.random() < 0.3:
            leaf["azure_ad_token"] = OWN_KEY
        if rng.random() < 0.3:
            leaf["azure_deployment_id"] = rng.choice(MODELS)
        return leaf

    def _params(self) -> dict[str, Any]:
        rng = self.rng
        params: dict[str, Any] = {}
        if rng.random() < 0.6:
            params["model"] = rng.choice([*MODELS, self._model_of_key()])
        if rng.random() < 0.2:
            params[rng.choice(["models", "fallbacks", "lora"])] = [rng.choice(MODELS)]
        if rng.random() < 0.2:
            params[rng.choice(["n_predict", "max_new_tokens", "max_tokens"])] = 7
        return params

    def request(self) -> tuple[str, dict[str, str], dict[str, Any]]:
        """A random request: the gateway key that it holds, its headers, its body."""
        rng = self.rng
        text = rng.choice(list(self.keys))
        gateway_key = rng.choice(_FORMS).format(text)
        if rng.random() < 0.3:
            headers = {"Authorization": f"Bearer {OWN_KEY}", "x-api-key": gateway_key}
        else:
            headers = {"Authorization": gateway_key}
        if rng.random() < 0.5:
            config = self._config(stored=False)
            headers["x-portkey-config"] = json.dumps(config)
        elif rng.random() < 0.6:
            headers["x-portkey-config"] = rng.choice(CONFIGS)
        if rng.random() < 0.25:
            chosen = rng.choice([*PROVIDERS, *(f"@{id}" for id in VIRTUAL_KEYS)])
            headers["x-portkey-provider"] = chosen
            if chosen in PROVIDERS:
                headers["x-portkey-custom-host"] = self.upstream.url
        if rng.random() < 0.15:
            headers["x-portkey-virtual-key"] = rng.choice(VIRTUAL_KEYS)
        if rng.random() < 0.15:
            headers["x-portkey-custom-host"] = self.upstream.url
        if rng.random() < 0.2:
            headers["x-portkey-azure-deployment-id"] = rng.choice(MODELS)
        if rng.random() < 0.3:
            values = {name: rng.choice(_VALUES).format(text) for name in _HEADERS}
            values["x-custom"] = rng.choice(["theirs", f"x {text}"])
            headers |= {k: v for k, v in values.items() if k != "authorization"}
            headers["x-portkey-forward-headers"] = ", ".join(_HEADERS)
        model = rng.choice(MODELS)
        if rng.random() < 0.15:
            model = self._model_of_key()
        body = {"model": model, "prompt": rng.choice(["Hi", "Ho"])}
        return text, headers, body | (self._params() if rng.random() < 0.2 else {})

    # Answers and violations

    def _answer(self, request: ReceivedRequest) -> Answer:
        """The upstream: its answer names the credentials and the model of the call."""
        models = tuple(_models(request))
        credential = self._holder(request)
        with self._lock:
            self.reached.append(Reached(credential, models, request))
        text = f"{credential}|{'|'.join(models)}"
        is_chat = "/chat/" in request.path
        return whole(reply(text) if is_chat else completion(text))

    def _holder(self, request: ReceivedRequest) -> str:
        """The virtual key whose secret arrived; the callers' own, or none."""
        sent = request.headers.get("authorization", "") + request.headers.get(
            "api-key", ""
        )
        ids = [
            id for id in VIRTUAL_KEYS if f"sk-sealed-in-{id}" in str(request.headers)
        ]
        if len(ids) == 1:
            return ids[0]
        return "two" if ids else ("own" if sent else "none")

    def violations(
        self, text: str, headers: Mapping[str, str], response: Any
    ) -> Iterator[str]:
        """What a request with the gateway key *text* reached without permission."""
        key = self.keys[text]
        for call in self.reached:
            yield from self._of_call(key, headers, call.credential, call.models)
            yield from self._of_headers(call)
        if response.status_code == 200:
            answer = response.json["choices"][0]["text"]
            credential, *models = answer.split("|")
            yield from self._of_call(key, headers, credential, models)
        elif response.status_code >= 500:
            yield f"status {response.status_code}: {response.json}"

    def _of_call(
        self, key: GatewayKey, headers: Mapping[str, str], credential: str, models: Any
    ) -> Iterator[str]:
        for model in models:
            if not _allows(key, "models", model):
                yield f"model {model}"
        if credential == "two":
            yield "credentials of two virtual keys in one call"
        elif credential in ("own", "none"):
            if credential == "own" and not self.byok:
                yield "a credential of the caller's own"
        elif not self._granted(key, headers, credential, models):
            yield f"virtual key {credential}"
        elif not _allows(key, "providers", self.virtual_keys[credential].provider):
            yield f"provider of {credential}"

    def _granted(
        self, key: GatewayKey, headers: Mapping[str, str], id: str, models: Any
    ) -> bool:
        if _allows(key, "virtual_keys", id):
            return True
        named = headers.get("x-portkey-config", "")
        config = named if named in CONFIGS and _allows(key, "configs", named) else None
        if not named:
            config = key.config
        text = json.dumps(self.configs[config]) if config else ""
        if any(name in text for name in (f'"{id}"', f'"@{id}"', f'"@{id}/')):
            return True
        # The last of the names is that in the body; the path may name a deployment.
        stored = [*key.aliases.values(), *self.aliases.values()]
        own = [(alias.virtual_key, alias.model) for alias in stored]
        named = [alias.model for alias in stored]
        return (id, models[-1]) in own or f"@{id}/{models[-1]}" in named

    def _of_headers(self, call: Reached) -> Iterator[str]:
        text = json.dumps(call.request.headers)
        for gateway_key in self.keys:
            if gateway_key in text:
                yield "a gateway key went upstream"
        if call.credential in VIRTUAL_KEYS:
            if OWN_KEY in text or "cookie" in call.request.headers:
                yield "a credential of the caller's beside a virtual key"
            project = call.request.headers.get("openai-project")
            if project not in (None, f"project-of-{call.credential}"):
                yield f"a project of the caller's beside a virtual key: {project}"


_FORMS = ("Bearer {}", "Bearer {}", "{}", "bearer\t{}", "Token {}")
_HEADERS = ("OpenAI-Project", "authorization", "Cookie", "x-custom", "API-Key")
_VALUES = ("theirs", OWN_KEY, "Bearer " + OWN_KEY, "Basic {}", "x={};", "Token {}")


def _models(request: ReceivedRequest) -> Iterator[str]:
    """Every name of a model in a call: in its path and its body."""
    if "/deployments/" in request.path:
        yield unquote(request.path.split("/deployments/")[1].split("/")[0])
    for name in ("models", "fallbacks"):
        yield from request.json.get(name) or ()
    yield from [request.json["lora"][0]] if "lora" in request.json else []
    yield str(request.json.get("model"))


def _allows(key: GatewayKey, resource: str, name: str) -> bool:
    allowed = key.allowed.get(resource)
    return allowed is None or any(fnmatchcase(name, each) for each in allowed)


def run(folder: Path, seed: int, requests: int) -> tuple[int, int]:
    """Send so many random requests to a random gateway; how many got an answer.

    And how many calls reached the upstream. Raises AssertionError with all that is
    needed to send a request again that reached too much.
    """
    rng = random.Random(seed)
    world = World(folder, rng, byok=rng.random() < 0.7)
    answered = calls = 0
    try:
        client = world.app.test_client(use_cookies=False)
        for number in range(requests):
            text, headers, body = world.request()
            world.reached.clear()
            with client.post("/v1/completions", json=body, headers=headers) as response:
                violations = list(world.violations(text, headers, response))
                assert not violations, {
                    "violations": violations,
                    "seed": seed,
                    "number": number,
                    "key": world.keys[text],
                    "byok": world.byok,
                    "headers": headers,
                    "body": body,
                    "answer": response.json,
                }
            answered += response.status_code == 200
            calls += len(world.reached)
    finally:
        world.close()
    return answered, calls
