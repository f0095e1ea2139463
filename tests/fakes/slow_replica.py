"""A pytest plug-in: in memory, too, a replica that is behind answers every direct read."""

from shared.log.streams import CERTS, CRLS, DEAD_LETTERS, DEVICES, OPS, REPLAYS, enroll_stream
from tests.fakes.memory_bus import MemoryBus

_STREAMS = (CERTS, CRLS, DEAD_LETTERS, DEVICES, OPS, REPLAYS, enroll_stream("0"))
MemoryBus.usual_lag = dict.fromkeys(_STREAMS, 1)
