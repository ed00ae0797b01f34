"""Reads recorded answers of providers without the gateway's code: a second opinion.

It knows no types and no fields of the gateway, only the shapes in which the providers
document their answers. It is meant to be simple, not to be fast or robust.
"""

import base64
import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# Finish reasons of all shapes that mean that the budget was used up.
_LENGTH = {"length", "max_tokens", "MAX_TOKENS", "LENGTH"}


@dataclass
class Reading:
    """What stands in an answer: texts and reasons by index, and the counts."""

    texts: dict[int, str] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    def add(self, index: int, text: str | None, reason: str | None) -> None:
        self.texts[index] = self.texts.get(index, "") + (text or "")
        if reason:
            self.reasons[index] = "length" if reason in _LENGTH else "stop"

    def count(self, prompt_tokens: Any, completion_tokens: Any) -> None:
        if prompt_tokens is not None:
            self.prompt_tokens = int(prompt_tokens)
        if completion_tokens is not None:
            self.completion_tokens = int(completion_tokens)


def read(recorded: bytes, file: str) -> Reading:
    """The recording of this *file* name, whose suffix says how it is framed."""
    if file.endswith(".sse"):
        documents = _sse(recorded)
    elif file.endswith(".frames"):
        documents = _amazon_frames(recorded)
    else:
        documents = iter([json.loads(recorded)])
    reading = Reading()
    for document in documents:
        _read_document(document, reading)
    for index, text in reading.texts.items():
        # Reasoning that stands in the text, and whose end may be missing.
        visible = re.sub(r"\A\s*<think>.*?(</think>\s*|\Z)", "", text, flags=re.S)
        reading.texts[index] = visible
    return reading


def _sse(recorded: bytes) -> Iterator[Any]:
    for line in recorded.decode().splitlines():
        data = line.removeprefix("data:").strip()
        if line.startswith("data:") and data != "[DONE]":
            yield json.loads(data)


def _amazon_frames(recorded: bytes) -> Iterator[Any]:
    """Each payload under the name of its event."""
    at = 0
    while at < len(recorded):
        total, headers = struct.unpack_from("!II", recorded, at)
        named = recorded[at + 12 : at + 12 + headers]
        payload = json.loads(recorded[at + 12 + headers : at + total - 4])
        if "bytes" in payload:
            yield json.loads(base64.b64decode(payload["bytes"]))
        else:
            event = re.search(rb"event-type\x07..(\w+)", named, re.S)
            assert event
            yield {"amazon": event[1].split(b"\r")[0].decode(), **payload}
        at += total


def _read_document(document: Any, reading: Reading) -> None:
    for shape in (_openai, _anthropic, _google, _cohere, _converse, _invoke, _ollama):
        if shape(document, reading):
            return


def _openai(document: Any, reading: Reading) -> bool:
    if "choices" not in document:
        return False
    for choice in document["choices"]:
        message = choice.get("delta", choice.get("message"))
        text = choice["text"] if message is None else message.get("content")
        reading.add(choice["index"], text, choice.get("finish_reason"))
    if usage := document.get("usage"):
        prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
        details = usage.get("completion_tokens_details") or {}
        reasoning = details.get("reasoning_tokens", 0)
        # xAI counts reasoning beside the completion, and says so by the total.
        if usage["total_tokens"] == prompt + completion + reasoning:
            completion += reasoning
        reading.count(prompt, completion)
    return True


def _anthropic(document: Any, reading: Reading) -> bool:
    kind = document.get("type")
    if kind == "message":
        texts = [block.get("text", "") for block in document["content"]]
        reading.add(0, "".join(texts), document["stop_reason"])
        reading.count(*_pair(document["usage"], "input_tokens", "output_tokens"))
    elif kind == "message_start":
        usage = document["message"]["usage"]
        reading.count(*_pair(usage, "input_tokens", "output_tokens"))
    elif kind == "content_block_delta":
        reading.add(0, document["delta"].get("text"), None)
    elif kind == "message_delta" and "usage" in document:
        reading.add(0, "", document["delta"]["stop_reason"])
        reading.count(*_pair(document["usage"], "input_tokens", "output_tokens"))
    return str(kind).startswith(("message", "content_block", "ping")) and (
        "stop_reason" in json.dumps(document) or "delta" not in document
    )


def _google(document: Any, reading: Reading) -> bool:
    if "usageMetadata" not in document:
        return False
    for candidate in document.get("candidates", ()):
        parts = candidate["content"].get("parts", ())
        text = "".join(part["text"] for part in parts if not part.get("thought"))
        reading.add(candidate.get("index", 0), text, candidate.get("finishReason"))
    usage = document["usageMetadata"]
    prompt, answer = _pair(usage, "promptTokenCount", "candidatesTokenCount")
    if prompt is not None:
        reading.count(prompt, (answer or 0) + usage.get("thoughtsTokenCount", 0))
    return True


def _cohere(document: Any, reading: Reading) -> bool:
    kind = document.get("type")
    if kind == "content-delta":
        content = document["delta"]["message"]["content"]
        reading.add(0, content.get("text"), None)
    elif kind == "message-end":
        delta = document["delta"]
        reading.add(0, "", delta["finish_reason"])
        tokens = delta["usage"]["tokens"]
        reading.count(*_pair(tokens, "input_tokens", "output_tokens"))
    return "-" in str(kind)


def _converse(document: Any, reading: Reading) -> bool:
    event = document.get("amazon")
    if "stopReason" in document or event:
        texts = [document.get("delta", {}).get("text", "")]
        message = document.get("output", {}).get("message", {})
        texts += [part.get("text", "") for part in message.get("content", ())]
        reading.add(0, "".join(texts), document.get("stopReason"))
        if usage := document.get("usage"):
            reading.count(*_pair(usage, "inputTokens", "outputTokens"))
        return True
    return False


def _invoke(document: Any, reading: Reading) -> bool:
    results = (
        document.get("results")
        or document.get("outputs")
        or document.get("generations")
        or ([document] if "outputText" in document else [])
    )
    for result in results:
        text = result.get("outputText", result.get("text"))
        keys = ("completionReason", "stop_reason", "finish_reason")
        reading.add(0, text, next(filter(None, map(result.get, keys)), None))
        count = result.get("tokenCount", result.get("totalOutputTextTokenCount"))
        reading.count(document.get("inputTextTokenCount"), count)
    return bool(results)


def _ollama(document: Any, reading: Reading) -> bool:
    if "done" not in document:
        return False
    reading.add(0, document["response"], document.get("done_reason"))
    reading.count(*_pair(document, "prompt_eval_count", "eval_count"))
    return True


def _pair(counts: Any, prompt: str, completion: str) -> tuple[Any, Any]:
    return counts.get(prompt), counts.get(completion)
