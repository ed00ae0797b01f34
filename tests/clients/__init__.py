"""Real clients of the legacy endpoint; only their base URL is changed.

Each runs in its own environment, from `requirements/<client>.txt`, as a script
`with_<client>.py <address>` that prints its results as one JSON object. A script
named after its client alone would be imported in the client's place.
"""
