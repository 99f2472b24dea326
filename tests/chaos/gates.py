"""The worker's side of the gates: at an armed moment of a step its thread waits to be let on.

Plans are wrapped, not changed: names, sorts and order stay, so the product's own decisions run as ever. A
gate that is not armed costs a look into a dictionary. Knows no fault; the controller at the other end of the
socket does. Invariant: the thread goes on only by what the controller says, or when the controller is gone.
"""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

from homeworld.model.errors import InvalidError
from homeworld.workflows.move_tables.context import Context
from homeworld.workflows.move_tables.performing import Memory, Performer
from homeworld.workflows.steps import Plan, Step
from tests.chaos.cells import Moment

Key = tuple[str, str, str]


class Gates:
    """Connected to the controller at ``path``.

    Armed gates come as ``{"arm": [[plan, step, moment, act]]}``, act ``wait`` or ``fail``; each works once.
    """

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._armed: dict[Key, str] = {}
        self._orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        threading.Thread(target=self._listen, name="gates", daemon=True).start()

    def say(self, **message: Any) -> None:
        """Tell the controller."""
        with self._lock:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _listen(self) -> None:
        with self._socket.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                if "arm" in message:
                    self._armed = {(plan, step, moment): act for plan, step, moment, act in message["arm"]}
                    self.say(armed=len(self._armed))
                else:
                    self._orders.put(message)
        self._orders.put({"go": True})

    def at(self, plan: str, step: str, moment: Moment) -> None:
        """Wait here where it is armed.

        :raises InvalidError: the controller wants the step to fail.
        """
        if not self._armed:
            return
        act = self._armed.pop((plan, step, moment.value), "")
        if act == "fail":
            raise InvalidError(f"made to fail at {step}")
        if act:
            self.say(at=[plan, step, moment.value])
            self._orders.get()


def gated(plans: Mapping[str, Plan[Context]], gates: Gates) -> dict[str, Plan[Context]]:
    """The same plans with gates before each step and between its act and its record."""
    return {
        name: Plan(name, tuple(_gated(plan.name, step, gates) for step in plan.steps), plan.forward_only)
        for name, plan in plans.items()
    }


def _gated(plan: str, step: Step[Context], gates: Gates) -> Step[Context]:
    def between(act: Callable[[Context], None], before: Moment, after: Moment) -> Callable[[Context], None]:
        def perform(context: Context) -> None:
            gates.at(plan, step.name, before)
            act(context)
            gates.at(plan, step.name, after)

        return perform

    return Step(
        step.name,
        between(step.perform, Moment.BEFORE, Moment.MIDDLE),
        between(step.undo, Moment.UNDO_BEFORE, Moment.UNDO_MIDDLE),
        step.verify,
        step.sort,
    )


class GatedPerformer(Performer):
    """The product's performer with gates behind each record."""

    def __init__(self, ports: Any, plans: Mapping[str, Plan[Context]], gates: Gates) -> None:
        super().__init__(ports, plans)
        self._gates = gates

    def perform(self, context: Context, memory: Memory, name: str) -> bool:
        plan = context.run.plan if context.run is not None else ""
        again = super().perform(context, memory, name)
        if context.run is not None and name in context.run.done:
            self._gates.at(plan, name, Moment.AFTER)
        return again

    def undo(self, context: Context, memory: Memory, name: str) -> None:
        plan = context.run.plan if context.run is not None else ""
        super().undo(context, memory, name)
        if not memory.step.tries:
            self._gates.at(plan, name, Moment.UNDO_AFTER)
