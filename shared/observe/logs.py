"""Log lines: JSON on standard error, without what strangers sent."""

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
    """Standard error that loses lines where they cannot be written (a full disk), and no more.

    A log is written where errors are handled: one that raised would end the very task that was
    about to go on.
    """

    def write(self, text: str) -> int:
        """Write what can be written."""
        with contextlib.suppress(OSError, ValueError):
            return sys.stderr.write(text)
        return 0

    def flush(self) -> None:
        """Flush what can be flushed."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def configure_logging(service: str, name: str) -> None:
    """JSON lines on standard error, each with the service and the replica."""
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
    """JSON in ASCII: whoever looks at a log with a terminal sees text that others chose."""
    return json.dumps(event, **options).replace("\x7f", "\\u007f")


def log_left_out(profiles: Mapping[str, str]) -> None:
    """One line for each profile (name to what is wrong) that is not served."""
    for name, problem in profiles.items():
        structlog.get_logger().error("profile_left_out", profile=name, detail=problem)


def log_failure(event: str, error: BaseException, **details: Any) -> None:
    """One line for an unexpected error: its type and place, never its text (it may hold input)."""
    structlog.get_logger().error(
        event, error=type(error).__name__, place=place_of(error), **details
    )
