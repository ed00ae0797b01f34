"""The URL of an endpoint on a custom host, in whatever form its user wrote the host.

The same host is written as `http://host`, `http://host/v1`, with a slash behind it, or
with the whole path, as documentation shows it: `http://host/v1/chat/completions`. All
lead to one URL:

- The endpoint's own path at the end is removed, and put there again.
- A path that the endpoint has itself (`/v1beta/models/...`, `/v1/completions`) replaces
  a version at the end: such an endpoint exists in one version only.
- An endpoint without a version (`/completions`) is below the version that was written,
  wherever it is in the path (`/api/paas/v4`, `/v1/openai`). Without any, it is below
  the path that its API has on the provider's own host (`/v1`, `/openai/v1`).
- The rest of the path is the host's own, and stays.
"""

import re

# What may stand for the version of an API: `v1`, `v1beta`, `v1beta1`, `beta`.
_VERSION = r"(?:v[0-9]+(?:(?:alpha|beta)[0-9]*)?|beta)"
_ANY_VERSION = re.compile(rf"/{_VERSION}(?=/|$)")
_LAST_VERSION = re.compile(rf"/{_VERSION}$")
# A path with a version of its own: `/v1/completions`, `/api/v1/completions`.
_STARTS_WITH_VERSION = re.compile(rf"(?:/api)?/{_VERSION}/")

# Endpoints at the end of a URL, of all APIs that the gateway speaks. `/chat` is one
# behind a version, Cohere's, or in Ollama's `/api`.
_ENDPOINT = re.compile(
    r"(?:/(?:chat|fim)/completions|/completions|/messages|/complete|/infill"
    r"|/generate(?:_stream)?|(?<=/v[0-9])/chat|(?<=/api)/chat"
    r"|/models/[^/]+:[A-Za-z]+|/model/[^/]+/(?:converse|invoke)[a-z-]*|/run/@.+)$"
)

_CHAT_ENDPOINT = re.compile(r"/(?:chat|fim)/completions$")


def endpoint_url(
    host: str, path: str, api_path: str = "", other_api_paths: tuple[str, ...] = ()
) -> str:
    """The URL of the endpoint at *path* of the custom *host*.

    *api_path* is what the provider's API has before the endpoints, if they have no
    version themselves. *other_api_paths* are those of further APIs of the same server,
    of which its users may have written one.
    """
    server, written = split_path(host)
    base, endpoint = _split_endpoint(written)
    if other_api_paths or _STARTS_WITH_VERSION.match(path):
        base = _without_api_path(base, path, other_api_paths)
    elif not endpoint and not _ANY_VERSION.search(base):
        base = join_paths(base, api_path)
    return server + join_paths(base, path)


def split_path(url: str) -> tuple[str, str]:
    """Scheme and host of *url*, and its path without a slash at the end."""
    scheme, separator, rest = url.strip().partition("://")
    host, slash, path = rest.partition("/")
    return scheme + separator + host, (slash + path).rstrip("/")


def join_paths(base: str, path: str) -> str:
    """Both, where what ends *base* and begins *path* stands once."""
    # Nobody writes half of `/chat/completions`: a `/chat` before it is the host's own.
    segments = _CHAT_ENDPOINT.sub("", path.partition("?")[0]).split("/")
    for count in range(len(segments), 1, -1):
        start = "/".join(segments[:count])
        if base.endswith(start):
            return base + path.removeprefix(start)
    return base + path


def has_version(path: str) -> bool:
    """Whether a segment of *path* is the version of an API."""
    return bool(_ANY_VERSION.search(path))


def _split_endpoint(path: str) -> tuple[str, str]:
    """*path* before the endpoint at its end, and that; "" if there is none."""
    match = _ENDPOINT.search(path)
    return (path[: match.start()], match[0]) if match else (path, "")


def _without_api_path(base: str, path: str, api_paths: tuple[str, ...]) -> str:
    """*base* without the path of another API than that of *path*, at its end."""
    if join_paths(base, path) != base + path:
        return base
    for api_path in api_paths:
        if base.endswith(api_path):
            return base.removesuffix(api_path)
    # An endpoint of another version is another endpoint.
    return _LAST_VERSION.sub("", base) if _STARTS_WITH_VERSION.match(path) else base
