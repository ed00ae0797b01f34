"""The ledger of requests."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "requests",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
        ),
        sa.Column("began", sa.Float, nullable=False, index=True),
        sa.Column("took", sa.Float, nullable=False),
        sa.Column("first", sa.Float),
        sa.Column("ended", sa.String(10), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("key", sa.String(80), index=True),
        sa.Column("config", sa.String(80)),
        sa.Column("target", sa.String(200)),
        sa.Column("provider", sa.String(40)),
        sa.Column("virtual_key", sa.String(80)),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("stream", sa.Boolean, nullable=False),
        sa.Column("cache", sa.String(10), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("cost_micros", sa.BigInteger),
        sa.Column("trace_id", sa.String(200), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("requests")
