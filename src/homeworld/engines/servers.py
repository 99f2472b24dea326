"""All servers that homeworld uses: those of a LocalEngine, and behind them those of clusters that others run.

Of the latter nothing is made, changed, restarted or ended here: they are reached, looked at and waited for.
Whatever else is asked of one is answered as of a server that is not there, so that no step that unmakes
something ever touches it.
"""

from __future__ import annotations

from pathlib import Path

from homeworld.engines import replicas
from homeworld.engines.connection import control
from homeworld.engines.flavors import rules
from homeworld.engines.local import LocalEngine
from homeworld.engines.vitess.attached import endpoint_of
from homeworld.engines.vitess.attachments import Attachments
from homeworld.model.errors import HomeworldError, InvalidError, NotFoundError
from homeworld.model.ports import ServerStatus
from homeworld.model.topology import BackendRole, Endpoint, Flavor

_LOOK_SECONDS = 1.0
_GRACE_SECONDS = 5.0  # for one answer, beyond the time of all
_FOLLOWS_NOBODY = "it follows no other server"


class Servers(LocalEngine):
    """A LocalEngine that also reaches the servers of attached clusters.

    :param data_dir: as of the engine.
    """

    def __init__(self, data_dir: Path, mysqld: Path | None = None) -> None:
        super().__init__(data_dir, mysqld)
        self.attachments = Attachments(data_dir.absolute() / "vitess" / "attached")

    def endpoint(self, server_id: str, role: BackendRole) -> Endpoint:
        """See LocalEngine. For a server of an attached cluster the roles of clients have the account that was
        given for vtgate, and the others the one that was given for its servers.

        :raises NotFoundError: no such server, or it takes no clients over a network.
        """
        try:
            return super().endpoint(server_id, role)
        except NotFoundError:
            return endpoint_of(*self.attachments.server(server_id), role)

    def status(self, server_id: str) -> ServerStatus:
        """See LocalEngine.

        :raises NotFoundError: no such server.
        """
        try:
            return super().status(server_id)
        except NotFoundError:
            found, server = self.attachments.server(server_id)
        follows = None if server.primary_id == server_id else server.primary_id
        accepting, lag, error = False, None, ""
        try:
            with control(
                endpoint_of(found, server, BackendRole.OWNER), timeout_seconds=_LOOK_SECONDS
            ) as owner:
                accepting = owner.value("SELECT 1") == 1
                if follows is not None:
                    state = replicas.read(owner, rules(Flavor.MYSQL))
                    error = _FOLLOWS_NOBODY if state is None else state.error
                    lag = None if state is None or error else state.lag_seconds
        except HomeworldError as failure:  # also a login that is refused by now
            error = failure.message if follows is not None else ""
        # Its process is another machine's: whether it runs is known by whether it answers.
        return ServerStatus(server_id, accepting, accepting, None, follows, lag, error)

    def restarts(self, server_id: str) -> int:
        """See LocalEngine. Of servers that others run nobody here knows: 0.

        :raises NotFoundError: no such server.
        """
        try:
            return super().restarts(server_id)
        except NotFoundError:
            self.attachments.server(server_id)
            return 0

    def wait_replica(self, server_id: str, timeout_seconds: float) -> None:
        """See LocalEngine.

        :raises DeadlineExceededError: it had not within the time. :raises InvalidError: it is no replica.
        """
        try:
            super().wait_replica(server_id, timeout_seconds)
        except NotFoundError:
            found, server = self.attachments.server(server_id)
        else:
            return
        if server.primary_id == server_id:
            raise InvalidError(f"server {server_id} is no replica")
        _, primary = self.attachments.server(server.primary_id)
        with (
            control(endpoint_of(found, primary, BackendRole.OWNER)) as ahead,
            control(
                endpoint_of(found, server, BackendRole.OWNER),
                timeout_seconds=timeout_seconds + _GRACE_SECONDS,
            ) as behind,
        ):
            replicas.wait(ahead, behind, rules(Flavor.MYSQL), timeout_seconds)
