"""When a member says goodbye: after a round that was set at the start, or after the one in which it was asked to."""


class Goodbye:
    """The goodbye of one peer; ``after`` is the round it follows, None as long as nobody wants one."""

    def __init__(self, after: int | None = None) -> None:
        self.after = after

    def say_after(self, round_number: int) -> None:
        """Say goodbye after this round at the latest. It must not be over: inside a round nobody changes its mind."""
        self.after = round_number if self.after is None else min(self.after, round_number)

    def is_due(self, round_number: int) -> bool:
        """Return whether the COMMIT of this round says goodbye; we leave in the next, when we have signed its seal."""
        return self.after is not None and round_number > self.after
