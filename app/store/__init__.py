"""What the gateway keeps: configs, virtual keys, gateway keys, model aliases.

SQLite in one file by default, PostgreSQL where many machines share it.
"""
