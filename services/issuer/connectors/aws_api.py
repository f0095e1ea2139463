"""boto3 for connectors: calls in threads, without retries, and whether a failed call did anything.

boto3 blocks, and by itself repeats calls. Here its calls run in threads of the connector's own, and
once: whether an order is placed again is for the log to decide. What a failure means is said as in
`http.py`.
"""

import asyncio
import logging
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from services.issuer.connectors.connector import AnswerLostError, CaUnavailableError
from services.issuer.connectors.http import Answer, retry_after
from services.issuer.connectors.options import CaUrl
from shared.config.fields import Section
from shared.config.keys import read_certificates
from shared.config.load import SettingsError, read_secret_file
from shared.config.sections import Configuration
from shared.runtime.process import now

_THREADS: Final = 16
_CONNECT_SECONDS: Final = 10.0
_UNAUTHORIZED: Final = (401, 403)
_TOO_MANY: Final = 429
_UNAVAILABLE: Final = 503
_FAILED: Final = 500
_REDIRECTS: Final = range(300, 400)
_BUSY: Final = frozenset(
    {
        "ConcurrentModificationException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "SlowDown",
        "Throttling",
        "ThrottledException",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_DENIED: Final = frozenset(
    {
        "AccessDenied",
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)


class AwsOptions(Section):
    """Options of connectors that call AWS."""

    profile: Annotated[str, Field(pattern=r"^[!-~]{1,64}$")] | None = None
    """Profile of the AWS configuration, which may assume a role [AWS's usual chain]."""
    credentials_path: Path | None = None
    """AWS credentials file with the profile, mode 0600 [AWS's usual places]."""
    url: CaUrl | None = None
    """Endpoint of the API, for VPC or FIPS endpoints [that of the region]."""
    tls_ca_path: Path | None = None
    """CAs of the endpoint's TLS certificate, PEM [those of boto3]."""


class RejectedError(Exception):
    """Raised if the API rejects a call with an error that the caller has to judge."""

    def __init__(self, code: str, words: str) -> None:
        """Record AWS's code and its sentence, made safe."""
        super().__init__(f"{words or 'no reason given'} ({code})")
        self.code = code


@dataclass
class AwsClient:
    """Calls AWS Private CA with boto3, in at most 16 threads.

    `session` is boto3's; `arguments` are those of its client.
    """

    session: Any = field(repr=False)
    arguments: dict[str, Any] = field(repr=False)
    _client: Any = field(default=None, init=False, repr=False)
    _threads: ThreadPoolExecutor | None = field(default=None, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    async def call(self, operation: str, **request: Any) -> dict[str, Any]:
        """Return the API's answer.

        Raises `CaUnavailableError`, `AnswerLostError` and `RejectedError`.
        """
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "aws-pca")
        work = partial(self._called, operation, request)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def close(self) -> None:
        """Close the connections, and end the threads when they are done."""
        threads, self._threads = self._threads, None
        client, self._client = self._client, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)
        if client is not None:
            client.close()

    def _called(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        client = self._connected()
        try:
            answer = getattr(client, operation)(**request)
        except Exception as error:  # noqa: BLE001 - whatever a call raises leaves the outcome open
            raise translated(error) from None
        if not isinstance(answer, dict):
            raise AnswerLostError("the CA's answer is not an object")
        return answer

    def _connected(self) -> Any:
        """Return the client, once there are credentials that have not expired.

        They are obtained before the call, so that what goes wrong there never counts as an order.
        """
        try:
            credentials = self.session.get_credentials()
            usable = credentials is not None and credentials.get_frozen_credentials().access_key
        except Exception as error:  # noqa: BLE001 - of files, metadata services, STS or SSO
            detail = f"AWS credentials cannot be obtained: {_kind_of(error)}"
            raise CaUnavailableError(detail) from None
        if not usable:
            raise CaUnavailableError(
                "there are no AWS credentials: set a profile, or give this host or pod a role"
            )
        with self._lock:
            if self._client is None:
                self._client = self.session.client("acm-pca", **self.arguments)
            return self._client


def translated(error: Exception) -> Exception:
    """Return what an error of boto3 means for an order; messages of boto3 are not passed on."""
    exceptions = import_module("botocore.exceptions")
    if isinstance(error, exceptions.ClientError):
        return _answered(error.response)
    unreached = (
        exceptions.EndpointConnectionError,
        exceptions.ConnectTimeoutError,
        exceptions.ProxyConnectionError,
    )
    if isinstance(error, unreached):
        return CaUnavailableError(f"the CA cannot be reached: {type(error).__name__}")
    if isinstance(error, exceptions.ParamValidationError):
        return RejectedError("ValidationException", "the order does not fit AWS's API")
    if verification := _untrusted(error):
        detail = f"the CA cannot be reached: its TLS certificate is not trusted: {verification}"
        return CaUnavailableError(detail)
    return AnswerLostError(f"no complete answer: {type(error).__name__}")


def _answered(response: Any) -> Exception:
    """Return what an error that AWS answered means."""
    failure, about = response.get("Error", {}), response.get("ResponseMetadata", {})
    code = safe(failure.get("Code", ""), 64)
    words = safe(failure.get("Message", ""), 1200)
    status = about.get("HTTPStatusCode", 0)
    pause = retry_after(about.get("HTTPHeaders", {}), now())
    rules = (
        (
            code in _BUSY or status in (_TOO_MANY, _UNAVAILABLE),
            CaUnavailableError(f"AWS asks to come back later: {words} ({code or status})", pause),
        ),
        (
            code == "AccessDeniedException",
            CaUnavailableError(f"the credentials lack a permission: {words}"),
        ),
        (
            # The sentence is left out: it may quote the request with its session token.
            code in _DENIED or status in _UNAUTHORIZED,
            CaUnavailableError(f"AWS does not accept the credentials ({code or status})"),
        ),
        (
            status in _REDIRECTS,
            CaUnavailableError(f"the endpoint redirects ({status}): check url"),
        ),
        (
            code == "InvalidStateException",
            CaUnavailableError(f"the state of the CA does not allow it: {words}"),
        ),
        (
            status >= _FAILED or code in ("", str(status)),
            AnswerLostError(f"the CA failed ({status})"),
        ),
    )
    return next((error for holds, error in rules if holds), RejectedError(code, words))


def safe(text: object, most: int) -> str:
    """Return the beginning of what AWS says, as one printable line."""
    return Answer(0, {}, str(text)[:most].encode("utf-8", "replace")).words()


def _untrusted(error: BaseException | None) -> str:
    """Return why the TLS certificate was not accepted, "" if that was not the cause."""
    for _ in range(16):
        if error is None:
            break
        if isinstance(error, ssl.SSLCertVerificationError):
            return str(error.verify_message)
        error = (
            next((a for a in error.args if isinstance(a, BaseException)), None)
            or getattr(error, "kwargs", {}).get("error")
            or getattr(error, "reason", None)
            or error.__cause__
            or error.__context__
        )
        error = error if isinstance(error, BaseException) else None
    return ""


def _kind_of(error: Exception) -> str:
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code", "") if isinstance(response, dict) else ""
    return " ".join(filter(None, (type(error).__name__, safe(code, 64))))


def aws_client(
    configuration: Configuration, name: str, options: AwsOptions, region: str, timeout: float
) -> AwsClient:
    """Return the client of an issuer; raises `SettingsError`. `timeout` is in seconds."""
    try:
        boto3 = import_module("boto3.session")
        botocore = import_module("botocore.session")
        config = import_module("botocore.config")
    except ImportError:
        raise SettingsError(
            f'issuers.{name}: aws-pca needs boto3: pip install "scepstream[aws]"'
        ) from None
    # At the level DEBUG they write whole requests: the CSR, and session tokens.
    for library in ("boto3", "botocore"):
        logging.getLogger(library).setLevel(logging.INFO)
    core = botocore.Session(profile=options.profile)
    if options.credentials_path is not None:
        path = configuration.path(options.credentials_path)
        read_secret_file(path)
        core.set_config_variable("credentials_file", str(path))
    try:
        core.get_scoped_config()
    except Exception as error:  # noqa: BLE001 - unreadable files, unknown profiles
        raise SettingsError(
            f"issuers.{name}.options.profile: not usable: {type(error).__name__}"
        ) from None
    arguments: dict[str, Any] = {
        "config": config.Config(
            connect_timeout=min(_CONNECT_SECONDS, timeout),
            read_timeout=timeout,
            max_pool_connections=_THREADS,
            retries={"mode": "standard", "total_max_attempts": 1},
        ),
        "endpoint_url": options.url,
    }
    if options.tls_ca_path is not None:
        roots = configuration.path(options.tls_ca_path)
        read_certificates(roots)
        arguments["verify"] = str(roots)
    session = boto3.Session(botocore_session=core, region_name=region)
    return AwsClient(session, arguments)
