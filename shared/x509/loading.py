"""Uniform errors for certificates, CRLs and keys that `cryptography` cannot load. Pure."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm


@contextmanager
def loading() -> Iterator[None]:
    """Raise `ValueError` for whatever is wrong with untrusted bytes that are loaded in the block.

    `cryptography` raises several exception types, most of them late: for a certificate's version,
    or for a key of an unknown algorithm. What it only warns about (a serial number of 0, a name
    longer than X.520 allows) is accepted without output.
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
