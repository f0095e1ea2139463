"""The codec's only exception and its failInfo values (RFC 8894 s3.2.1.4.4)."""

from enum import IntEnum


class FailInfo(IntEnum):
    """failInfo of a CertRep FAILURE (RFC 8894 s3.2.1.4.4)."""

    BAD_ALG = 0
    BAD_MESSAGE_CHECK = 1
    BAD_REQUEST = 2
    BAD_TIME = 3
    BAD_CERT_ID = 4


class ScepError(Exception):
    """Raised by the codec for every input that it refuses; it raises nothing else.

    `fail_info` is for a CertRep; `detail` is for logs and failInfoText and never contains input.
    """

    def __init__(self, detail: str, fail_info: FailInfo = FailInfo.BAD_MESSAGE_CHECK) -> None:
        """Keep both; `detail` is also the exception's message."""
        super().__init__(detail)
        self.detail = detail
        self.fail_info = fail_info
