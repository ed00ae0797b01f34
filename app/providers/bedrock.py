"""Amazon Bedrock: Converse for every model, InvokeModel for those that take plain text.

Sources, below https://docs.aws.amazon.com/bedrock/latest/:
APIReference/API_runtime_Converse.html, APIReference/API_runtime_ConverseStream.html
"""

from typing import Any

from ..core.completion import Completion
from ..core.routing import CompletionMode, Target
from ..core.sse import Event
from .bedrock_invoke import INVOKE
from .bedrock_runtime import (
    CONVERSE_COUNTS,
    completion_of,
    parse_usage,
    post,
    raise_event_error,
)
from .declaration import (
    Endpoint,
    ParamMapping,
    Provider,
    Setting,
    StreamReader,
    as_list,
)
from .parsing import error_bodies
from .parsing.answer_fields import counts_in
from .parsing.json_answers import JSONStreamReader, read_whole
from .protocols import openai_chat
from .upstream_request import HTTPRequest, UpstreamRequest, bearer

_ACCESS_KEYS = ("aws_access_key_id", "aws_secret_access_key")


def bedrock_auth(target: Target) -> dict[str, str]:
    """An API key of Bedrock's own; with access keys the request is signed instead."""
    return {} if target.has(_ACCESS_KEYS) else bearer(target)


def call(upstream: UpstreamRequest) -> HTTPRequest:
    """The request of Converse: the prompt is the only message."""
    message = {
        "role": "user",
        "content": [{"text": openai_chat.user_message(upstream)}],
    }
    body = {"messages": [message], **upstream.body()}
    if upstream.target.bridge.system:
        body["system"] = [{"text": upstream.target.bridge.system}]
    return post(
        upstream, "converse-stream" if upstream.request.stream else "converse", body
    )


def completion(body: bytes, upstream: UpstreamRequest) -> Completion:
    """A whole answer of Converse as a completion."""

    def read(document: dict[str, Any]) -> Completion:
        blocks = document["output"]["message"]["content"]
        # Blocks of reasoning have `reasoningContent` in place of `text`.
        text = "".join(block.get("text") or "" for block in blocks)
        usage = parse_usage(counts_in(document.get("usage")), CONVERSE_COUNTS)
        return completion_of(upstream, text, document.get("stopReason"), usage)

    return read_whole(body, read, upstream)


def stream_reader(upstream: UpstreamRequest) -> StreamReader:
    """The events of ConverseStream as chunks of a completion."""

    # The body is a sequence of binary frames (upstream/event_decoders.py), each with a
    # name and a JSON payload: messageStart, then for each block contentBlockStart,
    # -Delta and -Stop, then messageStop (`stopReason`), and last metadata (`usage`). So
    # the usage follows the finish reason. What an event is can be seen from its fields,
    # and those that are not read here count as empty: reasoning is `reasoningContent`
    # in a delta, not `text`; `p`, which every event has, is padding.
    # Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/
    # API_runtime_ConverseStream.html

    def payload(event: Event) -> bytes:
        raise_event_error(event)
        return event.data

    def read_chunk(document: dict[str, Any]) -> Completion:
        error_bodies.raise_in_band_error(document)
        text = (document.get("delta") or {}).get("text") or ""
        usage = parse_usage(counts_in(document.get("usage")), CONVERSE_COUNTS)
        return completion_of(upstream, text, document.get("stopReason"), usage)

    return JSONStreamReader(upstream, read_chunk, payload=payload)


_CONVERSE = Endpoint(
    params={
        "max_tokens": ParamMapping("inferenceConfig.maxTokens"),
        "temperature": ParamMapping("inferenceConfig.temperature", high=1),
        "top_p": ParamMapping("inferenceConfig.topP"),
        # As on Anthropic's own API, its models refuse white space alone.
        # Source: https://github.com/continuedev/continue/issues/1660
        "stop": ParamMapping(
            "inferenceConfig.stopSequences",
            takes=lambda stop: bool(stop.strip()),
            convert=as_list,
        ),
        # Converse has only what all models share. Others pass in this object, by their
        # names in the model's own API.
        "top_k": ParamMapping("additionalModelRequestFields.top_k"),
    },
    # Claude refuses both together; see anthropic.py.
    exclusive_params=(("temperature", "top_p"),),
    check=openai_chat.check,
    call=call,
    completion=completion,
    reader=stream_reader,
)
BEDROCK = Provider(
    name="bedrock",
    docs="https://docs.aws.amazon.com/bedrock/latest/APIReference/"
    "API_runtime_Converse.html",
    base_url="https://bedrock-runtime.{aws_region}.amazonaws.com",
    modes={CompletionMode.CHAT: _CONVERSE, CompletionMode.NATIVE: INVOKE},
    auth=bedrock_auth,
    signer="aws",
    credential_settings=(_ACCESS_KEYS,),
    settings=(
        Setting("aws_access_key_id"),
        Setting("aws_secret_access_key", secret=True),
        Setting("aws_session_token", secret=True),
        Setting("aws_region", default="us-east-1"),
    ),
    error=error_bodies.error,
)
