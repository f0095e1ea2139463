"""Partitions of a CA's CRL: which of them a certificate is on, and their URLs. Pure.

Theory of operation. A partition is a CRL that lists only some certificates of a CA (RFC 5280
s5.2.5). The digest of a certificate's public key selects the partition, so that the validator,
which writes its URL into the certificate, and the issuer, which signs it, find the same one. The
number of partitions is part of the name: after it was changed, certificates that were issued before
still name a partition of the earlier number, which is published as long as it is configured.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_DIGITS: Final = 16


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One of `count` partitions, numbered from 0."""

    count: int
    number: int

    @property
    def name(self) -> str:
        """Its name in subjects and URLs."""
        return f"{self.count}-{self.number}"

    def holds(self, spki_sha256: str) -> bool:
        """Return whether certificates of the key with this SPKI digest (hex) are on it."""
        return partition_of(spki_sha256, self.count) == self


def partition_of(spki_sha256: str, count: int) -> Partition:
    """Return the partition of a key (SHA-256 of its SPKI in hex) among `count`."""
    return Partition(count, int(spki_sha256[:_DIGITS], 16) % count)


@dataclass(frozen=True, slots=True)
class Partitioning:
    """How an issuer partitions its CRLs.

    `counts` are the number of partitions, the current one first, and earlier ones. `urls` are the
    beginnings of the partitions' URLs. Without counts there are complete CRLs only.
    """

    counts: tuple[int, ...] = ()
    urls: tuple[str, ...] = ()

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """All partitions that are published."""
        return tuple(Partition(count, k) for count in self.counts for k in range(count))

    def points(self, pin: str, partition: Partition) -> tuple[str, ...]:
        """Return the URLs of a partition of the CA with this pin."""
        return tuple(f"{url.rstrip('/')}/{pin}/{partition.name}.crl" for url in self.urls)

    def points_of(self, pin: str, spki_sha256: str) -> tuple[str, ...]:
        """Return the URLs that a new certificate of this key names, () without partitions."""
        if not self.counts:
            return ()
        return self.points(pin, partition_of(spki_sha256, self.counts[0]))


NO_PARTITIONS: Final = Partitioning()


def find_partition(
    partitionings: Mapping[str, Partitioning], issuer: str, name: str
) -> Partition | None:
    """Return the published partition of an issuer with this name, None if there is none."""
    found = partitionings.get(issuer, NO_PARTITIONS).partitions
    return next((partition for partition in found if partition.name == name), None)
