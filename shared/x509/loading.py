"""What `cryptography` raises about certificates, CRLs and keys that it cannot load. Pure."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm


@contextmanager
def loading() -> Iterator[None]:
    """Load foreign bytes within, and what is wrong with them is a `ValueError`.

    What `cryptography` only warns of (a serial number of 0, a name longer than X.520 has it) is no
    error, and no line on a service's output. It raises more kinds than one, most of them late: for
    the version of a certificate, or for a key of an algorithm that it does not know.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (
        TypeError,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
