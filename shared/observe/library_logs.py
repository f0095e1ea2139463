"""Log records of libraries (uvicorn, asyncio, nats) as our JSON lines, without client data."""

import logging
from typing import Final

import structlog

_LONGEST: Final = 200


class LibraryLogs(logging.Handler):
    """Logs the literal message of a library's record, and an error's type and place.

    Arguments, tracebacks and error messages are left out: they may hold what a client sent.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        sentence = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        lines = sentence.strip().splitlines()
        details: dict[str, str] = (
            {"logger": record.name, "detail": lines[0][:_LONGEST]} if lines else {}
        )
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            details |= {"error": type(error).__name__, "place": place_of(error)}
        structlog.get_logger().log(record.levelno, "library_logged", **details)


def place_of(error: BaseException) -> str:
    """Return file:line where an error was raised, "" if it was not raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""


def take_library_logs() -> None:
    """Log the warnings and errors of all libraries from now on."""
    root = logging.getLogger()
    if not any(isinstance(handler, LibraryLogs) for handler in root.handlers):
        root.addHandler(LibraryLogs(logging.WARNING))
