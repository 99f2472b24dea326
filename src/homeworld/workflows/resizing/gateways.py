"""Resizes of gateways: how many clients of a branch each of them takes.

Begun, the branch has the new size in the store; it is done once every gateway has acknowledged it.
"""

from __future__ import annotations

from homeworld.model.errors import ConflictError, UnavailableError
from homeworld.model.states.resizing import Resize, ResizeTrigger, resize_row
from homeworld.store.gateway_resizes import GatewayResize
from homeworld.workflows.leases import Lease
from homeworld.workflows.provisioning.ports import Ports
from homeworld.workflows.provisioning.runner import WAIT_SECONDS
from homeworld.workflows.steps import Rest


class GatewayResizes:
    """The handler of gateways' resizes."""

    kind = "gateway_resize"

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    def tick(self, resource_id: str, lease: Lease) -> Rest | None:
        """One step.

        :raises FencedError: the lease is lost.
        :raises HomeworldError: a gateway did not acknowledge; it is asked again.
        """
        with self._ports.store.read() as tx:
            resize = tx.gateway_resizes.get(resource_id)
            branch = tx.branches.get(resize.branch_id)
            oldest = tx.gateway_resizes.unfinished([branch.id]).get(branch.id, ())[:1]
        if resize.state in (Resize.COMPLETED, Resize.CANCELED):
            return Rest(1.0, keep=False)
        if branch.deleted_at is not None:
            return self._take(resize, ResizeTrigger.GONE, lease)
        if resize.state is Resize.QUEUED:
            if oldest and oldest[0].id != resize.id:
                return Rest(WAIT_SECONDS, keep=False)
            return self._take(resize, ResizeTrigger.ADMIT, lease)
        if resize.state is Resize.PENDING:
            return self._take(resize, ResizeTrigger.BEGIN, lease)
        try:
            self._ports.publish()
        except UnavailableError as error:
            with self._ports.store.write() as tx:
                tx.gateway_resizes.tell(resize.id, error.message)
            raise
        return self._take(resize, ResizeTrigger.DONE, lease)

    def _take(self, resize: GatewayResize, trigger: ResizeTrigger, lease: Lease) -> Rest | None:
        row = resize_row(resize.state, trigger)
        try:
            with self._ports.store.write() as tx:
                lease.require(tx)
                now = tx.gateway_resizes.transition(resize.id, resize.state, row)
                if (
                    trigger is ResizeTrigger.BEGIN
                ):  # with what is asked for now: one that waits may be changed
                    tx.branches.update(resize.branch_id, gateway_size=now.size)
                if trigger is ResizeTrigger.DONE:
                    tx.gateway_resizes.tell(resize.id, "")
        except ConflictError:
            return Rest(WAIT_SECONDS, keep=False)  # it was taken back
        return None if row.to in (Resize.PENDING, Resize.RESIZING) else Rest(1.0, keep=False)

    def lost(self, resource_id: str) -> None:
        """Nothing of it runs in this process."""

    def loosen(self, resource_id: str) -> None:
        """Nobody waits for what is done here."""

    def let_go(self, resource_id: str) -> None:
        """Nothing is remembered of it."""
