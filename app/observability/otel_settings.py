"""Whether requests are traced: what OpenTelemetry's own variables say of that.

Source: https://opentelemetry.io/docs/languages/sdk-configuration/otlp-exporter/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import __version__
from ..settings import BadSettings, Settings

if TYPE_CHECKING:
    from .traces import Traces


@dataclass(frozen=True, slots=True)
class Batches:
    """How spans are exported: *most* of them wait, *size* at once, every *delay* ms.

    Under gevent all else waits while they are encoded: 8 ms for 128, and four times
    that for OpenTelemetry's own 512.
    """

    most: int = 2048
    size: int = 128
    delay: int = 5000

    @classmethod
    def of(cls, otel: Mapping[str, str]) -> Batches:
        """As the variables say. Raises BadSettings."""
        most = _count(otel, "OTEL_BSP_MAX_QUEUE_SIZE", cls().most)
        size = _count(otel, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", cls().size)
        delay = _count(otel, "OTEL_BSP_SCHEDULE_DELAY", cls().delay)
        return cls(most, min(size, most), delay)


_TRACES, _ALL = "OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"


def traces(settings: Settings) -> Traces | None:
    """What makes spans of requests; None if nobody has said where to send them.

    Raises BadSettings for what cannot be done.
    """
    if not wanted(settings.otel):
        return None
    # An extra, which only those have who use it.
    try:
        from .traces import Traces
    except ImportError as e:
        raise BadSettings(
            f"{_ALL}ENDPOINT needs a package: pip install 'lastword[otel]'; or "
            "OTEL_TRACES_EXPORTER=none, for no traces"
        ) from e
    batches = Batches.of(settings.otel)
    return Traces(__version__, batches, prompts=settings.log_prompts)


def wanted(otel: Mapping[str, str]) -> bool:
    """Whether there is somewhere to send spans. Raises BadSettings."""
    exporter = otel.get("OTEL_TRACES_EXPORTER") or "otlp"
    if otel.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return False
    if not (otel.get(_TRACES + "ENDPOINT") or otel.get(_ALL + "ENDPOINT")):
        return False
    if exporter != "otlp":
        raise BadSettings(f"OTEL_TRACES_EXPORTER={exporter!r}: must be otlp or none")
    _check_protocol(otel)
    return True


def _check_protocol(otel: Mapping[str, str]) -> None:
    name = next((n for n in (_TRACES, _ALL) if otel.get(n + "PROTOCOL")), _ALL)
    protocol = otel.get(name + "PROTOCOL") or "http/protobuf"
    if protocol != "http/protobuf":
        raise BadSettings(
            f"{name}PROTOCOL={protocol!r}: must be http/protobuf, whose port is mostly "
            "4318"
        )


def _count(otel: Mapping[str, str], name: str, default: int) -> int:
    text = otel.get(name) or str(default)
    if not (text.isascii() and text.isdecimal() and int(text[:10]) > 0):
        raise BadSettings(f"{name}={text!r}: must be a whole number greater than 0")
    return int(text[:10])
