"""Several gateways as one, and what can go wrong with one of them."""

from __future__ import annotations

from collections.abc import Callable

from homeworld.gateway.server import Gateway
from homeworld.model.errors import DeadlineExceededError, HomeworldError
from homeworld.model.routing import HoldRequest, RoutingSnapshot


class Several:
    """ports.Gateways over real ones: each call reaches all, and is done once all have done it.

    ``late``: gateways that publications do not reach at present; they go on serving what they have.
    """

    def __init__(self, *gateways: Gateway) -> None:
        self.gateways = gateways
        self.late: set[Gateway] = set()

    @property
    def port(self) -> int:
        """The first one's."""
        return self.gateways[0].port

    def start(self) -> None:
        """Start all."""
        for gateway in self.gateways:
            gateway.start()

    def stop(self, deadline_seconds: float) -> None:
        """Stop all."""
        for gateway in self.gateways:
            gateway.stop(deadline_seconds)

    def _each(self, act: Callable[[Gateway], None]) -> None:
        """Reach all that can be reached, whether or not another one can."""
        failures: list[HomeworldError] = []
        for gateway in self.gateways:
            try:
                act(gateway)
            except HomeworldError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def publish(self, snapshot: RoutingSnapshot) -> None:
        """See ports.Gateways."""

        def publish(gateway: Gateway) -> None:
            if gateway in self.late:
                raise DeadlineExceededError("the gateway did not answer in time")
            gateway.publish(snapshot)

        self._each(publish)

    def hold(self, request: HoldRequest) -> None:
        """See ports.Gateways."""
        held: list[Gateway] = []
        try:
            for gateway in self.gateways:
                gateway.hold(request)
                held.append(gateway)
        except HomeworldError:
            for gateway in held:
                gateway.release(request.hold_id)
            raise

    def release(self, hold_id: str) -> None:
        """See ports.Gateways."""
        self._each(lambda gateway: gateway.release(hold_id))

    def open(self, subject: str) -> None:
        """See ports.Gateways."""
        self._each(lambda gateway: gateway.open(subject))

    def is_held(self, hold_id: str) -> bool:
        """See ports.Gateways."""
        return all(gateway.is_held(hold_id) for gateway in self.gateways)


def expire(gateway: Gateway) -> None:
    """Let the own deadline of every hold in a gateway pass now."""

    async def end() -> None:
        gateway._keeper.end_all()  # type: ignore[reportPrivateUsage]  # time is not the test's to move

    gateway._call(end(), 10.0)  # type: ignore[reportPrivateUsage]
