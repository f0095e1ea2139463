"""Logs: JSON lines on standard error, without client data."""

import contextlib
import io
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

import structlog

from shared.observe.library_logs import place_of, take_library_logs


class _LossyStream(io.TextIOBase):
    """Standard error that drops lines that cannot be written (a full disk).

    Error handlers write logs: if that raised, it would end a task that is about to recover.
    """

    def write(self, text: str) -> int:
        """Write the text if possible; return 0 if not."""
        with contextlib.suppress(OSError, ValueError):
            return sys.stderr.write(text)
        return 0

    def flush(self) -> None:
        """Flush if possible."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def configure_logging(service: str, name: str) -> None:
    """Log JSON lines to standard error, each with the service and the replica's name."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(serializer=_line),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(_LossyStream()),  # type: ignore[arg-type]  # it writes and flushes
    )
    structlog.contextvars.bind_contextvars(service=service, name=name)
    take_library_logs()


def _line(event: Mapping[str, Any], **options: Any) -> str:
    """Return JSON in ASCII, so that untrusted text cannot control the terminal of a reader."""
    return json.dumps(event, **options).replace("\x7f", "\\u007f")


def log_left_out(profiles: Mapping[str, str]) -> None:
    """Log one line for each profile (name to problem) that is not served."""
    for name, problem in profiles.items():
        structlog.get_logger().error("profile_left_out", profile=name, detail=problem)


def log_failure(event: str, error: BaseException, **details: Any) -> None:
    """Log an unexpected error: its type and place, never its message, which may hold input."""
    structlog.get_logger().error(
        event, error=type(error).__name__, place=place_of(error), **details
    )
