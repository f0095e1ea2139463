"""GetNextCACert: the CA's announcement, signed by the RA as clients expect (RFC 8894 s4.7)."""

from dataclasses import dataclass, field

from services.gateway.ra import RaKeys
from shared.ca.chains import Chain
from shared.scep.cacert import read_next_ca_certs, write_next_ca_certs

_MAX_KEPT = 64


@dataclass
class NextCa:
    """Answers to GetNextCACert, each signed once and cached: anyone may ask at any rate."""

    _kept: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict)

    def answer(self, ra: RaKeys, chain: Chain) -> bytes:
        """Return the next CA's certificates, signed by the RA key that GetCACert advertises.

        They are copied from the CA's own announcement, which is verified again here: the RA signs
        only what the CA signed. See docs/decisions/0027.
        """
        key = ra.signer.certificate.der, chain.next_signed
        if key not in self._kept:
            announced = read_next_ca_certs(chain.next_signed, chain.der[0])
            if len(self._kept) >= _MAX_KEPT:
                self._kept.clear()
            self._kept[key] = write_next_ca_certs(announced, ra.signer, chain.der)
        return self._kept[key]
