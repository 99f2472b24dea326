"""A replica becomes the primary: written down before it is done, so that whoever comes later can settle it.

Theory of operation. A promotion is known by the former primary's record::

    promoting = heir     before anything else; from here on the former primary may be fenced
       | the heir has all that can be had, and its record says how far that is (``promoted_at``)
    replica_of = heir    the commit point: from here on only forward
       | the others follow the heir, it takes writes, its record says that it is a primary
    promoting = ""       over

Every step is taken under the locks of all servers concerned. So whoever has these locks and finds
``promoting`` knows that it broke off, and settles it: before the commit point the former primary takes writes
again, after it the heir does.

Invariants: records are read under the locks, never before; of the two at most one takes writes; a fence whose
statement is still waiting at the server is ended before anybody is let write there again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from homeworld.engines import replicas
from homeworld.engines.connection import Control
from homeworld.engines.flavors import Rules, rules
from homeworld.engines.fleet import Fleet
from homeworld.engines.layout import Record
from homeworld.engines.locks import NamedLocks
from homeworld.model.errors import DeadlineExceededError, HomeworldError, InvalidError, UnavailableError
from homeworld.model.gtid import Position

_log = logging.getLogger(__name__)

_FENCE_SECONDS = 10.0  # for an answer of the former primary
_LOCK_SECONDS = 6  # of it, for commits and table locks to end; less, so that the server gives up first
_LOCK_WAIT_TIMEOUT = 1205
_NO_SUCH_THREAD = 1094
# The session that fences a server has this named lock there: who comes later can end what it still waits for.
_FENCING = "homeworld promotion"


class Promotions:
    """The promotions among the servers of one data directory."""

    def __init__(self, fleet: Fleet, locks: NamedLocks) -> None:
        self._fleet = fleet
        self._layout = fleet.layout
        self._locks = locks

    def promote(self, heir: str, timeout_seconds: float, *, accept_loss: bool) -> None:
        """As :meth:`LocalEngine.promote`, but for the other replicas, which do not follow yet.

        :raises InvalidError: somebody else promoted another one meanwhile.
        :raises DeadlineExceededError: somebody was at work on one of the servers all the time.
        """
        deadline = time.monotonic() + timeout_seconds
        former = self._former(heir)
        if former is None:
            with ExitStack() as stack:
                self._enter(stack, heir, deadline)
                record = self._layout.read(heir)
                if record.replica_of is None:
                    with self._fleet.owner(heir) as owner:
                        replicas.become_primary(owner, rules(record.flavor))
                    return
            raise InvalidError(f"{heir} follows {record.replica_of} by now; ask again")
        with self._locked(former, heir, deadline):
            self._settle(former)
            record = self._layout.read(heir)
            if record.replica_of == former:
                self._take_over(former, record, timeout_seconds, accept_loss=accept_loss)
            elif record.replica_of is not None:
                raise InvalidError(f"{heir} follows {record.replica_of} by now; ask again")

    def furthest(self, server_ids: Sequence[str], timeout_seconds: float) -> str:
        """As :meth:`LocalEngine.furthest`."""
        positions: dict[str, Position] = {}
        for server_id in server_ids:
            try:
                positions[server_id] = self._applied(self._layout.read(server_id), timeout_seconds)
            except UnavailableError as error:
                _log.warning("replica %s cannot be asked what it has: %s", server_id, error.message)
        for server_id, position in positions.items():
            if all(position.contains(other) for other in positions.values()):
                return server_id
        names = ", ".join(server_ids)
        raise UnavailableError(f"of the replicas {names} none is known to have what all of them have")

    def unsettled(self, server_id: str) -> bool:
        """Whether a promotion of a replica of this server is under way or broke off.

        :raises NotFoundError: no such server.
        """
        return bool(self._layout.read(server_id).promoting)

    def settle(self, former: str) -> str:
        """Settle a promotion that broke off; what was done, in one line. Empty: there is none, or somebody is
        at work on it.

        :raises HomeworldError: it cannot be done now.
        """
        if not self.unsettled(former):
            return ""
        names = self._concerned(former)
        with ExitStack() as stack:
            for name in names:
                if not stack.enter_context(self._locks.attempt(name)):
                    return ""
            # Who has come since is settled with them the next time.
            return self._settle(former) if self._concerned(former) == names else ""

    # -- who is concerned ------------------------------------------------------------------------------------

    def _former(self, heir: str) -> str | None:
        """Whom the server follows, or whom it has not wholly replaced yet."""
        record = self._layout.read(heir)
        if record.replica_of is not None:
            return record.replica_of
        return next((each.server_id for each in self._layout.records() if each.promoting == heir), None)

    def _concerned(self, former: str, *more: str) -> list[str]:
        """All whose records a promotion changes, in the one order in which they are locked."""
        record = self._layout.read(former)
        heirs = {name for name in (record.promoting, *more) if name}
        followers = {each.server_id for each in self._layout.records() if each.replica_of in {former, *heirs}}
        return sorted({former, *heirs, *followers})

    @contextmanager
    def _locked(self, former: str, heir: str, deadline: float) -> Generator[None]:
        """:raises DeadlineExceededError: somebody is at work on one of them for too long."""
        while True:
            names = self._concerned(former, heir)
            with ExitStack() as stack:
                for name in names:
                    self._enter(stack, name, deadline)
                # One may have been made, or have begun to follow, while the others were waited for.
                if self._concerned(former, heir) == names:
                    yield
                    return

    def _enter(self, stack: ExitStack, name: str, deadline: float) -> None:
        # Clients are held meanwhile, and not for as long as bringing a server up may take.
        if not stack.enter_context(self._locks.attempt(name, max(0.0, deadline - time.monotonic()))):
            raise DeadlineExceededError(f"somebody is at work on server {name}; try again when that is over")

    # -- under the locks -------------------------------------------------------------------------------------

    def _take_over(self, former: str, heir: Record, timeout_seconds: float, *, accept_loss: bool) -> None:
        self._layout.write(replace(self._layout.read(former), promoting=heir.server_id))
        try:
            position = self._all_that_is_had(former, heir, timeout_seconds, accept_loss=accept_loss)
            self._layout.write(replace(self._layout.read(heir.server_id), promoted_at=position))
            self._layout.write(replace(self._layout.read(former), replica_of=heir.server_id))
        except BaseException:
            try:
                self._settle(former)
            except Exception:  # noqa: BLE001 - what went wrong before is to be told; the watcher goes on with this
                _log.exception("the promotion of %s could not be taken back yet", heir.server_id)
            raise
        self._settle(former)

    def _settle(self, former: str) -> str:
        record = self._layout.read(former)
        heir = record.promoting
        if not heir:
            return ""
        if record.replica_of is None:
            self._let_write(record)
            self._layout.write(replace(self._layout.read(former), promoting=""))
            return f"takes writes again: the promotion of {heir} broke off before it counted"
        for other in [each for each in self._layout.records() if each.replica_of == former]:
            if other.server_id != heir:
                self._layout.write(replace(other, replica_of=heir))
        # It takes writes before its record says so: whoever finds it a primary may send them.
        with self._fleet.owner(heir) as owner:
            replicas.become_primary(owner, rules(record.flavor))
        self._layout.write(replace(self._layout.read(heir), replica_of=None))
        self._layout.write(replace(self._layout.read(former), promoting=""))
        return f"is replaced by {heir}: its promotion was finished"

    def _all_that_is_had(
        self, former: str, heir: Record, timeout_seconds: float, *, accept_loss: bool
    ) -> str:
        """Fence the former primary, and let the heir have all that can be had; its position then."""
        rule = rules(heir.flavor)
        with self._fleet.owner(heir.server_id) as replica:
            if self._fence(former, heir.server_id, rule, accept_loss=accept_loss):
                # Who was asked what it has fetches nothing any more.
                replica.run(rule.start_replica)
                with self._fleet.owner(former) as primary:
                    replicas.wait(primary, replica, rule, timeout_seconds)
                return str(replica.value(rule.position) or "")
            replicas.apply_received(replica, rule, timeout_seconds)
            position = str(replica.value(rule.position) or "")
        # With the primary's word the heir has all there is; without it another may have got more.
        others = [each for each in self._layout.records() if each.replica_of == former]
        others = [each for each in others if each.server_id != heir.server_id]
        self._check_furthest(position, others, self._layout.read(former).promoted_at, timeout_seconds)
        return position

    def _fence(self, former: str, heir: str, rule: Rules, *, accept_loss: bool) -> bool:
        """Let the former primary take no more writes; whether it can still be asked, else it is dead.

        :raises UnavailableError: it does not answer, and nothing may be lost.
        :raises DeadlineExceededError: somebody there keeps tables locked.
        """
        try:
            with self._fleet.owner(former, _FENCE_SECONDS) as primary:
                primary.run(f"SET SESSION lock_wait_timeout={_LOCK_SECONDS:d}")
                _be_the_one(primary)
                primary.run(rule.read_only)
        except UnavailableError as error:
            if not accept_loss:
                raise UnavailableError(
                    f"{former} does not answer, so nobody knows whether {heir} has all of it: "
                    f"{error.message}. Promote it all the same only if the rest may be lost"
                ) from error
            self._fleet.end(former, 0)
            return False
        except HomeworldError as error:
            if error.facts.get("mysql_errno") != _LOCK_WAIT_TIMEOUT:
                raise
            raise DeadlineExceededError(
                f"somebody keeps tables of {former} locked, and it cannot be fenced behind that"
            ) from error
        return True

    def _let_write(self, former: Record) -> None:
        """The former primary takes writes again. Where its process has ended it will by itself."""
        if self._fleet.pid(former.server_id) is None:
            return
        with self._fleet.owner(former.server_id, _FENCE_SECONDS) as primary:
            _be_the_one(primary)
            primary.run(rules(former.flavor).writable)

    def _check_furthest(
        self, position: str, others: Sequence[Record], began: str, timeout_seconds: float
    ) -> None:
        """Hold that no other replica has more.

        :param began: what the former primary had when it was promoted; empty: it always was one.
        :raises InvalidError: one has.
        :raises DeadlineExceededError: one does not come to an end with what it had received.
        """
        for other in others:
            try:
                with self._fleet.owner(other.server_id) as owner:
                    alone = replicas.read(owner, rules(other.flavor)) is None
                theirs = self._applied(other, timeout_seconds)
                if alone and not (began and Position.parse(other.flavor, began).contains(theirs)):
                    continue  # it follows nobody: what it had beyond its successor was given up with it
            except DeadlineExceededError:
                raise  # it answers, and may have more
            except UnavailableError as error:
                _log.warning("replica %s cannot be asked what it has: %s", other.server_id, error.message)
                continue
            if not Position.parse(other.flavor, position).contains(theirs):
                raise InvalidError(f"replica {other.server_id} has more ({theirs}); promote that one")

    def _applied(self, replica: Record, timeout_seconds: float) -> Position:
        """What a replica has once it has applied all that it had received. It fetches nothing more."""
        rule = rules(replica.flavor)
        with self._fleet.owner(replica.server_id) as owner:
            replicas.apply_received(owner, rule, timeout_seconds)
            return Position.parse(replica.flavor, str(owner.value(rule.position) or ""))


def _be_the_one(primary: Control) -> None:
    """No other session fences the server: one that a process has left may still wait for its statement's
    turn, and would have it after all.

    :raises UnavailableError: it does not end.
    """
    number = primary.value(f"SELECT IS_USED_LOCK('{_FENCING}')")
    if number is not None:
        try:
            primary.run(f"KILL CONNECTION {int(number):d}")
        except HomeworldError as error:
            if error.facts.get("mysql_errno") != _NO_SUCH_THREAD:
                raise
    if primary.value(f"SELECT GET_LOCK('{_FENCING}', {_LOCK_SECONDS - 1:d})") != 1:
        raise UnavailableError("a fence that was left does not end")
