"""What a load run is asked for and what it found."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import rsa


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how long the same bytes are sent again after 503, a lost connection, PENDING.

    Pauses double from `pause` to `longest_pause` seconds.
    """

    attempts: int = 12
    seconds: float = 60.0
    pause: float = 0.05
    longest_pause: float = 2.0

    def pause_after(self, attempt: int) -> float:
        return float(min(self.pause * 2 ** (attempt - 1), self.longest_pause))


@dataclass(frozen=True, slots=True)
class Plan:
    """One load run. `keys` is the pool of device keys; empty means: make `key_count` of them.

    `lenient` takes single DES and repeated serial numbers for good: what the peer server does.
    """

    url: str
    challenge: str
    n: int
    concurrency: int
    cipher: str = "aes128"
    ber: bool = False
    lenient: bool = False
    warmup: int = 0
    key_count: int = 50
    timeout: float = 60.0
    settle: float = 5.0
    wait: float = 0.0
    retries: Retries = field(default_factory=Retries)
    pids: tuple[tuple[str, int], ...] = ()
    keys: Sequence[rsa.RSAPrivateKey] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from the first byte sent to the last answer, retries included."""

    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Latency":
        ordered = sorted(seconds)

        def at(share: float) -> float:
            return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3, 3)

        return cls(at(0.5), at(0.9), at(0.99), at(1))


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request: the certificate (DER) it got, or why it got none."""

    common_name: str
    transaction_id: str
    certificate: bytes | None
    failure: str
    repeated_serial: bool
    seconds: float
    attempts: int


@dataclass(frozen=True, slots=True)
class Figures:
    """One run in numbers; `cpu` is in seconds, by process name, `failures` and `retries` counts."""

    url: str
    n: int
    concurrency: int
    ber: bool
    cipher: str
    good: int
    seconds: float
    good_per_second: float
    latency: Latency
    cpu: dict[str, float]
    generator_cpu: float
    failures: dict[str, int]
    warmup_failures: int
    repeated_serials: int
    retries: dict[str, int]
    connections: int

    @property
    def failed(self) -> int:
        """Failed requests, those of the warm-up included."""
        return sum(self.failures.values()) + self.warmup_failures

    @property
    def cpu_ms(self) -> float:
        """All processes' CPU per good answer, in milliseconds."""
        return sum(self.cpu.values()) / max(self.good, 1) * 1e3


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The numbers, and each answer for those who want to look closer."""

    figures: Figures
    answers: tuple[Answer, ...] = field(repr=False)
