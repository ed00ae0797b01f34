"""Configs with their versions, virtual keys, gateway keys, aliases."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    revisions = op.create_table(
        "revisions", sa.Column("number", sa.Integer, nullable=False)
    )
    op.bulk_insert(revisions, [{"number": 0}])
    op.create_table(
        "own_secrets",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "configs",
        sa.Column("id", sa.String(80), primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("updated", sa.Integer, nullable=False),
    )
    op.create_table(
        "config_versions",
        sa.Column(
            "config",
            sa.String(80),
            sa.ForeignKey("configs.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("created", sa.Integer, nullable=False),
    )
    op.create_table(
        "virtual_keys",
        sa.Column("id", sa.String(80), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("updated", sa.Integer, nullable=False),
    )
    op.create_table(
        "gateway_keys",
        sa.Column("name", sa.String(80), primary_key=True),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("hint", sa.String(12), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("updated", sa.Integer, nullable=False),
    )
    op.create_table(
        "aliases",
        sa.Column("model", sa.String(200), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("updated", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    for table in (
        "aliases",
        "gateway_keys",
        "virtual_keys",
        "config_versions",
        "configs",
        "own_secrets",
        "revisions",
    ):
        op.drop_table(table)
