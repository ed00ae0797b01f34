"""Settings, read once from the environment. docs/settings.md lists them.

A field of Settings is an environment variable: its metadata has the function that
parses the text, which raises ValueError.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from .core.prices import Price, prices
from .core.proxies import trusted_proxies


class BadSettings(ValueError):
    """Every setting that cannot be used, in one message."""


# Parsers: each turns the text of a variable into a value, or raises ValueError with the
# end of a sentence that begins with the variable's name.


def _seconds(text: str) -> float:
    value = float(text)
    # The upper bound, 30 years, also refuses `inf`; `nan` fails every comparison.
    if not 0 < value < 1e9:
        raise ValueError("must be a number of seconds greater than 0")
    return value


def _seconds_or_none(text: str) -> float | None:
    # 0 turns off what would happen after that time.
    return _seconds(text) if text.strip() not in ("", "0") else None


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError("must be a whole number greater than 0")
    return value


def _count_or_none(text: str) -> int | None:
    return _count(text) if text.strip() else None


def _switch(text: str) -> bool:
    words = {"1": True, "on": True, "true": True}
    words |= {"0": False, "off": False, "false": False, "": False}
    if text.strip().lower() not in words:
        raise ValueError("must be 1 or 0")
    return words[text.strip().lower()]


def _auth(text: str) -> str:
    if text not in ("", "keys", "open"):
        raise ValueError("must be keys, open, or empty")
    return text


def _log_format(text: str) -> str:
    if text not in ("console", "json"):
        raise ValueError("must be console or json")
    return text


def _secrets(text: str) -> str:
    if any(len(key.strip()) < 16 for key in text.split(",") if key.strip()):
        raise ValueError("must be secrets of 16 characters or more, newest first")
    return text


def _token(text: str) -> str:
    if text and len(text.strip()) < 16:
        raise ValueError("must be 16 characters or more")
    return text.strip()


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _prices(text: str) -> tuple[Price, ...]:
    """Prices as JSON, or in the JSON file of this name."""
    text = text.strip()
    if not text:
        return ()
    try:
        document = text if text.startswith("[") else Path(text).read_text()
        return prices(json.loads(document))
    except OSError as e:
        raise ValueError(f"cannot be read: {e.strerror}") from e


def _setting(
    default: Any, read: Callable[[str], Any], *, alias: str | None = None
) -> Any:
    """A field that is read from GATEWAY_<its name>, else from the variable *alias*."""
    return field(default=default, metadata={"read": read, "alias": alias})


def _secret(read: Callable[[str], str]) -> Any:
    """A text that is not part of the repr, nor of an error message or the log."""
    return field(default="", repr=False, metadata={"read": read, "alias": None})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of an operator. Durations are in seconds, sizes in bytes.

    Without *trusted_custom_hosts*, custom hosts on this machine are allowed as long as
    no other machine can connect. *otel* are OpenTelemetry's own variables, by name.
    """

    default_max_tokens: int | None = _setting(100, _count_or_none)
    max_body_bytes: int = _setting(10 * 2**20, _count)
    max_answer_bytes: int = _setting(64 * 2**20, _count)
    max_event_bytes: int = _setting(16 * 2**20, _count)
    connect_timeout: float = _setting(5.0, _seconds)
    first_byte_timeout: float = _setting(600.0, _seconds)
    idle_timeout: float = _setting(120.0, _seconds)
    heartbeat: float | None = _setting(15.0, _seconds_or_none)
    drain_timeout: float = _setting(60.0, _seconds)
    max_requests: int | None = _setting(None, _count_or_none)
    fanout: int = _setting(16, _count)
    max_choices: int = _setting(4096, _count)
    error_frame_choices: bool = _setting(False, _switch)
    cors_origins: tuple[str, ...] = _setting((), _names)
    trusted_custom_hosts: tuple[str, ...] | None = _setting(
        None, _names, alias="TRUSTED_CUSTOM_HOSTS"
    )
    trusted_proxies: tuple[str, ...] = _setting((), trusted_proxies)
    ca_bundle: str = _setting("", str)
    bind: str = _setting("127.0.0.1:8787", str)
    auth: str = _setting("", _auth)
    byok: bool = _setting(True, _switch)
    default_config: str = _setting("", str)
    instance: str = _setting("instance", str)
    database_url: str = _secret(str)
    secret_key: str = _secret(_secrets)
    redis_url: str = _secret(str)
    cache_bytes: int = _setting(256 * 2**20, _count)
    prices: tuple[Price, ...] = _setting((), _prices)
    log_format: str = _setting("console", _log_format)
    log_requests: bool = _setting(True, _switch)
    log_prompts: bool = _setting(False, _switch)
    metrics: bool = _setting(True, _switch)
    metrics_token: str = _secret(str)
    docs: bool = _setting(True, _switch)
    ledger: bool = _setting(True, _switch)
    ledger_days: int | None = _setting(400, _count_or_none)
    console_token: str = _secret(_token)
    store_ttl: float = _setting(5.0, _seconds)
    store_grace: float = _setting(300.0, _seconds)
    engine: bool = _setting(False, _switch)
    engine_model: str = _setting("", str)
    engine_threads: int | None = _setting(None, _count_or_none)
    engine_slots: int = _setting(4, _count)
    engine_context: int = _setting(2048, _count)
    engine_url: str = _setting("", str)
    engine_key: str = _secret(str)
    otel: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def named_custom_hosts(self) -> tuple[str, ...]:
        """The internal hosts that stored configs and virtual keys may use."""
        return self.trusted_custom_hosts or ()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """The settings in *environ*. Raises BadSettings, which names every bad one."""
        otel = {name: environ[name] for name in environ if name.startswith("OTEL_")}
        values: dict[str, Any] = {"otel": otel}
        # All are collected, so that an operator corrects them in one go.
        problems = []
        for setting in setting_fields():
            # An alias is a variable of the Portkey gateway that means the same.
            names = (variable(setting), setting.metadata["alias"])
            name = next((name for name in names if name and name in environ), None)
            if name is None:
                continue
            try:
                values[setting.name] = setting.metadata["read"](environ[name])
            except ValueError as e:
                value = f"={environ[name]!r}" if setting.repr else ""
                problems.append(f"{name}{value}: {e}")
        if problems:
            raise BadSettings("; ".join(problems))
        return cls(**values)


def setting_fields() -> list[Field[Any]]:
    """The settings with a GATEWAY_ variable: all but OpenTelemetry's."""
    return [each for each in fields(Settings) if "read" in each.metadata]


def variable(setting: Field[Any]) -> str:
    """The name of a setting's environment variable."""
    return f"GATEWAY_{setting.name.upper()}"
