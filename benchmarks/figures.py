"""Parameters and results of a load run."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import rsa


@dataclass(frozen=True, slots=True)
class Retries:
    """Limits of sending the same bytes again after 503, a lost connection, a timeout or PENDING.

    At most `attempts` within `seconds`. Pauses double from `pause` to `longest_pause` seconds.
    """

    attempts: int = 12
    seconds: float = 60.0
    pause: float = 0.05
    longest_pause: float = 2.0

    def pause_after(self, attempt: int) -> float:
        return float(min(self.pause * 2 ** (attempt - 1), self.longest_pause))


@dataclass(frozen=True, slots=True)
class Plan:
    """One load run. `keys` is the pool of device keys; if empty, `key_count` keys are generated.

    `lenient` accepts single DES and repeated serial numbers, as the peer server produces.
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
    """Result of one request: its certificate (DER), or the reason of its failure."""

    common_name: str
    transaction_id: str
    certificate: bytes | None
    failure: str
    repeated_serial: bool
    seconds: float
    attempts: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one run: `cpu` in seconds by process name; `failures`, `retries` by reason.

    `switches` are voluntary and involuntary context switches by process name, `memory` its MiB
    resident at the end.
    """

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
    switches: dict[str, tuple[int, int]]
    memory: dict[str, float]
    generator_cpu: float
    failures: dict[str, int]
    warmup_failures: int
    repeated_serials: int
    retries: dict[str, int]
    connections: int

    @property
    def failed(self) -> int:
        """Number of failed requests, warm-up included."""
        return sum(self.failures.values()) + self.warmup_failures

    @property
    def cpu_ms(self) -> float:
        """CPU of all processes per good answer, in milliseconds."""
        return sum(self.cpu.values()) / max(self.good, 1) * 1e3


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The figures of a run, and each of its answers."""

    figures: Figures
    answers: tuple[Answer, ...] = field(repr=False)
