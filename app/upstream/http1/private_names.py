"""The undocumented names of http.client, urllib3 and requests that this room uses.

Their documented interfaces read a head line by line, a body in ways that hold streams
back, and make a jar of cookies for each answer. What takes their place here reaches
into them: all such names are listed, with the reason. Nothing else in the gateway may
use one, but for app/upstream/ssrf.py, whose name is in the list, too.

tests/test_private_names.py fails, by name, where a version of Python or of a library
lacks one, and where a private name is used that is not listed.
"""

from collections.abc import Mapping

PRIVATE_NAMES: Mapping[str, str] = {
    "http.client.HTTPConnection._buffer": "the request line and Host, before sending",
    "http.client.HTTPConnection.sock": "the socket, which a request is written to",
    "http.client.HTTPResponse._close_conn": "is called with the last byte of a body",
    "http.client.HTTPResponse._get_chunk_left": "finds the next chunk; checks its end",
    "http.client.HTTPResponse._read_and_discard_trailer": "reads what ends the chunks",
    "http.client.HTTPResponse._read_next_chunk_size": "reads the size of a chunk",
    "http.client.HTTPResponse._safe_read": "reads the line that ends a chunk",
    "http.client.HTTPResponse.begin": "reads the head, which we do instead",
    "http.client.HTTPResponse.chunk_left": "bytes that are left of the chunk",
    "http.client.HTTPResponse.chunked": "whether the body comes in chunks",
    "http.client.HTTPResponse.fp": "the buffered reader of the connection",
    "http.client.HTTPResponse.length": "bytes that are left of a body with a length",
    "http.client.HTTPResponse.will_close": "whether the connection ends with the body",
    "requests.models.Response._content": "false while the body has not been read",
    "requests.models.Response._content_consumed": "false while it can be streamed",
    "requests.structures.CaseInsensitiveDict._store": "the fields by lower-case name",
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
