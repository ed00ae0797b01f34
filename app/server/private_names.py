"""The undocumented names of gunicorn and gevent that the server relies on.

gunicorn offers hooks for the life of a process, but none for the head of a request, an
error that it answers itself, or a connection that it closes. Where a method can be
overridden, a subclass does so (gevent_worker.py, thread_worker.py, request_head.py);
the rest is replaced by `replace`. Every such name is listed here, and looked up when
the server starts: a version of a library that lacks one must not serve half of it.
tests/test_private_names.py fails where one is used that is not listed.
"""

import importlib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from typing import Any

# By dotted name; the reason is part of the message when one is missing.
GUNICORN: Mapping[str, str] = {
    "gunicorn.http.message.Message.max_buffer_headers": "bounds the size of a head",
    "gunicorn.http.message.Request.set_body_reader": "is called once a head is read",
    "gunicorn.http.parser.RequestParser.mesg_class": "the class of requests",
    "gunicorn.util.http_date": "is called for the header Date of each answer",
    "gunicorn.util.write_error": "answers a request that is not HTTP",
    "gunicorn.workers.SUPPORTED_WORKERS": "the classes by the names of option -k",
    "gunicorn.workers.base.Worker.handle_exit": "handles SIGTERM in a worker",
    "gunicorn.workers.base.Worker.load_wsgi": "loads the application after the fork",
    "gunicorn.workers.base.Worker.wsgi": "the application, once it is loaded",
}

GEVENT_WORKER: Mapping[str, str] = {
    "gevent.hub.Hub.loop": "runs a callback outside of any greenlet",
    "gevent.socket.socket.sendall": "sends each piece of an answer",
    "gunicorn.workers.base_async.AsyncWorker.worker_connections": "bounds requests",
    "gunicorn.workers.ggevent.GeventWorker.patch": "patches the standard library",
    "gunicorn.workers.ggevent.GeventWorker.timeout_ctx": "bounds an idle wait",
}

THREAD_WORKER: Mapping[str, str] = {
    "gunicorn.util.close_graceful": "closes a connection after its last answer",
    "gunicorn.workers.base.Worker.alive": "is false once a worker is to end",
    "gunicorn.workers.base.Worker.sockets": "the listening sockets",
    "gunicorn.workers.gthread.ThreadWorker.set_accept_enabled": "stops accepting",
}

# What app/api and app/gateway/clients rely on in the server below the application.
WSGI: Mapping[str, str] = {
    "gunicorn.http.errors.ParseException": "is raised while a body is read",
    "gunicorn.http.wsgi.Response.write": "sends at once; start_response returns it",
    "gunicorn.http.wsgi.default_environ": "has the socket, as gunicorn.socket",
    "werkzeug.wrappers.Response.get_wsgi_headers": "completes headers, which ours are",
}

PRIVATE_NAMES: Mapping[str, str] = {
    **GUNICORN,
    **GEVENT_WORKER,
    **THREAD_WORKER,
    **WSGI,
}


class IncompatibleLibrary(RuntimeError):
    """An installed library lacks a name that the gateway relies on."""


def missing_names(names: Iterable[str]) -> Iterator[str]:
    """Those of the dotted *names* that the installed libraries lack."""
    for name in names:
        path, _, attribute = name.rpartition(".")
        try:
            if not _has(_resolve(path), attribute):
                yield name
        except (ImportError, AttributeError):
            yield name


def require(names: Mapping[str, str]) -> None:
    """Raise IncompatibleLibrary, naming library and version, unless *names* exist."""
    for name in missing_names(names):
        library = name.partition(".")[0]
        try:
            version = metadata.version(library)
        except metadata.PackageNotFoundError:
            version = "(version unknown)"
        raise IncompatibleLibrary(
            f"{library} {version} has no {name} ({names[name]}). This release of the "
            f"gateway relies on it: install the version of {library} that setup.cfg "
            "names."
        )


def replace(name: str, value: object) -> None:
    """Put *value* in the place of the listed *name*. Raises IncompatibleLibrary."""
    require({name: PRIVATE_NAMES[name]})
    path, _, attribute = name.rpartition(".")
    setattr(_resolve(path), attribute, value)


def _resolve(name: str) -> Any:
    """The module, or the class in a module, of that dotted name."""
    try:
        return sys.modules.get(name) or importlib.import_module(name)
    except ModuleNotFoundError:
        path, _, attribute = name.rpartition(".")
        if not path:
            raise
        return getattr(_resolve(path), attribute)


def _has(owner: Any, attribute: str) -> bool:
    """Whether *owner* has *attribute*, or is a class whose methods mention it.

    An attribute that `__init__` sets does not exist on the class itself.
    """
    if hasattr(owner, attribute):
        return True
    # The names of attributes that a function reads or sets are in its code object.
    return inspect.isclass(owner) and any(
        attribute in inspect.unwrap(method).__code__.co_names
        for ancestor in owner.__mro__
        for method in vars(ancestor).values()
        if inspect.isfunction(method)
    )
