"""The undocumented names of http.client, urllib3 and requests that this room uses.

urllib3's way of sending a request asks about proxies, retries and redirects, and
requests makes a jar of cookies for each answer. What takes their place here reaches
into them: all such names are listed, with the reason. Nothing else in the gateway may
use one, but for app/upstream/ssrf.py, whose name is in the list, too.

tests/test_private_names.py fails, by name, where a version of Python or of a library
lacks one, and where a private name is used that is not listed.
"""

from collections.abc import Mapping

PRIVATE_NAMES: Mapping[str, str] = {
    "http.client.HTTPConnection._buffer": "the request line and Host, before sending",
    "http.client.HTTPConnection.sock": "the socket, which a request is written to",
    "requests.models.Response._content": "false while the body has not been read",
    "requests.models.Response._content_consumed": "false while it can be streamed",
    "urllib3.connection.HTTPConnection._dns_host": "the host that is connected to",
    "urllib3.connection.HTTPConnection._new_conn": "resolves the host and connects",
    "urllib3.connection.port_by_scheme": "the port of a URL that names none",
    "urllib3.connectionpool.HTTPConnectionPool._get_conn": "a connection, maybe idle",
    "urllib3.connectionpool.HTTPConnectionPool._new_conn": "one that is not connected",
    "urllib3.connectionpool.HTTPConnectionPool._put_conn": "keeps it for the next call",
    "urllib3.poolmanager.PoolManager.connection_pool_kw": "arguments of all pools",
    "urllib3.poolmanager.PoolManager.key_fn_by_scheme": "the key of a pool",
    "urllib3.poolmanager.PoolManager.pool_classes_by_scheme": "the classes of pools",
    "urllib3.poolmanager.PoolManager.pools": "all pools, to be closed",
    "urllib3.util.url._encode_target": "encodes a path as urllib3 sends it",
}
