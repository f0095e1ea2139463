"""The codec's one error and the failInfo values it may carry (RFC 8894 s3.2.1.4.4)."""

from enum import IntEnum


class FailInfo(IntEnum):
    """failInfo of a CertRep FAILURE (RFC 8894 s3.2.1.4.4)."""

    BAD_ALG = 0
    BAD_MESSAGE_CHECK = 1
    BAD_REQUEST = 2
    BAD_TIME = 3
    BAD_CERT_ID = 4


class ScepError(Exception):
    """Raised by the codec for every input it will not take; nothing else leaves the codec.

    `fail_info` is what a CertRep would say, `detail` is for logs: words of ours, never input.
    """

    def __init__(self, detail: str, fail_info: FailInfo = FailInfo.BAD_MESSAGE_CHECK) -> None:
        """Keep both parts; the message of the exception is the detail."""
        super().__init__(detail)
        self.detail = detail
        self.fail_info = fail_info
