"""What all providers can do, in words: made of the declarations alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass

from .. import PROVIDERS
from ..declaration import Endpoint, ParamMapping

# The parameters that only shape the sampling, or name who asks.
_SHAPING = (
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
    """One way of one provider.

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
    """All ways of all providers; where a way differs by model, each of its families."""
    for provider in PROVIDERS.values():
        for way in provider.modes:
            for family, endpoint in provider.endpoints(way).items():
                named = f"{way} ({family})" if family else str(way)
                yield _row(provider.name, named, endpoint)


def _row(provider: str, way: str, endpoint: Endpoint) -> Row:
    params = endpoint.params
    return Row(
        provider=provider,
        way=way,
        parameters=_shaping(params),
        stop=_stop(params.get("stop")),
        logprobs=_logprobs(params.get("logprobs")),
        echo="itself" if "echo" in params else "gateway",
        suffix="yes" if "suffix" in params else "-",
        n=f"up to {endpoint.choices}" if "n" in params else "1",
        batch="any" if endpoint.batches else "1",
        usage="if asked" if "stream_options" in params else "if it comes",
    )


def _shaping(params: Mapping[str, ParamMapping]) -> str:
    lacking = [name for name in _SHAPING if name not in params]
    if len(lacking) <= len(_SHAPING) // 2:
        return "all but " + ", ".join(lacking) if lacking else "all"
    return ", ".join(name for name in _SHAPING if name in params) or "none"


def _stop(param: ParamMapping | None) -> str:
    if param is None:
        return "gateway"
    return "itself" if param.most is None else f"itself, up to {param.most}"


def _logprobs(param: ParamMapping | None) -> str:
    if param is None:
        return "-"
    return "yes" if param.high is None else f"up to {param.high:g}"


# As a page


def markdown() -> str:
    """All that is declared, as the generated half of docs/providers.md."""
    return "\n\n".join(
        [
            "## Ways",
            _table(HEADINGS, map(astuple, rows())),
            "## Addresses",
            _table(("provider", "address", "documentation"), _addresses()),
            "## Settings",
            _table(("provider", "field of a config", "header", "default"), _settings()),
            "## Without text",
            _table(("provider", "why"), _reasons()),
        ]
    )


def _table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    ruled = [headings, ["---"] * len(headings), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in ruled)


def _addresses() -> Iterator[Sequence[str]]:
    for provider in PROVIDERS.values():
        if provider.modes and not provider.retired and not provider.hosted:
            address = provider.base_url or "(a custom host)"
            yield provider.name, f"`{address}`", f"<{provider.docs}>"


def _settings() -> Iterator[Sequence[str]]:
    for provider in PROVIDERS.values():
        for setting in provider.settings:
            fields = filter(None, [setting.name, setting.alias])
            headers = ", ".join(f"`{name}`" for name in setting.headers)
            named = ", ".join(f"`{name}`" for name in fields)
            yield provider.name, named, headers, setting.default


def _reasons() -> Iterator[Sequence[str]]:
    for provider in PROVIDERS.values():
        if provider.absent or provider.retired:
            yield provider.name, provider.absent or provider.retired
