"""gunicorn's own lines as JSON: of its master and its workers, errors and accesses."""

import logging
from typing import Any

from gunicorn.glogging import Logger

from ..observability.log_format import JSONLines


class JSONLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's logger, with JSON lines wherever they go but to syslog."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            if isinstance(handler, logging.StreamHandler):
                handler.setFormatter(JSONLines())
