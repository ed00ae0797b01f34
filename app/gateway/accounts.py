"""Writes every request into the ledger."""

from decimal import ROUND_CEILING, Decimal

from ..store.ledger import Ledger, Row
from .events import Finished, Hook

# As long as a column of the ledger is, and as large as a number in it can be.
_LONGEST = 200
_MOST = 2**62


def bookkeeper(ledger: Ledger) -> Hook:
    """What enters a request into *ledger*, when it is over."""
    return lambda finished: ledger.add(entry(finished))


def entry(finished: Finished) -> Row:
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
        "prompt_tokens": min(usage.prompt_tokens, _MOST),
        "completion_tokens": min(usage.completion_tokens, _MOST),
        "estimated": usage.estimated,
        "cost_micros": _micros(finished.cost),
        "trace_id": _text(trace.id),
    }


def _micros(cost: Decimal | None) -> int | None:
    """Dollars in whole millionths, rounded up."""
    if cost is None:
        return None
    return min(int((cost * 10**6).to_integral_value(ROUND_CEILING)), _MOST)


def _text(text: str) -> str:
    """As much of *text* as every database takes."""
    return text.replace("\0", "")[:_LONGEST]
