"""What OpenAI's endpoint refuses itself, checked before a call and in its own words.

Other servers take more: a temperature above 2, dozens of stop sequences, a max_tokens
of -1. So the schema of the body (api/request/schemas.py) allows whatever any target
may take, and these rules belong to OpenAI's endpoints, in its own cloud and in Azure's.

Source: CreateCompletionRequest in https://github.com/openai/openai-openapi. It says 5
for logprobs; the real endpoint took 20.
"""

from collections.abc import Iterable, Mapping

from ..core.parameter_aliases import has_no_limit_alias
from ..core.parameter_errors import (
    INTEGER,
    OBJECT,
    check_range,
    length_error,
    type_error,
)
from ..core.request import CompletionRequest
from .declaration import ParamMapping, ParamMappings

MAX_STOPS, MAX_BIAS = 4, 100

# Lowest and highest value, in the order in which the endpoint checks them.
INTEGER_RANGES: Mapping[str, tuple[int, int]] = {
    "best_of": (0, 20),
    "logprobs": (0, 20),
    "max_tokens": (0, 2**63 - 1),
    "n": (1, 128),
}
DECIMAL_RANGES: Mapping[str, tuple[int, int]] = {
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "temperature": (0, 2),
}
# Hosts of its shape have the same ranges, as far as they say, but drop what is beyond
# them; engines have ranges of their own.
RANGED_PARAMS: ParamMappings = {
    **{name: ParamMapping(name, *bounds) for name, bounds in DECIMAL_RANGES.items()},
    "logit_bias": ParamMapping(
        "logit_bias",
        takes=lambda biases: all(abs(bias) <= MAX_BIAS for bias in biases.values()),
    ),
    "stop": ParamMapping("stop", max_items=MAX_STOPS),
}

_NAMES = (
    "best_of",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_tokens",
    "n",
    "presence_penalty",
    "seed",
    "stop",
    "temperature",
)
# What an engine that follows the ranges may take in another form all the same.
_RANGES_OF_ENGINE = tuple(n for n in _NAMES if n not in ("max_tokens", "seed", "stop"))


def check(request: CompletionRequest) -> None:
    """Raise InvalidRequest for the first parameter that OpenAI would refuse."""
    for name in _NAMES:
        if name == "max_tokens" and has_no_limit_alias(request.params):
            # A parameter of other servers, which is left out.
            continue
        if name in request.rewritten:
            expected = OBJECT if name == "logit_bias" else INTEGER
            raise type_error(name, expected, request.rewritten[name])
        if name == "stop" and len(request.stops) > MAX_STOPS:
            raise length_error(name, MAX_STOPS, request.stops)
        check_ranges(request, (name,))


def check_ranges(
    request: CompletionRequest, names: Iterable[str] = _RANGES_OF_ENGINE
) -> None:
    """Raise InvalidRequest for the first number of *names* that is out of its range."""
    for name in names:
        value = request.params.get(name)
        if value is None:
            continue
        if name in INTEGER_RANGES:
            check_range(*INTEGER_RANGES[name], value, name, "integer")
        elif name in DECIMAL_RANGES:
            check_range(*DECIMAL_RANGES[name], value, name, "decimal")
        elif name == "logit_bias":
            for key, bias in value.items():
                check_range(-MAX_BIAS, MAX_BIAS, bias, f"{name}.{key[:40]}", "decimal")
