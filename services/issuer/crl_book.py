"""A CRL between two publications: the entries of the newest one, and what has changed since. Pure.

Theory of operation. An entry leaves the CRL once it was on one whose thisUpdate is after the end of
the certificate (RFC 5280 s3.3). So it must be on the CRL before the one that leaves it out, and the
end must be known: an entry whose end is not known stays. An entry that has left does not come back
when a later command corrects the reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from services.issuer.crl import Entries
from shared.ca.partitions import Partition
from shared.log.events.certificates import CrlPublished

NEVER: Final = 2**63  # the end of a certificate whose record cannot be read


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A certificate's new status, for its CA's CRLs.

    `entry` is encoded, b"" if the certificate is no longer revoked. `spki_sha256` is "" if the key
    is not known. `was_listed` says that the certificate has expired and was revoked before.
    """

    serial: bytes
    entry: bytes
    spki_sha256: str = ""
    was_listed: bool = False


@dataclass(slots=True)
class CrlBook:
    """The complete CRL of a CA, or a partition, with all changes up to `position` of CERTS.

    `head` announced the CRL on which the entries are, except those in `added`; `listed_at` is when
    it was published (Unix seconds). `changed_at` is the position of the last change of an entry.
    """

    partition: Partition | None
    head: CrlPublished | None = None
    entries: Entries = field(default_factory=dict)
    position: int = 0
    listed_at: int = 0
    changed_at: int = 0
    added: set[bytes] = field(default_factory=set)

    def is_complete(self, head: CrlPublished | None) -> bool:
        """Return whether a CRL has all changes that are known."""
        return head is not None and head.position >= self.changed_at

    def apply(self, change: StatusChange) -> None:
        """Apply the change at `position`.

        A certificate whose key is not known is on every partition.
        """
        serial, is_listed = change.serial, change.serial in self.entries
        is_elsewhere = (
            self.partition is not None
            and change.spki_sha256 != ""
            and not self.partition.holds(change.spki_sha256)
        )
        if is_elsewhere or not change.entry:
            if is_listed:
                del self.entries[serial]
                self.added.discard(serial)
                self.changed_at = self.position
            return
        if not is_listed:
            if change.was_listed:
                return
            self.added.add(serial)
        self.entries[serial] = change.entry
        self.changed_at = self.position

    def drop_expired(self, ends: Mapping[bytes, int]) -> None:
        """Leave out entries that were on the CRL after their certificate's end (Unix seconds)."""
        if min(ends.values(), default=NEVER) >= self.listed_at:
            return
        for serial in [s for s in self.entries if ends.get(s, NEVER) < self.listed_at]:
            if serial not in self.added:
                del self.entries[serial]

    def published(self, head: CrlPublished) -> None:
        """Record that the entries are on the CRL that `head` announced."""
        self.head = head
        self.added.clear()
