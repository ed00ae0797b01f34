"""Reads OpenTelemetry's own variables: whether to trace, and in what batches.

Source: https://opentelemetry.io/docs/languages/sdk-configuration/otlp-exporter/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import __version__
from ..settings import BadSettings, Settings

if TYPE_CHECKING:
    from .traces import SpanObserver


@dataclass(frozen=True, slots=True)
class Batches:
    """How spans are exported: *queue* may wait, *size* go at once, every *delay* ms.

    Under gevent all streams wait while a batch is encoded: 8 ms for 128 spans, and four
    times that for OpenTelemetry's own default of 512.
    """

    queue: int = 2048
    size: int = 128
    delay: int = 5000

    @classmethod
    def of(cls, otel: Mapping[str, str]) -> Batches:
        """As the variables say. Raises BadSettings."""
        queue = _positive_int(otel, "OTEL_BSP_MAX_QUEUE_SIZE", cls().queue)
        size = _positive_int(otel, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", cls().size)
        delay = _positive_int(otel, "OTEL_BSP_SCHEDULE_DELAY", cls().delay)
        # The SDK refuses a batch that is larger than the queue.
        return cls(queue, min(size, queue), delay)


def _positive_int(otel: Mapping[str, str], name: str, default: int) -> int:
    # int() of a very long text raises; ten digits are more than enough.
    text = otel.get(name) or str(default)
    if not (text.isascii() and text.isdecimal() and int(text[:10]) > 0):
        raise BadSettings(f"{name}={text!r}: must be a whole number greater than 0")
    return int(text[:10])


def span_observer(settings: Settings) -> SpanObserver | None:
    """The observer that exports spans, or None without an endpoint.

    Raises BadSettings.
    """
    if not tracing_enabled(settings.otel):
        return None
    # Imported here: the package is an extra, and large.
    try:
        from .traces import SpanObserver
    except ImportError as e:
        raise BadSettings(
            "OTEL_EXPORTER_OTLP_ENDPOINT needs a package: pip install "
            "'lastword[otel]'; or OTEL_TRACES_EXPORTER=none, for no traces"
        ) from e
    batches = Batches.of(settings.otel)
    return SpanObserver(__version__, batches, prompts=settings.log_prompts)


# A variable for traces alone comes before the one for all signals.
_TRACES, _ALL = "OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"


def tracing_enabled(otel: Mapping[str, str]) -> bool:
    """Whether there is an endpoint to send spans to. Raises BadSettings."""
    exporter = otel.get("OTEL_TRACES_EXPORTER") or "otlp"
    if otel.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return False
    if not (otel.get(_TRACES + "ENDPOINT") or otel.get(_ALL + "ENDPOINT")):
        return False
    if exporter != "otlp":
        raise BadSettings(f"OTEL_TRACES_EXPORTER={exporter!r}: must be otlp or none")
    name = _TRACES if otel.get(_TRACES + "PROTOCOL") else _ALL
    # gRPC, the other protocol, would bring a C library with threads of its own, which
    # gevent cannot patch.
    protocol = otel.get(name + "PROTOCOL") or "http/protobuf"
    if protocol != "http/protobuf":
        raise BadSettings(
            f"{name}PROTOCOL={protocol!r}: must be http/protobuf, whose port is mostly "
            "4318"
        )
    return True
