"""The URLs that all providers are called at on a custom host, however it is written."""

import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.endpoint_urls import join_paths
from app.core.routing import CompletionMode
from app.errors import UnsupportedParameter, UnsupportedProvider
from app.providers import PROVIDERS

from . import harness

# Models of the families that differ in their endpoints.
MODELS = {
    "vertex-ai": ["gemini-2.5-flash", "claude-haiku-4-5", "meta/llama-4"],
    "bedrock": ["meta.llama3"],
    "workers-ai": ["@cf/meta/llama"],
}
CALLABLE = [
    (name, mode, model)
    for name, provider in PROVIDERS.items()
    if not provider.embedded
    for mode in provider.modes
    for model in MODELS.get(name, ["m"])
]
PREFIXES = ["", "/proxy", "/openai", "/a/b"]


def url(name: str, host: str | None, mode: CompletionMode, model: str) -> str:
    to: dict[str, Any] = {"base_url": host, "via": mode}
    return harness.calls(name, to=to, model=model)[0].url


def without_query(text: str) -> str:
    return text.partition("?")[0]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name, mode, model", CALLABLE)
def test_all_forms_of_host_are_called_alike(
    name: str, mode: CompletionMode, model: str, prefix: str
) -> None:
    provider, host = PROVIDERS[name], "http://upstream" + prefix
    expected = url(name, host, mode, model)
    api_host = "http://upstream" + join_paths(prefix, provider.host_path)
    endpoints = [
        without_query(url(name, api_host, other, each))
        for other_name, other, each in CALLABLE
        if (other_name, each) == (name, model)
    ]
    forms = [host, api_host, *endpoints]
    called = {
        form + slash: url(name, form + slash, mode, model)
        for form in forms
        for slash in ("", "/")
    }

    assert expected.startswith(host + "/")
    assert called == dict.fromkeys(called, expected)


OWN = [
    (name, mode, model)
    for name, mode, model in CALLABLE
    if PROVIDERS[name].base_url and not PROVIDERS[name].retired_because
    if mode in (PROVIDERS[name].own_host_modes or PROVIDERS[name].modes)
]


@pytest.mark.parametrize("name, mode, model", OWN)
def test_own_address_as_custom_host(
    name: str, mode: CompletionMode, model: str
) -> None:
    """In whole, or without its path: what is called is the same."""
    provider = PROVIDERS[name]
    names = re.findall(r"\{(\w+)\}", provider.base_url)
    options = dict.fromkeys(names, "x")
    own = provider.address(harness.target(name, base_url=None, options=options))
    server = own.replace(urlsplit(own).path, "") if urlsplit(own).path else own
    to = {"options": options, "via": mode}
    expected, *others = (
        harness.calls(name, to=to | {"base_url": host}, model=model)[0].url
        for host in (None, own, own + "/", server, server.upper().replace("S:/", "s:/"))
    )

    assert [other.lower() for other in others] == [expected.lower()] * 4


# No versions, which some endpoints replace.
PATHS = st.from_regex(r"(/[a-z0-9]{1,9}-[a-z]{1,9}){0,3}", fullmatch=True)


@given(st.sampled_from(CALLABLE), PATHS)
def test_prefix_of_host_stays(
    called: tuple[str, CompletionMode, str], path: str
) -> None:
    name, mode, model = called

    for host in ("http://upstream" + path, f"http://upstream{path}/"):
        assert url(name, host, mode, model).startswith(f"http://upstream{path}/")


@pytest.mark.parametrize(
    "name, host, expected",
    [
        # What works in Portkey's configs: host and path, one behind the other.
        ("openai", "http://vllm:8000/v1", "http://vllm:8000/v1/completions"),
        ("together-ai", "http://h", "http://h/v1/completions"),
        ("novita-ai", "http://h/v3/openai", "http://h/v3/openai/v1/completions"),
        ("openrouter", "http://h/api", "http://h/api/v1/completions"),
        ("lepton", "http://h", "http://h/api/v1/completions"),
        ("deepinfra", "http://h/v1/openai", "http://h/v1/openai/completions"),
        ("groq", "http://h/openai/v1", "http://h/openai/v1/chat/completions"),
        ("anthropic", "http://h/v1", "http://h/v1/messages"),
        ("ollama", "http://h:11434", "http://h:11434/api/generate"),
        ("triton", "http://h/v2/models/m", "http://h/v2/models/m/generate"),
        ("huggingface", "http://h", "http://h/v1/completions"),
        # And what does not there.
        ("openai", "http://vllm:8000", "http://vllm:8000/v1/completions"),
        ("openai", "https://proxy/openai", "https://proxy/openai/v1/completions"),
        ("vllm", "http://h/v1/chat/completions", "http://h/v1/completions"),
        ("together-ai", "http://h/v1", "http://h/v1/completions"),
        ("anthropic", "http://h/anthropic", "http://h/anthropic/v1/messages"),
        ("cohere", "http://h/v1", "http://h/v2/chat"),
        ("google", "http://h/v1beta", "http://h/v1beta/models/m:generateContent"),
        ("ollama", "http://h/api", "http://h/api/generate"),
        ("ollama", "http://h/v1/completions", "http://h/api/generate"),
        ("deepseek", "http://h/v1", "http://h/beta/completions"),
        ("groq", "http://h", "http://h/openai/v1/chat/completions"),
        ("fireworks-ai", "http://h/inference", "http://h/inference/v1/completions"),
    ],
)
def test_custom_host_url(name: str, host: str, expected: str) -> None:
    assert harness.calls(name, to={"base_url": host})[0].url == expected


def test_azures_v1_host_has_no_deployments() -> None:
    host = "https://r.openai.azure.com/openai/v1"
    (call,) = harness.calls("azure-openai", to={"base_url": host}, model="dep")

    assert call.url == host + "/completions"


def test_bare_azure_host_gets_its_path() -> None:
    host = "https://r.openai.azure.com/"
    (call,) = harness.calls("azure-openai", to={"base_url": host}, model="dep")

    assert without_query(call.url) == host + "openai/deployments/dep/completions"


# Modes of a provider's own address


@pytest.mark.parametrize("provider", ["dashscope", "huggingface"])
@pytest.mark.parametrize("is_named", [False, True], ids=["unnamed", "named"])
def test_own_address_keeps_its_modes(provider: str, is_named: bool) -> None:
    own = PROVIDERS[provider].base_url if is_named else None
    to = {"base_url": own}

    assert harness.plan(provider, to=to).mode == "chat"
    with pytest.raises(UnsupportedProvider, match="own address, but via chat"):
        harness.plan(provider, to=to | {"via": CompletionMode.NATIVE})


@pytest.mark.parametrize("is_named", [False, True], ids=["unnamed", "named"])
def test_suffix_respects_own_modes(is_named: bool) -> None:
    """Infilling is on DashScope's host in Beijing alone."""
    own = PROVIDERS["dashscope"].base_url if is_named else None
    model = "qwen2.5-coder-32b-instruct"
    beijing = {"base_url": "https://dashscope.aliyuncs.com/compatible-mode/v1"}

    with pytest.raises(UnsupportedParameter, match="'suffix' is not supported"):
        harness.plan("dashscope", to={"base_url": own}, model=model, suffix="end")
    elsewhere = harness.plan("dashscope", to=beijing, model=model, suffix="end")
    assert elsewhere.mode == "fim"
