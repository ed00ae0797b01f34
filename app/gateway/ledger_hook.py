"""The ledger's hook: the row of each finished request."""

import json

from ..store.ledger import Ledger, Row
from .request_record import (
    MAX_ATTEMPTS,
    MAX_COUNT,
    MAX_ERROR_CODE,
    MAX_TEXT,
    Hook,
    RequestRecord,
)


def ledger_hook(ledger: Ledger) -> Hook:
    """The hook that writes each finished request into *ledger*."""
    return lambda record: ledger.add(ledger_row(record))


def ledger_row(record: RequestRecord) -> Row:
    """The row of one request. It holds neither prompt nor completion."""
    micros, code = record.cost_micros, record.error_code
    return {
        "began": record.began,
        "took": record.took,
        "first": record.first,
        "ended": str(record.end),
        "status": record.status,
        "key": record.trace.key,
        "config": record.trace.config,
        "target": _text(record.target_path),
        "provider": record.provider,
        "virtual_key": record.virtual_key,
        "model": _text(record.model),
        "stream": record.stream,
        "cache": str(record.trace.cache),
        "attempts": len(record.trace.attempts),
        # Upstreams have sent counts that no column of integers can hold.
        "prompt_tokens": min(record.prompt_tokens, MAX_COUNT),
        "completion_tokens": min(record.completion_tokens, MAX_COUNT),
        "estimated": record.usage.estimated,
        "cost_micros": None if micros is None else min(micros, MAX_COUNT),
        "trace_id": _text(record.trace_id),
        "via": record.via or None,
        "error": None if code is None else _text(code[:MAX_ERROR_CODE]),
        "story": story(record),
    }


def story(record: RequestRecord) -> str | None:
    """What the columns have no room for, as JSON: attempts, dropped parameters, alias.

    None for most requests, which went to one target as they were. Error messages of
    providers are left out, since they may quote the prompt.
    """
    if len(record.trace.attempts) < 2 and not (record.dropped or record.alias):
        return None
    tries = [
        (_text(each.path), each.provider, each.status, each.after, each.milliseconds)
        for each in record.attempts
    ]
    dropped = [_text(name) for name in record.dropped[:MAX_ATTEMPTS]]
    alias = _text(record.alias) or ""
    return json.dumps({"tries": tries, "dropped": dropped, "alias": alias})


def _text(text: str | None) -> str | None:
    """*text* as every database takes it: PostgreSQL refuses NUL in a text."""
    return None if text is None else text.replace("\0", "")[:MAX_TEXT]
