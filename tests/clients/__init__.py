"""Real clients of the legacy endpoint, with nothing changed but their base URL.

Each runs in an environment of its own, made of `requirements/<client>.txt`, as a
script `with_<client>.py <address>` that prints what it got as one JSON object. The
scripts are not named after their clients alone: they would be imported instead.
"""
