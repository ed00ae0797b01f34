"""The migrations of the tables, in order; Alembic applies them."""
