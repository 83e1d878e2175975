"""Bytes on the wire, split as the run's report has it: data, and everything else."""

from dataclasses import dataclass


@dataclass
class Traffic:
    """Byte counters of one transport.

    *Data* is bulk frames with their headers and tags; *protocol* is everything else, handshakes included.
    """

    data_sent: int = 0
    data_received: int = 0
    protocol_sent: int = 0
    protocol_received: int = 0

    def count_sent(self, size: int, *, is_data: bool) -> None:
        """Add ``size`` bytes written."""
        if is_data:
            self.data_sent += size
        else:
            self.protocol_sent += size

    def count_received(self, size: int, *, is_data: bool) -> None:
        """Add ``size`` bytes read."""
        if is_data:
            self.data_received += size
        else:
            self.protocol_received += size
