"""What a server tells its clients of themselves: updates used, the last refusal, exclusions."""

from collections.abc import Sequence

from fedpace.core.record import RoundRecord
from fedpace.engines.flower.roster import Roster


class Standing:
    """Kept from the records of a run, as they come."""

    def __init__(self, records: Sequence[RoundRecord]) -> None:
        self._used: dict[tuple[str, int], list[int]] = {}
        self._refused: dict[int, str] = {}
        self._excluded: dict[int, str] = {}
        for record in records:
            self.learn(record)

    def learn(self, record: RoundRecord) -> None:
        """Take a round into account."""
        self._used[record.method, record.round] = [p.client for p in record.participants]
        for participant in record.participants:
            self._refused.pop(participant.client, None)
        self._refused.update(dict(record.refusals))
        for client in record.excluded:
            self._excluded[client] = dict(record.refusals).get(client, "")

    def accepted(self, client: int) -> int:
        """Return how many updates of a client were used so far."""
        return sum(client in people for people in self._used.values())

    def refused(self, client: int) -> str:
        """Return why a client's last update was not; "" where it was."""
        return self._refused.get(client, "")

    def bar_excluded(self, roster: Roster) -> None:
        """Have the roster turn away whoever is excluded, with the reason."""
        for client, reason in self._excluded.items():
            if client < len(roster.names) and (name := roster.names[client]) not in roster.barred:
                roster.bar(
                    name,
                    f"{name} is excluded from the run: its updates were refused too often, the "
                    f"last one for: {reason}",
                )
