"""Settings from the environment, and the page that lists them."""

import re
from pathlib import Path

import pytest

from app.settings import BadSettings, Settings, setting_fields, variable

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "settings.md").read_text()
ROW = re.compile(r"^\| `([A-Z][A-Z_]+)` \| (.*?) \|", re.M)

# Read by gunicorn, or by its configuration file.
OF_THE_SERVER = {"WEB_CONCURRENCY"}
# Internal variables between the processes of the gateway.
INTERNAL = {"GATEWAY_LISTEN"}


def test_defaults_without_variables() -> None:
    assert Settings.from_environ({}) == Settings()


def test_values_have_their_types() -> None:
    settings = Settings.from_environ(
        {
            "GATEWAY_DEFAULT_MAX_TOKENS": "",
            "GATEWAY_IDLE_TIMEOUT": "0.5",
            "GATEWAY_ENGINE": "1",
            "GATEWAY_CORS_ORIGINS": "https://a.example, https://b.example",
            "TRUSTED_CUSTOM_HOSTS": "vllm,10.0.0.0/8",
        }
    )

    assert settings.default_max_tokens is None
    assert settings.idle_timeout == 0.5
    assert settings.engine is True
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert settings.trusted_custom_hosts == ("vllm", "10.0.0.0/8")


def test_own_name_precedes_portkeys() -> None:
    both = {"GATEWAY_TRUSTED_CUSTOM_HOSTS": "a", "TRUSTED_CUSTOM_HOSTS": "b"}

    assert Settings.from_environ(both).trusted_custom_hosts == ("a",)


def test_unset_and_empty_trusted_hosts_differ() -> None:
    unset = Settings.from_environ({})
    empty = Settings.from_environ({"GATEWAY_TRUSTED_CUSTOM_HOSTS": ""})

    assert unset.trusted_custom_hosts is None and unset.named_custom_hosts == ()
    assert empty.trusted_custom_hosts == ()


def test_all_invalid_values_are_named() -> None:
    bad = {
        "GATEWAY_IDLE_TIMEOUT": "soon",
        "GATEWAY_MAX_BODY_BYTES": "0",
        "GATEWAY_ENGINE": "maybe",
        "GATEWAY_CONNECT_TIMEOUT": "nan",
        "GATEWAY_TRUSTED_PROXIES": "127.0.0.1,nginx",
    }
    with pytest.raises(BadSettings) as error:
        Settings.from_environ(bad)

    assert all(f"{name}={value!r}" in str(error.value) for name, value in bad.items())


def test_repr_hides_keys() -> None:
    assert "secret" not in repr(Settings(engine_key="secret"))


def test_page_lists_exactly_the_settings() -> None:
    listed = [name for name, _ in ROW.findall(PAGE)]

    assert sorted(listed) == sorted({*map(variable, setting_fields()), *OF_THE_SERVER})


def test_page_lists_gunicorn_variables() -> None:
    read = re.findall(
        r"environ[.\w]*[(\[]\s*\"([A-Z_]+)\"", (ROOT / "gunicorn.conf.py").read_text()
    )

    assert read and set(read) - INTERNAL <= {name for name, _ in ROW.findall(PAGE)}


def test_page_lists_alternative_names() -> None:
    others = [f.metadata["alias"] for f in setting_fields() if f.metadata["alias"]]

    assert others and all(f"`{name}`" in PAGE for name in others)


def test_page_shows_the_defaults() -> None:
    rows = dict(ROW.findall(PAGE))
    for setting in setting_fields():
        default = setting.default
        shown = ",".join(default) if isinstance(default, tuple) else default
        if isinstance(default, bool):
            shown = int(default)
        if isinstance(default, float):
            shown = f"{default:g}"
        expected = f"`{shown}`" if shown not in ("", None) else "(none)"
        assert rows[variable(setting)] == expected, setting.name
