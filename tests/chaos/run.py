"""One run of the matrix: a walk with the ledger under it, one fault at one moment, and the judgement."""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from homeworld.model.states.move_tables import State, Trigger
from tests.chaos import cells, faults, judge, owners
from tests.chaos import ledger as money
from tests.chaos.cells import Cell, Moment
from tests.chaos.control import Armed, NotInTimeError
from tests.chaos.walk import Walk
from tests.chaos.world import SOURCE, World

S, T = State, Trigger
TELLERS = 3
FULL_SECONDS = 75.0  # a server that found its disk full looks again after a minute
# Transitions with which the ownership of writes changes, or may have: a way back of replicas alone has the
# same.
OWNERS_CHANGE = {
    (S.SWITCHING_PRIMARIES, S.SWITCHED_PRIMARIES),
    (S.REVERSING_TRAFFIC, S.RUNNING),
    (S.REVERSING_TRAFFIC_FOR_CANCEL, S.CANCELLING),
}


@dataclass(frozen=True, slots=True)
class Route:
    """How to come to a plan and on from it.

    :param before: goals to walk to first; ``ask`` then starts the plan; ``after``: the goals from there on,
        of which the first is where the plan itself leads.
    """

    before: tuple[State, ...]
    ask: Trigger | None
    after: tuple[State, ...]


def routes_of(cell: Cell) -> tuple[Route, ...]:
    """The ways through the cell's plan; the seed chooses one."""
    home = (S.VERIFIED_DATA, S.CANCELLED)
    at_cutover = (S.SWITCHED_PRIMARIES, S.CUTOVER)
    match cell.plan:
        case "start":
            return (Route((), None, (S.RUNNING, *home)),)
        case "switch-replicas":
            return (
                Route((S.RUNNING,), T.SWITCH_REPLICAS, (S.SWITCHED_REPLICAS, S.CANCELLED)),
                Route(
                    (S.VERIFIED_DATA,),
                    T.SWITCH_REPLICAS,
                    (S.SWITCHED_REPLICAS, S.SWITCHED_PRIMARIES, S.CANCELLED),
                ),
            )
        case "switch-primaries":
            return (
                Route((S.RUNNING,), T.SWITCH_PRIMARIES, (S.SWITCHED_PRIMARIES, S.RUNNING, *home)),
                Route((S.VERIFIED_DATA,), T.SWITCH_PRIMARIES, (S.SWITCHED_PRIMARIES, S.CUTOVER, S.COMPLETED)),
                Route((S.SWITCHED_REPLICAS,), T.SWITCH_PRIMARIES, (S.SWITCHED_PRIMARIES, S.CANCELLED)),
                # The second time: the forward stream has been dormant in between.
                Route(
                    (S.SWITCHED_PRIMARIES, S.RUNNING),
                    T.SWITCH_PRIMARIES,
                    (S.SWITCHED_PRIMARIES, S.RUNNING, *home),
                ),
            )
        case "reverse-replicas":
            return (
                Route((S.SWITCHED_REPLICAS,), T.REVERSE_TRAFFIC, (S.RUNNING, *home)),
                Route((S.SWITCHED_REPLICAS,), T.CANCEL, (S.CANCELLED,)),
            )
        case "reverse-primaries":
            return (
                Route((S.SWITCHED_PRIMARIES,), T.REVERSE_TRAFFIC, (S.RUNNING, *home)),
                Route(
                    (S.SWITCHED_PRIMARIES,), T.REVERSE_TRAFFIC, (S.RUNNING, S.SWITCHED_PRIMARIES, S.COMPLETED)
                ),
                Route((S.SWITCHED_PRIMARIES,), T.CANCEL, (S.CANCELLED,)),
            )
        case "cut-over":
            return (Route((S.SWITCHED_PRIMARIES,), T.CUTOVER, (S.CUTOVER, S.COMPLETED)),)
        case "cancel":
            return (
                Route((S.RUNNING,), T.CANCEL, (S.CANCELLED,)),
                Route((S.VERIFIED_DATA,), T.CANCEL, (S.CANCELLED,)),
                Route((S.SWITCHED_PRIMARIES,), T.CANCEL, (S.CANCELLED,)),
            )
        case "settle":
            return (
                Route(at_cutover, T.REVERSE_CUTOVER, (S.REVERSED_CUTOVER, S.COMPLETED)),
                Route(at_cutover, T.COMPLETE, (S.COMPLETED,)),
                Route((*at_cutover, S.REVERSED_CUTOVER), T.CUTOVER, (S.CUTOVER, S.COMPLETED)),
            )
        case _:
            return _stream_routes(cell)


def _stream_routes(cell: Cell) -> tuple[Route, ...]:
    home = (S.VERIFIED_DATA, S.CANCELLED)
    return {
        cells.COPYING: (Route((), None, (S.RUNNING, *home)),),
        cells.FOLLOWING: (Route((S.RUNNING,), None, home),),
        cells.VERIFYING: (Route((S.RUNNING,), T.VERIFY_DATA, home),),
        cells.REPLICAS: (Route((S.SWITCHED_REPLICAS,), None, (S.SWITCHED_PRIMARIES, S.CANCELLED)),),
        cells.FOLLOWING_BACK: (
            Route((S.SWITCHED_PRIMARIES,), None, (S.SWITCHED_PRIMARIES, S.RUNNING, *home)),
            Route((S.SWITCHED_PRIMARIES,), None, (S.SWITCHED_PRIMARIES, S.COMPLETED)),
        ),
    }[cell.step]


@dataclass(slots=True)
class Outcome:
    """What came of a run. ``findings`` is empty where all is well."""

    cell: str
    flavor: str
    layout: str
    how: str = ""
    findings: list[str] = field(default_factory=list[str])
    seconds: float = 0.0
    commits: int = 0
    in_doubt: int = 0
    troubles: int = 0
    longest_wait: float = 0.0
    detail: str = ""
    story: list[str] = field(default_factory=list[str])

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


class Run:
    """One cell in one world."""

    def __init__(self, world: World, cell: Cell) -> None:
        self.world = world
        self.cell = cell
        self.chance = random.Random(f"{cell}")
        self.walk = Walk(world)
        self.ledger = money.Ledger(world.groups, world.old)
        self.tellers: list[money.Teller] = []
        self.readers: list[money.Reader] = []
        self.kind = faults.KINDS[cell.fault]
        self.struck = 0.0
        self.mended = False
        self.over = 0.0
        self.owners: set[str] = set()

    def run(self) -> Outcome:
        """Do it all; never raises but for faults of this program's own surroundings."""
        outcome = Outcome(str(self.cell), self.world.flavor.value, self.world.layout.value)
        begun = time.monotonic()
        self.fault = self.kind.make(self.world, self.chance)
        outcome.detail = self.fault.detail
        from_log = self.world.log.stat().st_size if self.world.log.exists() else 0
        try:
            self.world.clock.set(0.0)
            self.world.ready(proxied=self.kind.proxied)
            self.world.reset()
            self.begun_at = owners.beginning(self.world.machines)
            self._go(outcome)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what came of this run
            outcome.findings.append(str(error) or repr(error))
            if not isinstance(error, AssertionError):
                outcome.findings.append(traceback.format_exc()[-1500:])
            self.walk.story += judge.sessions(self.world)
        finally:
            try:
                if self.struck and not self.mended:
                    self.fault.mend()
            except Exception as error:  # noqa: BLE001 - the world is made anew after a finding
                outcome.findings.append(f"mending: {error!r}")
            self._stop(outcome)
        outcome.findings += self._logged(from_log)
        outcome.seconds = round(time.monotonic() - begun, 1)
        outcome.commits = sum(teller.commits for teller in self.tellers)
        outcome.in_doubt = len(self.ledger.doubt)
        outcome.troubles = len(self.ledger.troubles)
        outcome.longest_wait = round(self.ledger.longest, 2)
        outcome.story = self.walk.story
        outcome.how = outcome.how or ("returned" if self.walk.returns or self.walk.errors else "went through")
        return outcome

    # -- the walk --------------------------------------------------------------------------------------------

    def _go(self, outcome: Outcome) -> None:
        route = self.chance.choice(routes_of(self.cell))
        self._open()
        if route.before:
            self.world.create()
            for goal in (S.RUNNING, *route.before):
                self._aim((goal,))
                self.walk.to(goal)
            if route.before[-1] in {S.CUTOVER, S.REVERSED_CUTOVER}:
                self.walk.settled()
        self._arm()
        self._aim(route.before[-1:] or route.after[:1], first=True)
        if route.ask is not None:
            self.walk.ask(route.ask)
        elif not route.before:
            self.world.create()
        self._strike(route)
        self._works_again()
        for goal in route.after:
            self._aim((goal,))
            self.walk.to(goal)
            if goal in {S.RUNNING, S.SWITCHED_PRIMARIES, S.SWITCHED_REPLICAS}:
                self._equal(outcome)
        self._end(outcome, route.after[-1])

    def _open(self) -> None:
        logins, seed = self.world.logins, self.cell.seed
        self.tellers = [
            money.Teller(n + 1, logins[n % len(logins)], SOURCE, self.ledger, seed) for n in range(TELLERS)
        ]
        self.readers = [
            money.Reader("reader", logins[-1], SOURCE, self.ledger),
            money.Reader("replica reader", logins[0], f"{SOURCE}@replica", self.ledger),
        ]
        for client in (*self.tellers, *self.readers):
            client.gateway = logins.index(client.login)
        for client in (*self.tellers, *self.readers):
            client.start()
        self._commits(1, "tellers begin", 60)

    def _aim(self, now: Sequence[State], *, first: bool = False) -> None:
        """Before a cutover applications name no keyspace any more, as they have to."""
        leaving = {S.CUTOVER, S.COMPLETED}
        ask_is_cutover = first and self.cell.plan == "cut-over"
        if not (ask_is_cutover or leaving & set(now)):
            return
        if self.tellers[0].schema == "@primary":
            return
        self.walk.to(S.SWITCHED_PRIMARIES)
        for client in self.tellers:
            client.aim("@primary")
        self.readers[0].aim("@primary")
        self.readers[1].aim("@replica")
        self._commits(2, "tellers aim anew", 60)

    # -- the fault -------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        cell = self.cell
        if cell.plan == cells.STREAMS:
            return
        armed: list[Armed] = []
        if cell.undoing:
            plan = cells.plans()[cell.plan]
            step, moment = cells.fails_at(plan)
            armed.append((cell.plan, step, moment, "fail"))
        # A gate waits at the beginning of what the fault is to strike during.
        at = {Moment.DURING: Moment.BEFORE, Moment.UNDO_DURING: Moment.UNDO_BEFORE}.get(
            cell.moment, cell.moment
        )
        armed.append((cell.plan, cell.step, at, "wait"))
        self.world.control.arm(self.world.workers, armed)

    def _strike(self, route: Route) -> None:
        def alive() -> bool:
            if route.ask is not None and self.world.workflow().state is route.before[-1]:
                self.world.ask(route.ask)  # it has come back: this machine was too busy for a hold's time
            return self.world.alive()

        self._note_owner()
        self.world.at = 0
        if self.cell.plan == cells.STREAMS:
            self._await_state()
        else:
            try:
                self.world.at = self.world.control.arrived(self.world.workers, 45.0, alive)
            except NotInTimeError as error:
                raise AssertionError(f"the step was never reached: {error}") from error
        self.walk.note(f"at {self.cell.plan}/{self.cell.step} {self.cell.moment}: {self.fault.name}")
        during = self.cell.moment in {Moment.DURING, Moment.UNDO_DURING}
        if during and self.cell.plan != cells.STREAMS:
            self.world.control.go_on(self.world.at)
            time.sleep(self.chance.random() * 0.02)
        self.struck = time.monotonic()
        self.fault.strike()
        if not during and not self.fault.ends_worker:
            self.world.control.go_on(self.world.at)
        if not self.fault.blinds:
            self._note_owner()
        faults.wait_out(self.fault, self.struck)
        if not self.fault.blinds:
            self.walk.look()
        self.mended = True
        self.fault.mend()
        self.walk.note("mended")

    def _await_state(self) -> None:
        step = self.cell.step
        if step == cells.COPYING:
            wanted = self.chance.randrange(5, 90) / 100 * (money.ACCOUNTS + money.OLD_TRANSFERS)
            self.world.wait("rows are copied", lambda: self._copied() >= wanted, 30)
        else:
            time.sleep(self.chance.random() * (0.4 if step == cells.VERIFYING else 1.0))

    def _copied(self) -> int:
        count = 0
        for server in self.world.machines.of("target"):
            for table in money.TABLES:
                if self.world.machines.has_table(server, server.schema, table):
                    count += int(
                        self.world.machines.run(server, f"SELECT COUNT(*) FROM {server.schema}.{table}")[0][0]
                    )
        return count

    def _note_owner(self) -> None:
        if self.world.workflow_id:
            self.owners.add("target" if self.world.workflow().primaries_switched else "source")
        else:
            self.owners.add("source")

    def _works_again(self) -> None:
        slow = 90.0 if self.fault.name.startswith("disk") else 45.0
        self._commits(2, f"tellers work again {slow:g} s after the fault was mended", slow)
        self._note_owner()
        machines = self.world.machines
        self.world.wait("all servers answer", lambda: all(map(machines.answers, machines.all)), 90)
        self.over = time.monotonic() + 3.0
        if self.fault.name.startswith("disk"):
            self.over = max(self.over, self.struck + FULL_SECONDS)

    def _commits(self, more: int, what: str, seconds: float) -> None:
        before = [teller.commits for teller in self.tellers]
        deadline = time.monotonic() + seconds
        while any(t.commits < n + more for t, n in zip(self.tellers, before, strict=True)):
            if time.monotonic() > deadline:
                told = [repr(one.text) for one in self.ledger.troubles[-3:]]
                raise AssertionError(f"{what}: not within {seconds:g} s; {self.walk.look()}; {told}")
            time.sleep(0.02)

    # -- the judgement ---------------------------------------------------------------------------------------

    def _equal(self, outcome: Outcome) -> None:
        """Hold all clients for a moment and compare both sides."""
        clients = (*self.tellers, *self.readers)
        for client in clients:
            client.rest(True)
        self.world.wait("clients pause", lambda: all(client.resting for client in clients), 30)
        outcome.findings += judge.different(self.world)
        outcome.findings += judge.misplaced(self.world)
        for client in clients:
            client.rest(False)

    def _end(self, outcome: Outcome, last: State) -> None:
        self.walk.settled()
        self._commits(2, "tellers work at the end", 60)
        self._stop(outcome)
        side = "source" if last is S.CANCELLED else "target"
        outcome.findings += judge.audit(self.world, self.ledger, side)
        if side == "target":
            outcome.findings += judge.misplaced(self.world)
        outcome.findings += self._owned()
        outcome.findings += judge.unlocked(self.world)
        outcome.findings += judge.leftovers(self.world, last)
        hits = self.fault.hits
        if "source" in self.owners and "target" in self.owners and hits & {"source", "target"}:
            hits |= {"source", "target"}  # the side changed while it lasted
        outcome.findings += judge.unexcused(self.ledger, self.struck, self.over, hits, frozenset(self.owners))

    def _owned(self) -> list[str]:
        """One owner of writes at each moment."""
        with self.world.store.read() as tx:
            moves = sum(
                (row.from_state, row.to_state) in OWNERS_CHANGE
                for row in tx.journal.transitions("workflow", self.world.workflow_id)
            )
        sides = owners.written(self.world.machines, self.begun_at)
        return owners.judge(self.ledger.works, self.ledger.doubt, sides, moves)

    def _stop(self, outcome: Outcome) -> None:
        clients = (*self.tellers, *self.readers)
        for client in clients:
            client.halt()
        for client in clients:
            if client.is_alive():
                client.join(30)
            if client.is_alive():
                outcome.findings.append(f"{client.name} hangs in a statement")

    def _logged(self, offset: int) -> list[str]:
        """Faults of the program itself stand in the worker's log."""
        if not self.world.log.exists():
            return []
        with self.world.log.open("rb") as file:
            file.seek(offset)
            text = file.read().decode(errors="replace")
        at = text.find("Traceback (most recent call last)")
        if at < 0:
            return []
        return [f"the worker's log has a traceback: {text[max(0, at - 300) : at + 1500]}"]
