"""A request to the endpoint as others would write it. Pure.

Keys are never shown: a placeholder stands for each, which the environment fills in.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

# What stands for a key in a header.
PLACEHOLDER = "$LASTWORD_KEY"
_VARIABLE = PLACEHOLDER[1:]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to the gateway at *url*, with *headers* beside that of the key."""

    url: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    has_key: bool


def curl(asked: Asked) -> str:
    """For a shell."""
    stream = ["-N"] if asked.body.get("stream") else []
    lines = [" ".join(["curl", *stream, f"{asked.url}/v1/completions"])]
    lines.append("-H 'Content-Type: application/json'")
    if asked.has_key:
        lines.append(f'-H "Authorization: Bearer {PLACEHOLDER}"')
    lines += [f"-H {shlex.quote(f'{k}: {v}')}" for k, v in asked.headers.items()]
    lines.append(f"-d {shlex.quote(json.dumps(asked.body, ensure_ascii=False))}")
    return " \\\n  ".join(lines) + "\n"


def python(asked: Asked) -> str:
    """With OpenAI's package of today."""
    given = ", ".join(["model=" + repr(asked.body.get("model", "")), *_options(asked)])
    lines = ["import os", "", "from openai import OpenAI", "", "client = OpenAI("]
    lines += [f'    base_url="{asked.url}/v1",', f"    api_key={_key(asked)},"]
    if asked.headers:
        lines.append(f"    default_headers={dict(asked.headers)!r},")
    lines += [")", f"answer = client.completions.create({given})"]
    return "\n".join(lines + _printed(asked, "{}.choices[0].text")) + "\n"


def openai_0_28(asked: Asked) -> str:
    """With the last version of OpenAI's package before 1.0."""
    given = ", ".join(["model=" + repr(asked.body.get("model", "")), *_old(asked)])
    lines = ["import os", "", "import openai", ""]
    lines += [f'openai.api_base = "{asked.url}/v1"', f"openai.api_key = {_key(asked)}"]
    if asked.headers:
        given += f", headers={dict(asked.headers)!r}"
    lines.append(f"answer = openai.Completion.create({given})")
    return "\n".join(lines + _printed(asked, '{}["choices"][0]["text"]')) + "\n"


# What is written in place of any other key, and the words in a name that tell of one.
HIDDEN = "YOUR-KEY"
_SECRET = ("key", "token", "secret", "authorization", "password", "credential")


def without_secrets(headers: Mapping[str, str]) -> dict[str, str]:
    """*headers*, in which no key stands, nor in a config among them."""
    return {name: _bared(name, value) for name, value in headers.items()}


def _bared(name: str, value: str) -> str:
    if _is_secret(name):
        return HIDDEN
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return value
    if not isinstance(document, (dict, list)):
        return value
    return json.dumps(_hidden(document), ensure_ascii=False)


def _hidden(value: Any) -> Any:
    if isinstance(value, list):
        return [_hidden(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {k: HIDDEN if _is_secret(k) else _hidden(v) for k, v in value.items()}


def _is_secret(name: str) -> bool:
    """A virtual key is a name that callers may know, and so is a number of tokens."""
    plain = name.lower().replace("-", "_").removeprefix("x_portkey_")
    if plain in ("virtual_key", "virtualkey") or plain.endswith("tokens"):
        return False
    return any(word in plain for word in _SECRET)


def all_of(asked: Asked) -> dict[str, str]:
    """Each way to write it, by its name."""
    return {
        "curl": curl(asked),
        "Python": python(asked),
        "openai 0.28": openai_0_28(asked),
    }


def address(url: str) -> str:
    """Scheme and host of *url*."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _key(asked: Asked) -> str:
    return f'os.getenv("{_VARIABLE}")' if asked.has_key else '"none"'


# What a current client takes by name; the rest goes into extra_body.
_NAMED = (
    *("prompt", "stream", "suffix", "max_tokens", "temperature", "top_p", "n"),
    *("logprobs", "echo", "stop", "presence_penalty", "frequency_penalty"),
    *("best_of", "logit_bias", "user", "seed", "stream_options"),
)


def _options(asked: Asked) -> list[str]:
    rest = {k: v for k, v in asked.body.items() if k not in (*_NAMED, "model")}
    named = [f"{k}={asked.body[k]!r}" for k in asked.body if k in _NAMED]
    return [*named, f"extra_body={rest!r}"] if rest else named


def _old(asked: Asked) -> list[str]:
    """It takes any name; those that are no names go by two stars."""
    fields = {k: v for k, v in asked.body.items() if k != "model"}
    odd = {k: v for k, v in fields.items() if not k.isidentifier()}
    named = [f"{k}={v!r}" for k, v in fields.items() if k.isidentifier()]
    return [*named, f"**{odd!r}"] if odd else named


def _printed(asked: Asked, text: str) -> list[str]:
    if not asked.body.get("stream"):
        return [f"print({text.format('answer')})"]
    printed = f'    print({text.format("piece")}, end="", flush=True)'
    return ["for piece in answer:", printed]
