"""The sampling parameters of the embedded engine, besides the endpoint's own.

It is one process for all callers, so it gets an allow-list: the sampling parameters of
llama.cpp that are safe within the bounds here, each with its type and range. A value
out of bounds is refused; a parameter that is not listed is dropped and named. Tried on
the real engine, and left out: `n_probs` (every token with the whole
vocabulary), `dry_sequence_breakers` (each is compared with the whole vocabulary, half a
second for all callers), `grammar_triggers` (regular expressions of std::regex),
`id_slot`, `lora`, `response_fields`, `chat_template` and its kwargs. The windows of
penalties allocate memory for their whole length.

Source: tools/server/README.md and tools/server/server-schema.cpp in
https://github.com/ggml-org/llama.cpp
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from ..errors import InvalidRequest
from . import gbnf
from .declaration import ParamMapping, ParamMappings, same_named

# The bounds. Beyond them a single request was seen to slow down the streams of all
# other callers, or to end the process.

# Entries of logit_bias, each of which costs time for every token.
MAX_BIASES = 1024
# Tokens that penalties look back on. No context is meant to be longer here.
_MAX_WINDOW = 8192
# Samplers in a row.
_MAX_SAMPLERS = 16

# A JSON schema: bytes of its JSON, levels, values in it, references, characters of a
# pattern, and how large its counts may be.
MAX_SCHEMA_BYTES = 16_384
MAX_SCHEMA_DEPTH = 32
MAX_SCHEMA_VALUES = 2000
MAX_SCHEMA_REFERENCES = 64
MAX_PATTERN = 512
MAX_COUNT = 1000

# Not `infill`, which compares all tokens of the vocabulary with each other: 30 s.
_SAMPLERS = {
    "adaptive_p",
    "dry",
    "min_p",
    "penalties",
    "temperature",
    "top_k",
    "top_n_sigma",
    "top_p",
    "typ_p",
    "typical_p",
    "xtc",
}


# Returns what is wrong with a value, or None.
Check = Callable[[Any], str | None]


@dataclass(frozen=True, slots=True)
class _Number:
    """A check for a number in a range, or for an *integer*."""

    low: float
    high: float
    integer: bool = False

    def __call__(self, value: Any) -> str | None:
        # Not isinstance: True is an int to that, and a JSON true is no number.
        types = (int,) if self.integer else (int, float)
        if type(value) in types and self.low <= value <= self.high:
            return None
        kind = "an integer" if self.integer else "a number"
        return f"expected {kind} from {self.low} to {self.high}, not {_shown(value)}"


def _integer(low: int, high: int) -> _Number:
    return _Number(low, high, integer=True)


def _boolean(value: Any) -> str | None:
    if isinstance(value, bool):
        return None
    return f"expected a boolean, not {_shown(value)}"


def check_samplers(value: Any) -> str | None:
    if not isinstance(value, list) or len(value) > _MAX_SAMPLERS:
        return (
            f"expected an array of at most {_MAX_SAMPLERS} names, not {_shown(value)}"
        )
    for name in value:
        if not isinstance(name, str) or name not in _SAMPLERS:
            names = ", ".join(sorted(_SAMPLERS))
            return f"expected names of {names}, not {_shown(name)}"
    # A name that is repeated would be applied as often: it is not a mere duplicate.
    if len(set(value)) < len(value):
        return "expected every name once"
    return None


def check_grammar(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"expected a grammar in GBNF as text, not {_shown(value)}"
    # Checked by converting it. The result is cached for the request's body.
    try:
        gbnf.to_lark(value)
    except ValueError as e:
        return f"{e}"
    return None


def check_json_schema(value: Any) -> str | None:
    """Bounds only: the engine itself reads the schema, but without any."""
    # `true` allows any value, `false` none: both are schemas.
    if not isinstance(value, (dict, bool)):
        return f"expected a JSON schema, not {_shown(value)}"
    size = len(orjson.dumps(value))
    if size > MAX_SCHEMA_BYTES:
        return f"its JSON has {size} bytes, and at most {MAX_SCHEMA_BYTES} are allowed"
    return next(_schema_faults(value), None)


def _schema_faults(schema: Any) -> Iterator[str]:
    """What exceeds a bound, anywhere in *schema*."""
    # Level by level instead of recursively, so that depth costs no stack.
    level, values, references = [schema], 0, 0
    for _ in range(MAX_SCHEMA_DEPTH):
        # Every value counts, also those of keywords that the engine ignores.
        values += len(level)
        objects = [value for value in level if isinstance(value, dict)]
        for each in objects:
            references += "$ref" in each
            yield from _object_faults(each)
        inner = [v for each in objects for v in each.values()]
        inner += [v for value in level if isinstance(value, list) for v in value]
        level = inner
    if level:
        yield f"it is nested more than {MAX_SCHEMA_DEPTH} levels deep"
    if values > MAX_SCHEMA_VALUES:
        yield f"it has {values} values, and at most {MAX_SCHEMA_VALUES} are allowed"
    if references > MAX_SCHEMA_REFERENCES:
        yield (
            f"it has {references} references, and at most {MAX_SCHEMA_REFERENCES} are "
            "allowed"
        )


_COUNTS: tuple[str, ...] = ("minItems", "maxItems", "minLength", "maxLength")
_COUNTS += ("minProperties", "maxProperties")


def _object_faults(schema: Mapping[str, Any]) -> Iterator[str]:
    for name in _COUNTS:
        count = schema.get(name, 0)
        # A property may have such a name, and is a schema then.
        if isinstance(count, (int, float)) and not 0 <= count <= MAX_COUNT:
            yield f"its {name} is {_shown(count)}, and at most {MAX_COUNT} is allowed"
    by_pattern = schema.get("patternProperties")
    patterns = [schema.get("pattern")]
    patterns += by_pattern if isinstance(by_pattern, dict) else ()
    longest = max((len(p) for p in patterns if isinstance(p, str)), default=0)
    if longest > MAX_PATTERN:
        yield (
            f"a pattern in it has {longest} characters, and at most {MAX_PATTERN} are "
            "allowed"
        )
    # `#/$defs/name` is within the schema; all else names another document.
    reference = schema.get("$ref", "#")
    if isinstance(reference, str) and not reference.startswith("#"):
        yield f"it refers to {_shown(reference)}, which is not within it"


def check_response_format(value: Any) -> str | None:
    if not isinstance(value, dict):
        return f"expected an object, not {_shown(value)}"
    kind = value.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        return (
            "expected a type of text, json_object or json_schema, not "
            f"{_shown(kind)}"
        )
    # OpenAI puts the schema at `json_schema.schema`, llama.cpp also takes `schema`.
    named = value.get("json_schema")
    inner = named.get("schema") if isinstance(named, dict) else None
    schemas = [s for s in (value.get("schema"), inner) if s is not None]
    if kind == "json_schema" and not schemas:
        return "a type of json_schema needs json_schema.schema"
    return check_json_schema(value)


def check_logit_bias(value: Any) -> str | None:
    if len(value) <= MAX_BIASES:
        return None
    return f"it has {len(value)} entries, and at most {MAX_BIASES} are allowed"


_CHECKS: Mapping[str, Check] = {
    "adaptive_decay": _Number(0, 0.99),
    "adaptive_target": _Number(-1, 1),
    "cache_prompt": _boolean,
    "dry_allowed_length": _integer(0, _MAX_WINDOW),
    "dry_base": _Number(1, 100),
    "dry_multiplier": _Number(0, 100),
    "dry_penalty_last_n": _integer(0, _MAX_WINDOW),
    "dynatemp_exponent": _Number(0, 10),
    "dynatemp_range": _Number(0, 10),
    "grammar": check_grammar,
    "ignore_eos": _boolean,
    "json_schema": check_json_schema,
    "min_keep": _integer(0, 10_000),
    "min_p": _Number(0, 1),
    "mirostat": _integer(0, 2),
    "mirostat_eta": _Number(0, 100),
    "mirostat_tau": _Number(0, 100),
    "repeat_last_n": _integer(0, _MAX_WINDOW),
    "repeat_penalty": _Number(0.01, 100),
    "samplers": check_samplers,
    "top_k": _integer(0, 1_000_000),
    "top_n_sigma": _Number(-1, 100),
    "typical_p": _Number(0, 1),
    "xtc_probability": _Number(0, 1),
    "xtc_threshold": _Number(0, 1),
}

# The parameters by their names. Only the chat endpoint has `response_format`.
PARAMS: ParamMappings = same_named(
    *_CHECKS, grammar=ParamMapping("grammar", convert=gbnf.to_lark)
)
CHAT_PARAMS: ParamMappings = {**PARAMS, **same_named("response_format")}

_ALL_CHECKS: Mapping[str, Check] = {
    **_CHECKS,
    "logit_bias": check_logit_bias,
    "response_format": check_response_format,
}


def check(params: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for the first of *params* that is out of bounds."""
    for name, value in params.items():
        if name in _ALL_CHECKS and (complaint := _ALL_CHECKS[name](value)):
            raise _invalid(name, complaint)
    # Each of them becomes the grammar of the answer, and the engine has one.
    formats = [n for n in ("grammar", "json_schema", "response_format") if n in params]
    if len(formats) > 1:
        raise _invalid(formats[1], f"it cannot be combined with '{formats[0]}'")


def _invalid(name: str, complaint: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid '{name}' for the embedded engine: {complaint}.",
        param=name,
        code="invalid_value",
    )


def _shown(value: Any) -> str:
    """A value in a complaint, in short."""
    if isinstance(value, (list, dict)):
        kind = "an array" if isinstance(value, list) else "an object"
        return f"{kind} of {len(value)}"
    text = str(value)
    return repr(text[:40]) if isinstance(value, str) else text[:40]
