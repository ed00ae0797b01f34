"""What all providers support, as tables for users, derived from the declarations.

`flask providers` prints it, and `make docs` writes it to docs/providers.md.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass

from ...core.endpoint_urls import split_path
from .. import PROVIDERS
from ..declaration import Endpoint, Provider

# The parameters that only shape the sampling, or name the user.
_SAMPLING_PARAMS = (
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "seed",
    "user",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One completion mode of one provider, as users read it.

    *parameters* are those that only shape the sampling. *n* and *batch* say how many
    choices and prompts go into one call, *usage* when a stream counts its tokens.
    """

    provider: str
    way: str
    parameters: str
    stop: str
    logprobs: str
    echo: str
    suffix: str
    n: str
    batch: str
    usage: str


HEADINGS = tuple(Row.__slots__)


def rows() -> Iterator[Row]:
    """All modes of all providers; where one differs by model, each of its families."""
    for provider in PROVIDERS.values():
        for mode in provider.modes:
            for family, endpoint in provider.endpoints(mode).items():
                label = f"{mode} ({family})" if family else str(mode)
                yield _row(provider.name, label, endpoint)


def _row(provider: str, label: str, endpoint: Endpoint) -> Row:
    params = endpoint.params
    # The shorter of two lists: what an endpoint has, or what it lacks.
    lacking = [name for name in _SAMPLING_PARAMS if name not in params]
    if not lacking:
        sampling = "all"
    elif len(lacking) <= len(_SAMPLING_PARAMS) // 2:
        sampling = "all but " + ", ".join(lacking)
    else:
        sampling = ", ".join(n for n in _SAMPLING_PARAMS if n in params) or "none"
    stop, logprobs = "gateway", "-"
    if param := params.get("stop"):
        stop = (
            "itself" if param.max_items is None else f"itself, up to {param.max_items}"
        )
    if param := params.get("logprobs"):
        logprobs = "yes" if param.high is None else f"up to {param.high:g}"
    return Row(
        provider=provider,
        way=label,
        parameters=sampling,
        stop=stop,
        logprobs=logprobs,
        # "gateway": the endpoint lacks it, and post-processing does it.
        echo="itself" if "echo" in params else "gateway",
        suffix="yes" if "suffix" in params else "-",
        n=f"up to {endpoint.choices_per_call}" if "n" in params else "1",
        batch="any" if endpoint.takes_batches else "1",
        # Without stream_options a provider sends a stream's usage always, or never.
        usage="if asked" if "stream_options" in params else "if it comes",
    )


def host_form(provider: Provider) -> str:
    """How a custom host is written; what may be left out is in brackets."""
    path = split_path(provider.base_url)[1]
    version = provider.host_path
    path = path.removesuffix(version) + provider.required_path
    return f"https://HOST{path}" + (f"[{version}]" if version else "")


def markdown() -> str:
    """All that is declared, as the generated half of docs/providers.md."""
    addresses, settings, without_text = [], [], []
    for provider in PROVIDERS.values():
        if provider.modes and not provider.embedded:
            address = provider.base_url or "(a custom host)"
            if provider.retired_because:
                address = "(a custom host)"
            row = (provider.name, f"`{address}`", f"`{host_form(provider)}`")
            addresses.append((*row, f"<{provider.docs}>"))
        for setting in provider.settings:
            # A config may use either name; a request has one header, or one of two.
            names = filter(None, [setting.name, setting.alias])
            fields = ", ".join(f"`{name}`" for name in names)
            headers = ", ".join(f"`{name}`" for name in setting.headers)
            settings.append((provider.name, fields, headers, setting.default))
        if reason := provider.unsupported_because or provider.retired_because:
            without_text.append((provider.name, reason))
    return "\n\n".join(
        [
            "## Ways",
            _table(HEADINGS, map(astuple, rows())),
            "## Addresses",
            _table(("provider", "address", "custom host", "documentation"), addresses),
            "## Settings",
            _table(("provider", "field of a config", "header", "default"), settings),
            "## Without text",
            _table(("provider", "why"), without_text),
        ]
    )


def _table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    ruled = [headings, ["---"] * len(headings), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in ruled)
