"""A replica of a test server, made and taught to lag by the servers' own means."""

from __future__ import annotations

import time
from dataclasses import dataclass

from homeworld.engines.accounts import Accounts
from homeworld.engines.flavors import rules
from homeworld.model.movers import ReplicaPlace
from homeworld.model.topology import BackendRole, Flavor
from tests.support.mysqld import TestServer, password_of

PATIENCE = 60.0


@dataclass(frozen=True)
class Pair:
    """A primary and its replica, which has everything from the beginning on."""

    primary: TestServer
    replica: TestServer

    @property
    def place(self) -> ReplicaPlace:
        """The replica, as a mover is told of it."""
        return ReplicaPlace(self.primary.server_id, self.replica.endpoint(BackendRole.MOVER))

    def follow(self) -> None:
        """Begin to replicate."""
        rule = rules(self.primary.flavor)
        accounts = Accounts({role: password_of(role) for role in BackendRole})
        self.replica.execute([rule.replicate_from(self.primary.port, accounts), rule.start_replica])

    def stop_applying(self) -> None:
        """The replica goes on receiving, and applies nothing."""
        mysql = self.primary.flavor is Flavor.MYSQL
        self.replica.query("STOP REPLICA SQL_THREAD" if mysql else "STOP SLAVE SQL_THREAD")

    def apply_again(self) -> None:
        mysql = self.primary.flavor is Flavor.MYSQL
        self.replica.query("START REPLICA SQL_THREAD" if mysql else "START SLAVE SQL_THREAD")

    def delay(self, seconds: int) -> None:
        """The replica applies everything so much later."""
        if self.primary.flavor is Flavor.MYSQL:
            words = (
                "STOP REPLICA",
                f"CHANGE REPLICATION SOURCE TO SOURCE_DELAY={seconds:d}",
                "START REPLICA",
            )
        else:
            words = ("STOP SLAVE", f"CHANGE MASTER TO MASTER_DELAY={seconds:d}", "START SLAVE")
        self.replica.execute(list(words))

    def wait_equal(self) -> None:
        """Return once the replica has all that the primary has now."""
        wait, position = rules(self.primary.flavor).wait_applied, self.primary.position()
        deadline = time.monotonic() + PATIENCE
        while self.replica.query(wait, args=(position, 1))[0][0] != 0:
            assert time.monotonic() < deadline, "the replica does not catch up"
