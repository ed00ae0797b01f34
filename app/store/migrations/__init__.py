"""How the tables came about, step by step; applied by Alembic."""
