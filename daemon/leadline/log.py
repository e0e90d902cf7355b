"""The log: lines of JSON, or of text, on standard error."""

import logging
import sys
from typing import Any

import structlog

from leadline.config import Config


def set_up_log(config: Config) -> None:
    """Say from now on what the configuration wants to hear, and how."""
    level = logging.getLevelNamesMapping()[config.log.level.upper()]
    renderer: Any = structlog.processors.JSONRenderer()
    if config.log.format == "text":
        renderer = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
