"""The WSGI application, as gunicorn and `flask run` find it."""

import os

from app import create_app, engine
from app.settings import Settings

# Under gunicorn the master has started the engine already, and this does nothing.
engine.start(os.environ)

app = create_app(Settings.from_environ(os.environ))
