"""The database: configs, virtual keys, gateway keys, model aliases, and the ledger.

SQLite in one file by default, PostgreSQL where several machines share it.
"""
