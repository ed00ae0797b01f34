"""The WSGI application, as gunicorn and `flask run` find it."""

import os

from app import __version__, create_app
from app.observability import logs
from app.server import engine_process
from app.settings import Settings

# Under gunicorn the master has started the engine already, and this does nothing.
engine_process.start(os.environ)

settings = Settings.from_environ(os.environ)
logs.configure(settings.log_format)
logs.capture()
app = create_app(settings)
# Commands such as `flask keys list` print their result alone, for scripts.
if "FLASK_RUN_FROM_CLI" not in os.environ:
    logs.log_start(__version__, settings)
