"""Log records of libraries (uvicorn, asyncio, nats) as our own JSON lines, without contents."""

import logging
from typing import Final

import structlog

_LONGEST: Final = 200


class LibraryLogs(logging.Handler):
    """Writes what libraries log: the sentence they have in their code, an error's type and place.

    Arguments, tracebacks and the texts of errors may hold what a client sent: they are left out.
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
    """Return file and line where an error was raised, "" if it never was."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""


def take_library_logs() -> None:
    """Write warnings and errors of every library from now on."""
    root = logging.getLogger()
    if not any(isinstance(handler, LibraryLogs) for handler in root.handlers):
        root.addHandler(LibraryLogs(logging.WARNING))
