"""Commands for configs, keys and aliases, with both stores."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.settings import Settings
from app.store import database, factory
from app.store.tables import gateway_keys

from .cli_runner import Operator
from .conftest import Caller
from .upstream import Upstream

CANARY = "sk-canary-of-a-provider"


@pytest.fixture
def operator(stored: Settings) -> Operator:
    return Operator(stored)


@pytest.fixture
def sealed(operator: Operator) -> Operator:
    """An operator with a virtual key."""
    operator(
        *("virtual-keys", "create", "openai-1", "--provider", "openai"),
        *("--key-from", "-", "--model", "gpt-4o"),
        stdin=CANARY + "\n",
    )
    return operator


# Virtual keys


def test_virtual_key_secret_is_never_shown(sealed: Operator) -> None:
    listed = sealed("virtual-keys", "list")
    shown = sealed("virtual-keys", "show", "openai-1")

    assert "openai-1  openai    gpt-4o" in listed
    assert "api_key" in shown
    assert CANARY not in listed + shown + str(sealed.json("virtual-keys", "list"))


@pytest.mark.parametrize("source", ["file", "env", "prompt"])
def test_secret_sources_of_virtual_key(
    operator: Operator, tmp_path: Path, source: str
) -> None:
    file = tmp_path / "key"
    file.write_text(CANARY + "\n")
    argument = {"file": f"file:{file}", "env": "env:SECRET", "prompt": "prompt"}[source]
    create = (
        "virtual-keys",
        "create",
        "v",
        "--provider",
        "groq",
        "--key-from",
        argument,
    )
    printed = operator(*create, stdin=CANARY + "\n", SECRET=CANARY)

    assert CANARY not in printed
    assert settings_of(operator, "v") == {"api_key": CANARY}


def settings_of(operator: Operator, id: str) -> dict[str, Any]:
    store = factory.repository(operator.settings)
    settings = store.settings(store.contents().sealed[id])
    store.engine.dispose()
    return settings


def test_secret_and_plain_settings_differ(operator: Operator) -> None:
    words = ("virtual-keys", "create", "aws", "--provider", "bedrock")
    plain = ("--setting", "aws_region=eu-west-1", "--setting", "aws_access_key_id=AK")
    hidden = "aws_secret_access_key"
    assert "is a secret" in operator.refused(
        *words, *plain, "--setting", f"{hidden}={CANARY}"
    )
    operator(*words, *plain, "--secret-from", f"{hidden}=-", stdin=CANARY)

    assert settings_of(operator, "aws") == {
        "aws_region": "eu-west-1",
        "aws_access_key_id": "AK",
        "aws_secret_access_key": CANARY,
    }


@pytest.mark.parametrize(
    "words, message",
    [
        (("1x", "--provider", "openai"), "is no id"),
        (("x", "--provider", "nobody"), "nobody"),
        (("x", "--provider", "jina", "--key-from", "-"), "no text completions"),
        (
            ("x", "--provider", "openai", "--key-from", "-", "--setting", "q=1"),
            "has no q",
        ),
        (("x", "--provider", "openai", "--key-from", "somewhere"), "expected - for"),
        (("x", "--provider", "openai", "--key-from", "env:ABSENT"), "is not set"),
        (
            (*("x", "--provider", "openai", "--key-from", "-"), "--param", "five"),
            "name=value",
        ),
        (
            (
                *("x", "--provider", "openai", "--key-from", "-"),
                *("--custom-host", "http://10.0.0.1"),
            ),
            "private",
        ),
    ],
)
def test_invalid_virtual_key_is_refused(
    operator: Operator, words: tuple[str, ...], message: str
) -> None:
    output = operator.refused("virtual-keys", "create", *words, stdin="k\n")

    assert message in output
    assert operator.json("virtual-keys", "list") == []


def test_virtual_key_replaced_only_with_flag(sealed: Operator) -> None:
    again = ("virtual-keys", "create", "openai-1", "--provider", "groq")
    key = ("--key-from", "-")

    assert "already" in sealed.refused(*again, *key, stdin="k")
    sealed(*again, *key, "--replace", stdin="k")
    assert sealed.json("virtual-keys", "list")[0]["provider"] == "groq"


def test_virtual_key_disabled_enabled_deleted(sealed: Operator) -> None:
    for word, disabled in (("disable", True), ("enable", False)):
        sealed("virtual-keys", word, "openai-1")
        assert sealed.json("virtual-keys", "list")[0]["disabled"] is disabled
    assert settings_of(sealed, "openai-1") == {"api_key": CANARY}
    sealed("virtual-keys", "delete", "openai-1")

    assert "there is no openai-1" in sealed.refused("virtual-keys", "show", "openai-1")


# Gateway keys


def test_gateway_key_is_printed_once(operator: Operator) -> None:
    text = operator("keys", "create", "job").strip()

    assert re.fullmatch(r"lw-[\w-]{32}", text)
    assert text not in operator("keys", "list") + operator("keys", "show", "job")
    assert operator.json("keys", "list")[0]["key"] == f"lw-...{text[-4:]}"


def test_gateway_key_stores_options(operator: Operator) -> None:
    operator(
        *("keys", "create", "job", "--config", "main", "--allow-model", "gpt-*"),
        *("--allow-virtual-key", "a", "--allow-virtual-key", "b"),
        *("--expires", "2027-01-31"),
    )
    (key,) = operator.json("keys", "list")

    assert key["allowed"] == {"models": ["gpt-*"], "virtual_keys": ["a", "b"]}
    assert (key["config"], key["expires"]) == ("main", "2027-01-31 00:00")


def test_gateway_key_disabled_enabled_deleted(operator: Operator) -> None:
    operator("keys", "create", "job")
    for word, disabled in (("disable", True), ("enable", False)):
        operator("keys", word, "job")
        assert operator.json("keys", "list")[0]["disabled"] is disabled
    assert "there is job already" in operator.refused("keys", "create", "job")
    operator("keys", "delete", "job")

    assert operator.json("keys", "list") == []
    assert "there is no job" in operator.refused("keys", "disable", "job")


@pytest.mark.parametrize("when", ["tomorrow", "2027-13-01", "5y"])
def test_invalid_expiry_is_refused(operator: Operator, when: str) -> None:
    assert repr(when) in operator.refused("keys", "create", "job", "--expires", when)


# Limits


@pytest.fixture
def limited(sealed: Operator) -> Operator:
    """An operator with a gateway key and a virtual key, both with limits."""
    two = ("--limit", "requests_per_minute=100", "--limit", "money_per_month=20.50")
    sealed("keys", "create", "job", *two)
    create = ("virtual-keys", "create", "v", "--provider", "groq", "--key-from", "-")
    sealed(*create, *two, stdin=CANARY)
    return sealed


BOTH = [("keys", "job"), ("virtual-keys", "v")]


@pytest.mark.parametrize("group, name", BOTH)
def test_key_limits_are_listed(limited: Operator, group: str, name: str) -> None:
    output = "requests_per_minute=100 money_per_month=20.50"

    assert output in limited(group, "list") and output in limited(group, "show", name)
    assert limited.json(group, "show", name)[0]["limits"] == {
        "requests_per_minute": 100,
        "money_per_month": "20.50",
    }


@pytest.mark.parametrize("group, name", BOTH)
def test_limits_of_stored_key_change(limited: Operator, group: str, name: str) -> None:
    before = limited.json(group, "show", name)[0]
    limited(group, "limit", name, "requests_per_minute=5", "tokens_per_day=0")
    limited(group, "limit", name, "money_per_month=")

    limits = {"requests_per_minute": 5, "tokens_per_day": 0}
    assert limited.json(group, "show", name) == [before | {"limits": limits}]
    assert settings_of(limited, "v") == {"api_key": CANARY}
    assert "there is no other" in limited.refused(
        group, "limit", "other", "tokens_per_day=1"
    )


@pytest.mark.parametrize(
    "limit, message",
    [
        ("tokens_per_year=5", "tokens_per_year is no limit; the limits are"),
        ("tokens_per_day=-1", "tokens_per_day must be a whole number"),
        ("tokens_per_day=1.5", "tokens_per_day must be a whole number"),
        ("tokens_per_day=" + "9" * 20, "tokens_per_day must be a whole number"),
        ("money_per_day=much", "money_per_day must be an amount of US dollars"),
        ("money_per_day=NaN", "money_per_day must be an amount of US dollars"),
        ("tokens_per_day", "expected name=value"),
    ],
)
def test_invalid_limit_is_refused(limited: Operator, limit: str, message: str) -> None:
    make = ("virtual-keys", "create", "x", "--provider", "groq", "--key-from", "-")
    before = limited.json("keys", "list"), limited.json("virtual-keys", "list")

    assert message in limited.refused("keys", "create", "x", "--limit", limit)
    assert message in limited.refused(*make, "--limit", limit, stdin=CANARY)
    assert message in limited.refused("keys", "limit", "job", limit)
    assert before == (
        limited.json("keys", "list"),
        limited.json("virtual-keys", "list"),
    )


def test_key_of_later_version_not_merged(
    limited: Operator,
) -> None:
    text = "keys: {job: {limits: {tokens_per_day: 5}}}"
    _write_later("job", limited.settings)

    assert limited.json("keys", "show", "job")[0]["disabled"]
    for words in (
        ("keys", "enable", "job"),
        ("keys", "limit", "job", "tokens_per_day=1"),
    ):
        assert "job cannot be read by this version" in limited.refused(*words)
    assert "job cannot be read by this version" in limited.refused("export")
    assert limited("apply", "-", stdin=text) == "~ key job\n"
    assert limited.json("keys", "show", "job")[0]["limits"] == {"tokens_per_day": 5}
    assert not limited.json("keys", "show", "job")[0]["disabled"]


def _write_later(name: str, settings: Settings) -> None:
    """Give the key *name* a limit of a later version."""
    engine = factory.database(settings)
    with database.writing(engine) as connection:
        connection.execute(
            update(gateway_keys)
            .where(gateway_keys.c.name == name)
            .values(document='{"limits": {"requests_per_century": 5}}')
        )
    engine.dispose()


# Configs


def test_config_versions_and_rollback(sealed: Operator) -> None:
    first = {"virtual_key": "openai-1"}
    second = "virtual_key: openai-1\noverride_params: {model: gpt-4}\n"
    assert "version 1" in sealed(
        "configs", "create", "main", "-", stdin=json.dumps(first)
    )
    assert "version 2" in sealed("configs", "create", "main", "-", stdin=second)

    assert json.loads(sealed("configs", "show", "main", "--version", "1")) == first
    assert "version 3" in sealed("configs", "rollback", "main", "1")
    assert json.loads(sealed("configs", "show", "main")) == first
    assert [v["version"] for v in sealed.json("configs", "history", "main")] == [
        3,
        2,
        1,
    ]
    assert "there is no version 9" in sealed.refused("configs", "rollback", "main", "9")
    sealed("configs", "delete", "main")
    assert sealed.json("configs", "list") == []


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"strategy": {"mode": "random"}}', "Invalid 'mode' value"),
        ("[1, 2]", "Expected object"),
        ("{", "neither JSON nor YAML"),
        ('{"provider": "openai", "api_key": "sk-x"}', "holds secrets, at api_key"),
        (
            '{"strategy": {"mode": "single"}, "targets": [{"provider": "bedrock", '
            '"aws_secret_access_key": "x"}]}',
            "at targets.0.aws_secret_access_key",
        ),
    ],
)
def test_invalid_config_is_not_stored(
    operator: Operator, text: str, message: str
) -> None:
    assert message in operator.refused("configs", "create", "main", "-", stdin=text)
    assert operator.json("configs", "list") == []


def test_config_secrets_move_to_virtual_keys(operator: Operator) -> None:
    targets = [
        {"provider": "openai", "api_key": CANARY, "weight": 2},
        {"provider": "bedrock", "awsSecretAccessKey": "s", "awsRegion": "eu-west-1"},
        {"provider": "local"},
    ]
    config = {"strategy": {"mode": "loadbalance"}, "targets": targets}
    operator("configs", "create", "m", "-", "--move-secrets", stdin=json.dumps(config))

    assert json.loads(operator("configs", "show", "m"))["targets"] == [
        {"weight": 2, "virtual_key": "m-1"},
        {"virtual_key": "m-2"},
        {"provider": "local"},
    ]
    assert settings_of(operator, "m-1") == {"api_key": CANARY}
    assert settings_of(operator, "m-2") == {
        "aws_secret_access_key": "s",
        "aws_region": "eu-west-1",
    }


# Aliases


def test_alias_created_listed_deleted(operator: Operator) -> None:
    operator(
        *("aliases", "create", "gpt-3.5-turbo-instruct", "gpt-4o-mini"),
        *("--virtual-key", "openai-1", "--shutdown-date", "2026-09-28"),
    )
    assert operator.json("aliases", "list") == [
        {
            "for": "gpt-3.5-turbo-instruct",
            "model": "gpt-4o-mini",
            "virtual_key": "openai-1",
            "provider": None,
            "shutdown_date": "2026-09-28",
        }
    ]
    operator("aliases", "delete", "gpt-3.5-turbo-instruct")
    assert operator.json("aliases", "list") == []


# Hosts


LOCAL = "http://127.0.0.1:9/v1"
CREATE = ("virtual-keys", "create", "v", "--key-from", "-", "--provider")


@pytest.mark.parametrize(
    "trusted, value",
    [
        (None, "127.0.0.1"),
        ((), "127.0.0.1"),
        (("vllm", "10.0.0.0/8"), "vllm,10.0.0.0/8,127.0.0.1"),
    ],
)
def test_untrusted_host_is_not_stored(
    stored: Settings, trusted: tuple[str, ...] | None, value: str
) -> None:
    """Not even where callers may name it, since stored records outlive that setting."""
    operator = Operator(replace(stored, trusted_custom_hosts=trusted))
    words = (*CREATE, "openai", "--custom-host", LOCAL)
    assert f"GATEWAY_TRUSTED_CUSTOM_HOSTS={value} " in operator.refused(
        *words, stdin="k"
    )
    named = Operator(replace(stored, trusted_custom_hosts=tuple(value.split(","))))
    named(*words, stdin="k")

    assert named.json("virtual-keys", "list")[0]["custom_host"] == LOCAL


def test_config_with_untrusted_host_not_stored(
    stored: Settings,
) -> None:
    operator = Operator(replace(stored, trusted_custom_hosts=None))
    document = json.dumps({"provider": "openai", "custom_host": LOCAL})
    output = operator.refused("configs", "create", "main", "-", stdin=document)
    assert "GATEWAY_TRUSTED_CUSTOM_HOSTS lists 127.0.0.1" in output
    for text in (
        f"configs: {{main: {document}}}",
        f"virtual_keys: {{v: {{provider: openai, custom_host: '{LOCAL}'}}}}",
    ):
        output = operator.refused("apply", "-", stdin=text)
        assert "GATEWAY_TRUSTED_CUSTOM_HOSTS" in output and "127.0.0.1" in output

    assert operator.json("configs", "list") == operator.json("virtual-keys", "list")


def test_rollback_checks_config_again(stored: Settings) -> None:
    named = Operator(stored)
    for document in (
        {"provider": "openai", "custom_host": LOCAL},
        {"provider": "x-ai"},
    ):
        named("configs", "create", "main", "-", stdin=json.dumps(document))
    nobody = Operator(replace(stored, trusted_custom_hosts=None))

    assert "127.0.0.1" in nobody.refused("configs", "rollback", "main", "1")
    assert len(named.json("configs", "history", "main")) == 2
    assert "version 3" in named("configs", "rollback", "main", "1")


URLS = {
    "custom host": lambda url: ("openai", "--custom-host", url),
    "huggingface": lambda url: (
        "huggingface",
        *("--setting", f"huggingface_base_url={url}"),
    ),
    "azure": lambda url: ("azure-ai", "--setting", f"azure_foundry_url={url}"),
    "authority": lambda url: (
        "azure-openai",
        *("--setting", f"azure_entra_authority={url.removeprefix('https://')}"),
    ),
    "service account": lambda url: (
        *("vertex-ai", "--secret-from", "vertex_service_account_json=env:ACCOUNT"),
    ),
}


@pytest.mark.parametrize(
    "rest", ["/x?", "?", "/x#", "/x;", "/x%2Fy", "/x%5c", "/x/../y", "/x\\y"]
)
@pytest.mark.parametrize("kind", URLS)
def test_stored_base_url_ends_in_path(operator: Operator, kind: str, rest: str) -> None:
    url = f"https://api.example.com{rest}"
    account = json.dumps({"token_uri": url, "client_email": "x", "private_key": "x"})
    output = operator.refused(*CREATE, *URLS[kind](url), stdin="k", ACCOUNT=account)

    assert "must not hold" in output
    assert operator.json("virtual-keys", "list") == []


@pytest.mark.parametrize("kind", URLS)
def test_stored_internal_url_is_refused(operator: Operator, kind: str) -> None:
    url = "https://168.63.129.16"
    account = json.dumps({"token_uri": url, "client_email": "x", "private_key": "x"})
    output = operator.refused(*CREATE, *URLS[kind](url), stdin="k", ACCOUNT=account)

    assert "168.63.129.16 for the gateway" in output
    assert operator.json("virtual-keys", "list") == []


def test_plain_http_token_uri_is_refused(operator: Operator) -> None:
    account = json.dumps({"token_uri": "http://oauth2.googleapis.com/token"})
    words = URLS["service account"]("")
    output = operator.refused(*CREATE, *words, stdin="k", ACCOUNT=account)

    assert "must start with https://" in output


# Applying a file


DECLARED = """
virtual_keys:
  openai-1:
    provider: openai
    api_key: "${OPENAI}"
    custom_host: "HOST"
    limits: {tokens_per_minute: 90000}
  aws:
    provider: bedrock
    aws_access_key_id: AK
    aws_secret_access_key: file:SECRET
configs:
  main: {virtual_key: openai-1, retry: {attempts: 2}}
keys:
  nightly:
    config: main
    expires: 2027-01-31
    limits: {requests_per_minute: 60, money_per_month: 20.5}
    aliases: {ada: {model: babbage, shutdown_date: 2024-01-04}}
aliases:
  text-davinci-003:
    {virtual_key: openai-1, model: gpt-4o-mini, shutdown_date: 2024-01-04}
"""


@pytest.fixture
def declared(tmp_path: Path, upstream: Upstream) -> str:
    secret = tmp_path / "secret"
    secret.write_text("of-aws\n")
    file = tmp_path / "store.yaml"
    text = DECLARED.replace("SECRET", str(secret)).replace("HOST", upstream.url)
    file.write_text(text)
    return str(file)


def test_apply_is_idempotent(operator: Operator, declared: str) -> None:
    output = operator("apply", declared, OPENAI=CANARY)
    again = operator("apply", declared, OPENAI=CANARY)

    lines = [line for line in output.splitlines() if not line.startswith("  lw-")]
    assert lines == [
        "+ virtual key openai-1",
        "+ virtual key aws",
        "+ config main",
        "+ key nightly",
        "+ alias text-davinci-003",
    ]
    assert again == "nothing to change\n" and CANARY not in output
    assert settings_of(operator, "openai-1") == {"api_key": CANARY}
    assert settings_of(operator, "aws")["aws_secret_access_key"] == "of-aws"


def test_apply_changes_differences_only(operator: Operator, declared: str) -> None:
    operator("apply", declared, OPENAI=CANARY)
    file = Path(declared)
    text = file.read_text().replace("attempts: 2", "attempts: 3")
    file.write_text(text.replace("money_per_month: 20.5", "money_per_month: 30"))

    assert operator("apply", declared, OPENAI="sk-another-one") == (
        "~ virtual key openai-1\n~ config main\n~ key nightly\n"
    )
    assert [v["version"] for v in operator.json("configs", "history", "main")] == [2, 1]


def test_apply_dry_run_changes_nothing(operator: Operator, declared: str) -> None:
    output = operator("apply", declared, "--dry-run", OPENAI=CANARY)

    assert "+ config main" in output and "lw-" not in output
    assert operator.json("configs", "list") == operator.json("keys", "list") == []


def test_apply_prune_deletes_the_rest(operator: Operator, declared: str) -> None:
    operator("apply", declared, OPENAI=CANARY)
    Path(declared).write_text("configs: {}\n")
    assert operator("apply", declared) == "nothing to change\n"

    output = operator("apply", declared, "--prune")
    assert output.splitlines() == [
        "- alias text-davinci-003",
        "- key nightly",
        "- config main",
        "- virtual key aws",
        "- virtual key openai-1",
    ]
    assert operator.json("virtual-keys", "list") == []


@pytest.mark.parametrize(
    "text, message",
    [
        ("keyss: {}", "the file has no 'keyss'; it has virtual_keys, configs"),
        ("- keys", "the file: expected names with values"),
        ("keys: [a]", "keys: expected names with values"),
        ("keys: {job: 5}", "key job: expected names with values"),
        ("keys: {job: {confg: main}}", "key job has no 'confg'; it has config"),
        ("keys: {job: {name: x}}", "key job has no 'name'"),
        ("keys: {job: {limits: {a: 1}}}", "key job: a is no limit"),
        (
            "virtual_keys: {v: {provider: openai, limits: {tokens_per_day: x}}}",
            "virtual key v: tokens_per_day must be a whole number",
        ),
        ("keys: {job: {limits: 5}}", "key job: limits: expected names with values"),
        ("keys: {job: {allowed: {model: [a]}}}", "key job: allowed has no 'model'"),
        ("keys: {job: {allowed: {models: 'a*'}}}", "allowed models must be a list"),
        ("keys: {job: {aliases: {m: {}}}}", "alias m lacks its model"),
        ("virtual_keys: {v: {api_key: x}}", "virtual key v lacks its provider"),
        ("aliases: {m: {modle: n}}", "alias m has no 'modle'"),
        ("aliases: {m: {model: n, shutdown_date: soon}}", "'soon'"),
        ("virtual_keys: {v: {provider: openai, api_key: '${ABSENT}'}}", "is not set"),
        ("configs: {main: {provider: openai, api_key: sk-x}}", "holds a secret"),
        ("configs: {main: {provider: nobody}}", "Invalid 'provider' value"),
        ("virtual_keys: {v: {provider: openai, qwert: 1}}", "has no qwert"),
        ("a: [", "no YAML"),
    ],
)
def test_apply_invalid_file_changes_nothing(
    operator: Operator, text: str, message: str
) -> None:
    assert message in operator.refused("apply", "-", stdin=text)
    for kind in ("virtual-keys", "configs", "keys", "aliases"):
        assert operator.json(kind, "list") == []


def test_export_round_trip_without_secrets(
    operator: Operator, declared: str, tmp_path: Path
) -> None:
    operator("apply", declared, OPENAI=CANARY)
    out = tmp_path / "export.yaml"
    operator("export", str(out))
    text = out.read_text()

    assert CANARY not in text and "of-aws" not in text and "lw-" not in text
    secrets = {
        "OPENAI_1_API_KEY": CANARY,
        "AWS_AWS_SECRET_ACCESS_KEY": "of-aws",
        "AWS_AWS_ACCESS_KEY_ID": "AK",
    }
    assert operator("apply", str(out), **secrets) == "nothing to change\n"


def test_applied_key_authenticates(
    operator: Operator,
    declared: str,
    call: Callable[..., Caller],
    upstream: Upstream,
) -> None:
    output = operator("apply", declared, OPENAI=CANARY)
    match = re.search(r"lw-\S+", output)
    assert match
    names = ("instance", "database_url", "secret_key", "store_ttl")
    caller = call(upstream, **{n: getattr(operator.settings, n) for n in names})
    caller.headers = {"Authorization": f"Bearer {match[0]}"}

    assert caller.complete(model="text-davinci-003").status_code == 200
    assert upstream.last.json["model"] == "gpt-4o-mini"
    assert upstream.last.headers["authorization"] == f"Bearer {CANARY}"


# Secrets, database and backups


def test_secret_rotation_by_setting(sealed: Operator) -> None:
    both = Operator(
        Settings(
            instance=sealed.settings.instance,
            database_url=sealed.settings.database_url,
            secret_key="a newer secret of ours,a secret of the tests",
        )
    )
    key = sealed("keys", "create", "job").strip()
    assert "2 secrets are sealed anew" in both("secrets", "rotate")
    new = Operator(
        Settings(
            instance=sealed.settings.instance,
            database_url=sealed.settings.database_url,
            secret_key="a newer secret of ours",
        )
    )

    assert settings_of(new, "openai-1") == {"api_key": CANARY}
    assert new.json("keys", "list")[0]["key"].endswith(key[-4:])
    assert "another GATEWAY_SECRET_KEY" in sealed.refused(
        "virtual-keys", "show", "openai-1"
    )


def test_secret_rotation_in_file(settings: Settings) -> None:
    operator = Operator(settings)
    create = ("virtual-keys", "create", "v", "--provider", "groq", "--key-from", "-")
    operator(*create, stdin=CANARY)
    path = Path(settings.instance) / "secret.key"
    before = path.read_text()
    operator("secrets", "rotate")

    assert path.read_text() != before and len(path.read_text().split()) == 1
    assert settings_of(operator, "v") == {"api_key": CANARY}


def test_db_upgrade_creates_tables(operator: Operator) -> None:
    assert "up to date" in operator("db", "upgrade")
