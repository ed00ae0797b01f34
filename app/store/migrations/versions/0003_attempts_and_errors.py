"""The ledger's mode, error and attempts of each request."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("requests", sa.Column("via", sa.String(10)))
    op.add_column("requests", sa.Column("error", sa.String(80)))
    op.add_column("requests", sa.Column("story", sa.Text))


def downgrade() -> None:
    for column in ("story", "error", "via"):
        op.drop_column("requests", column)
