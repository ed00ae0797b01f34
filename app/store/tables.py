"""The tables. Times are in Unix seconds; JSON is text, written sorted."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

# One row: the number of changes so far, by which workers notice new ones.
revisions = Table("revisions", metadata, Column("number", Integer, nullable=False))

# The gateway's own secrets, sealed: the pepper of the hashes of gateway keys.
own_secrets = Table(
    "own_secrets",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)

# Old versions stay in `config_versions`, for `flask configs rollback`; `version` is the
# number of the one in use.
configs = Table(
    "configs",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("updated", Integer, nullable=False),
)

config_versions = Table(
    "config_versions",
    metadata,
    Column("config", ForeignKey("configs.id", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("document", Text, nullable=False),
    Column("created", Integer, nullable=False),
)

# `sealed` has the settings of a virtual key, with its secrets; `document` the rest.
virtual_keys = Table(
    "virtual_keys",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("document", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("updated", Integer, nullable=False),
)

# `hash` is the keyed hash of the key's text, which itself is not stored. `hint` is its
# last four characters, by which people recognise a key.
gateway_keys = Table(
    "gateway_keys",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("hint", String(12), nullable=False),
    Column("document", Text, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("updated", Integer, nullable=False),
)

aliases = Table(
    "aliases",
    metadata,
    Column("model", String(200), primary_key=True),
    Column("document", Text, nullable=False),
    Column("updated", Integer, nullable=False),
)

# The ledger: one row for each request. Times are in seconds, `first` and `took` from
# `began` on; `cost_micros` is in millionths of a US dollar, and null without a price.
# `story` is JSON, for requests that were not answered by the first try of one target:
# see `_ledger_entry` in ledger_queries.py.
requests = Table(
    "requests",
    metadata,
    # In SQLite only INTEGER PRIMARY KEY counts up by itself; it has 64 bits as well.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("began", Float, nullable=False, index=True),
    Column("took", Float, nullable=False),
    Column("first", Float),
    Column("ended", String(10), nullable=False),
    Column("status", Integer, nullable=False),
    Column("key", String(80), index=True),
    Column("config", String(80)),
    Column("target", String(200)),
    Column("provider", String(40)),
    Column("virtual_key", String(80)),
    Column("model", String(200), nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("cache", String(10), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("cost_micros", BigInteger),
    Column("trace_id", String(200), nullable=False),
    Column("via", String(10)),
    Column("error", String(80)),
    Column("story", Text),
)
