"""A request to the endpoint as code: curl, Python, and openai 0.28. Pure.

Snippets hold no key: a placeholder stands for the caller's, which the environment
fills in.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

# The caller's key in a header.
PLACEHOLDER = "$LASTWORD_KEY"

# Stands for any other key. And the words by which the name of a header or a field shows
# that it holds one.
HIDDEN = "YOUR-KEY"
_SECRET_WORDS = ("key", "token", "secret", "authorization", "password", "credential")

# Keyword arguments of `completions.create` in openai 1 and later; the rest goes into
# extra_body. Source: openai-python, src/openai/resources/completions.py
_KEYWORDS = (
    *("prompt", "stream", "suffix", "max_tokens", "temperature", "top_p", "n"),
    *("logprobs", "echo", "stop", "presence_penalty", "frequency_penalty"),
    *("best_of", "logit_bias", "user", "seed", "stream_options"),
)


@dataclass(frozen=True, slots=True)
class SnippetRequest:
    """A request to the gateway at *url*; *headers* are those without the key's."""

    url: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    has_key: bool

    @property
    def api_key(self) -> str:
        """The key as a Python expression. The client raises an error without one."""
        return f'os.getenv("{PLACEHOLDER[1:]}")' if self.has_key else '"none"'


def all_snippets(sent: SnippetRequest) -> dict[str, str]:
    """Each snippet by its name."""
    return {
        "curl": curl(sent),
        "Python": python(sent),
        "openai 0.28": openai_0_28(sent),
    }


def curl(sent: SnippetRequest) -> str:
    """For a POSIX shell."""
    # -N: curl would buffer the events of a stream.
    unbuffered = ["-N"] if sent.body.get("stream") else []
    lines = [" ".join(["curl", *unbuffered, f"{sent.url}/v1/completions"])]
    lines.append("-H 'Content-Type: application/json'")
    if sent.has_key:
        # In double quotes, so that the shell fills in the variable.
        lines.append(f'-H "Authorization: Bearer {PLACEHOLDER}"')
    lines += [f"-H {shlex.quote(f'{k}: {v}')}" for k, v in sent.headers.items()]
    lines.append(f"-d {shlex.quote(json.dumps(sent.body, ensure_ascii=False))}")
    return " \\\n  ".join(lines) + "\n"


def python(sent: SnippetRequest) -> str:
    """With OpenAI's package of today."""
    others = {k: v for k, v in sent.body.items() if k not in (*_KEYWORDS, "model")}
    arguments = [f"model={sent.body.get('model', '')!r}"]
    arguments += [f"{k}={v!r}" for k, v in sent.body.items() if k in _KEYWORDS]
    if others:
        arguments.append(f"extra_body={others!r}")
    lines = ["import os", "", "from openai import OpenAI", "", "client = OpenAI("]
    lines += [f'    base_url="{sent.url}/v1",', f"    api_key={sent.api_key},"]
    if sent.headers:
        lines.append(f"    default_headers={dict(sent.headers)!r},")
    lines += [")", f"answer = client.completions.create({', '.join(arguments)})"]
    return "\n".join(lines + _print_statement(sent, "{}.choices[0].text")) + "\n"


def openai_0_28(sent: SnippetRequest) -> str:
    """With the last version of OpenAI's package before 1.0, which takes any keyword."""
    params = {k: v for k, v in sent.body.items() if k != "model"}
    # What is no identifier cannot be a keyword argument: `**{"top-k": 1}`.
    no_identifiers = {k: v for k, v in params.items() if not k.isidentifier()}
    arguments = [f"model={sent.body.get('model', '')!r}"]
    arguments += [f"{k}={v!r}" for k, v in params.items() if k.isidentifier()]
    if no_identifiers:
        arguments.append(f"**{no_identifiers!r}")
    if sent.headers:
        arguments.append(f"headers={dict(sent.headers)!r}")
    lines = ["import os", "", "import openai", ""]
    lines += [f'openai.api_base = "{sent.url}/v1"', f"openai.api_key = {sent.api_key}"]
    lines.append(f"answer = openai.Completion.create({', '.join(arguments)})")
    return "\n".join(lines + _print_statement(sent, '{}["choices"][0]["text"]')) + "\n"


def _print_statement(sent: SnippetRequest, text: str) -> list[str]:
    if not sent.body.get("stream"):
        return [f"print({text.format('answer')})"]
    statement = f'    print({text.format("piece")}, end="", flush=True)'
    return ["for piece in answer:", statement]


def without_secrets(headers: Mapping[str, str]) -> dict[str, str]:
    """*headers* without keys; those in a config, which is JSON, are hidden as well."""
    clean = {}
    for name, value in headers.items():
        if _is_secret(name):
            value = HIDDEN
        else:
            try:
                document = json.loads(value)
            except (ValueError, RecursionError):
                document = None
            if isinstance(document, (dict, list)):
                value = json.dumps(_hide_secrets(document), ensure_ascii=False)
        clean[name] = value
    return clean


def _hide_secrets(value: Any) -> Any:
    if isinstance(value, list):
        return [_hide_secrets(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {k: HIDDEN if _is_secret(k) else _hide_secrets(v) for k, v in value.items()}


def _is_secret(name: str) -> bool:
    """Whether a header or field of this *name* holds a secret.

    A virtual key is only a name, and max_tokens a number.
    """
    plain = name.lower().replace("-", "_").removeprefix("x_portkey_")
    if plain in ("virtual_key", "virtualkey") or plain.endswith("tokens"):
        return False
    return any(word in plain for word in _SECRET_WORDS)


def origin(url: str) -> str:
    """Scheme and host of *url*."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
