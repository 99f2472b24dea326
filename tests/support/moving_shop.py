"""A shop whose orders move to shards, on real servers, and an executor's process that is killed at a step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from homeworld.model.states.move_tables import State
from homeworld.replication.fence import TableFence
from homeworld.replication.mover_process import MoverProcesses
from homeworld.workflows.assemble import make_preconditions
from homeworld.workflows.leases import Lease
from homeworld.workflows.move_tables.context import Context, Ports
from homeworld.workflows.move_tables.handler import MoveTables
from homeworld.workflows.move_tables.plans import all_plans
from homeworld.workflows.move_tables.servers import ServerTools
from homeworld.workflows.steps import Plan, Step
from tests.support.stack import Stack

S = State
ORDERS = (
    "CREATE TABLE orders (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, customer INT NOT NULL,"
    " amount BIGINT NOT NULL, note VARCHAR(40) DEFAULT 'é', KEY by_customer (customer))"
)
VSCHEMA: dict[str, Any] = {
    "sharded": True,
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {"orders": {"column_vindexes": [{"column": "id", "name": "xxhash"}]}},
}
ROWS = 500


def fill(stack: Stack) -> None:
    values = ", ".join(f"({number % 7}, {number})" for number in range(ROWS))
    stack.run(ORDERS, f"INSERT INTO orders (customer, amount) VALUES {values}")


def begin(stack: Stack, *, shards: int = 2, replicas: int = 0, **options: Any) -> str:
    """A running workflow from ``shop`` to ``target``."""
    stack.open(replicas=replicas)
    vschema = VSCHEMA if shards > 1 else None
    stack.add_keyspace("target", vschema, shards=shards, replicas=replicas)
    fill(stack)
    workflow = stack.move("shop", "target", ["orders"], **options)
    assert stack.reaches(workflow, S.RUNNING, S.ERROR).workflow_errors == ""
    return workflow


def exists(stack: Stack, keyspace: str, table: str = "orders") -> bool:
    return bool(stack.on_server(keyspace, f"SHOW TABLES LIKE '{table}'"))


def check(stack: Stack, wanted: dict[int, int], keyspace: str) -> None:
    """Exactly the rows that were acknowledged, and those from before."""
    found = dict(stack.on_server(keyspace, "SELECT id, amount FROM orders"))
    assert {key: found.get(key) for key in wanted} == wanted
    assert len(found) == len(wanted) + ROWS


def rules(stack: Stack) -> dict[str, str]:
    with stack.store.read() as tx:
        return dict(tx.routes.rules(stack.branch_id))


class Died(BaseException):
    """The executor's process is killed here."""


Hook = Callable[[str, str], None]


class Acting:
    """An executor's process that handles one workflow.

    :param hook: called with before or after and a step's name; it may raise :class:`Died`.
    """

    def __init__(self, stack: Stack, workflow: str, hook: Hook) -> None:
        self.stack, self.workflow = stack, workflow
        self.movers = MoverProcesses()
        self.locks: list[Context] = []
        ports = Ports(
            stack.store, stack.engine, stack.gateways, self.movers, TableFence(), stack.publish, ServerTools
        )
        preconditions = make_preconditions(stack.store, stack.engine)

        def hooked(plan: Plan[Context]) -> Plan[Context]:
            def wrap(step: Step[Context]) -> Step[Context]:
                def perform(context: Context) -> None:
                    self.locks = [context]
                    hook("before", step.name)
                    step.perform(context)
                    hook("after", step.name)

                return replace(step, perform=perform)

            return replace(plan, steps=tuple(map(wrap, plan.steps)))

        plans = {name: hooked(plan) for name, plan in all_plans(preconditions).items()}
        self.handler = MoveTables(ports, preconditions, plans)

    def run(self, *ends: State) -> bool:
        """Until it is killed or the workflow is in one of these states; whether it was killed. A killed one
        has its movers and locks until :meth:`die`.
        """
        resource = f"workflow:{self.workflow}"
        with self.stack.store.write() as tx:
            token = tx.leases.acquire(resource, "dying", 0.5)
        assert token is not None
        lease = Lease(resource, token, time.monotonic() + 600.0)
        try:
            while self.stack.workflow(self.workflow).state not in ends:
                rest = self.handler.tick(self.workflow, lease)
                time.sleep(rest.seconds / 10 if rest else 0.0)
        except Died:
            return True
        return False

    @property
    def hold_id(self) -> str:
        """Its hold, if any."""
        return self.locks[0].hand.hold_id if self.locks else ""

    def die(self) -> None:
        """What ends with a process."""
        self.movers.close()
        for context in self.locks:
            # A server does the same when the connections of a dead process end.
            context.hand.unlock()
            context.hand.tools.close()


def dying(when: str, name: str) -> Hook:
    """Killed at a step."""

    def hook(now: str, step: str) -> None:
        if (now, step) == (when, name):
            raise Died

    return hook


def die_at(stack: Stack, workflow: str, when: str, name: str) -> None:
    """An executor's process that handles the workflow until it is killed there."""
    process = Acting(stack, workflow, dying(when, name))
    process.run()
    process.die()
