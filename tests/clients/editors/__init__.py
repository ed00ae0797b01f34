"""The bodies that Continue and SillyTavern send to a completions endpoint.

They are written here by hand from what the programs' sources say: which fields they
set, and to what. Neither program runs.
"""
