"""What `cryptography` raises about certificates, CRLs and keys that it cannot load. Pure."""

from collections.abc import Iterator
from contextlib import contextmanager

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm


@contextmanager
def loading() -> Iterator[None]:
    """Load foreign bytes within, and what is wrong with them is a `ValueError`.

    `cryptography` raises more kinds, most of them late: for the version of a certificate, or for a
    key of an algorithm that it does not know.
    """
    try:
        yield
    except (
        TypeError,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
