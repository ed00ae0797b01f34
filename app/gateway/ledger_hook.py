"""Writes every request into the ledger."""

import json
from decimal import ROUND_CEILING, Decimal

from ..store.ledger import Ledger, Row
from .request_record import Hook, RequestRecord

# As long as a column of the ledger is, and as large as a number in it can be.
_LONGEST = 200
_MOST = 2**62


def ledger_hook(ledger: Ledger) -> Hook:
    """What enters a request into *ledger*, when it is over."""
    return lambda finished: ledger.add(ledger_row(finished))


def ledger_row(finished: RequestRecord) -> Row:
    """The row of one request. It holds no prompt and no text."""
    trace, usage = finished.trace, finished.usage
    target = trace.target
    return {
        "began": finished.began,
        "took": finished.took,
        "first": finished.first,
        "ended": str(finished.end),
        "status": finished.status,
        "key": trace.key,
        "config": trace.config,
        "target": _text(target.path) if target else None,
        "provider": target.provider if target else None,
        "virtual_key": target.virtual_key if target else None,
        "model": _text(finished.model),
        "stream": finished.stream,
        "cache": str(trace.cache),
        "attempts": len(trace.attempts),
        "prompt_tokens": min(usage.paid_prompt_tokens, _MOST),
        "completion_tokens": min(usage.completion_tokens, _MOST),
        "estimated": usage.estimated,
        "cost_micros": _micros(finished.cost),
        "trace_id": _text(trace.id),
        "via": finished.via or None,
        "error": _error(finished),
        "story": story(finished),
    }


def _error(finished: RequestRecord) -> str | None:
    code = finished.error.code if finished.error else None
    return _text(str(code))[:80] if code is not None else None


# Tries, and names of parameters, that are written down of one request.
_TOLD = 32


def story(finished: RequestRecord) -> str | None:
    """What the row of a request does not say of its way, as JSON.

    Most have gone straight to one target, and have none. What a provider has said is
    left out: it may hold what was asked.
    """
    trace = finished.trace
    alias = trace.target.alias if trace.target else ""
    if len(trace.attempts) < 2 and not (finished.dropped or alias):
        return None
    tries = [
        (_text(each.path), each.provider, each.status, each.after, each.milliseconds)
        for each in trace.attempts[-_TOLD:]
    ]
    dropped = [_text(name) for name in finished.dropped[:_TOLD]]
    told = {"tries": tries, "dropped": dropped, "alias": _text(alias)}
    return json.dumps(told)


def _micros(cost: Decimal | None) -> int | None:
    """Dollars in whole millionths, rounded up."""
    if cost is None:
        return None
    return min(int((cost * 10**6).to_integral_value(ROUND_CEILING)), _MOST)


def _text(text: str) -> str:
    """As much of *text* as every database takes."""
    return text.replace("\0", "")[:_LONGEST]
