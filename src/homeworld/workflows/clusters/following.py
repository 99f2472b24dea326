"""Lets a branch's cluster be what is stored, and lets others wait for it.

Theory of operation. The store is the truth. Whoever changes what a cluster has to be only stores it, which
makes the branch's routes' version grow; one executor at a time then lets the cluster follow (``handler``) and
writes down the version that it has. Whoever needs the cluster to have what was stored waits for that. So a
death anywhere leaves a cluster that is behind, and somebody who sees it.

Routing rules are the cluster's own while a workflow of the branch is not over; else they follow, too. A
workflow's first steps wait (:func:`await_followed`), so that nobody sets rules any more that were read before
it was there.

Invariant: what a cluster was made to be is read and carried out under one lease, and written down under it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from homeworld.model.agreement import Agreement
from homeworld.model.clusters import Clusters, ClusterSpec
from homeworld.model.engines import MAKES_SERVERS
from homeworld.model.errors import FencedError, HomeworldError, UnavailableError
from homeworld.store.followings import Following
from homeworld.store.store import Store, Transaction
from homeworld.workflows.clusters.spec import cluster_spec, rules_digest, spec_digest

FOLLOW_SECONDS = 90.0
"""For a cluster to come up from nothing beside whatever else the machine does."""
WAIT_SECONDS = 20.0
"""How long somebody waits for a cluster that stands; less than a hold lasts."""
AT_ONCE = 4
"""Clusters that are looked at together as everything starts."""
_LOOK_SECONDS = 0.05
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a branch's cluster is to be, as read at one moment.

    :param spec: None: there is to be none.
    :param rules: None: they are not ours to set.
    :param version: the routes' version that says so.
    :param foreign: others run it: it is given what was changed here, and nothing else.
    """

    spec: ClusterSpec | None
    rules: Mapping[str, str] | None
    version: int
    following: Following
    foreign: bool = False


def read_wanted(tx: Transaction, branch_id: str) -> Wanted:
    """What is stored of the branch's cluster now."""
    following, version = tx.followings.get(branch_id), tx.followings.version(branch_id)
    if not tx.followings.wanted(branch_id):
        return Wanted(None, None, version, following)
    keyspaces = tx.keyspaces.of_branch(branch_id)
    shards = tx.keyspaces.shards_of([keyspace.id for keyspace in keyspaces])
    branch = tx.branches.get(branch_id)
    spec = cluster_spec(branch, keyspaces, shards, following.joining)
    moving = branch_id in tx.workflows.active_on([branch_id])
    foreign = tx.databases.get(branch.database_id).engine not in MAKES_SERVERS
    return Wanted(spec, None if moving else tx.routes.rules(branch_id), version, following, foreign)


def let_follow(
    store: Store,
    clusters: Clusters,
    branch_id: str,
    *,
    bind: Callable[[Transaction], None] = lambda _tx: None,
    check: Callable[[], None] = lambda: None,
    timeout_seconds: float = FOLLOW_SECONDS,
) -> bool:
    """Make the branch's cluster what is stored now, or end it where there is to be none.

    :param bind: called within each transaction that writes, to bind it to a lease.
    :param check: called right before the cluster is changed, also behind the wait for whoever is at work on
        it, and before anything of it goes; raises where that is not ours to do any more.
    :returns: whether there was anything to do.
    :raises InvalidError: the cluster cannot be that.
    :raises UnavailableError: it does not come to it in time; calling again goes on.
    :raises FencedError: the lease is lost.
    """
    with store.read() as tx:
        wanted = read_wanted(tx, branch_id)
    now = wanted.following
    if wanted.spec is None:
        if not now.standing:
            return False
        clusters.end(branch_id, check)
        with store.write() as tx:
            bind(tx)
            if not tx.followings.wanted(branch_id):
                tx.followings.ended(branch_id)
            else:
                tx.followings.look_again(branch_id)  # it is wanted again, and nothing of it is left
        return True
    if now.followed >= wanted.version:
        return False
    digest = now.digest
    if wanted.spec.keyspaces or now.standing:
        with store.write() as tx:
            bind(tx)
            if tx.followings.get(branch_id).digest != now.digest:
                return True  # somebody has asked to look again since this was read
            tx.followings.stand(branch_id)
            seen = tx.followings.get(branch_id)
        check()
        try:
            agreed = None
            if wanted.foreign:
                agreed = _give(clusters, wanted, timeout_seconds, check)
            else:
                digest = _carry_out(clusters, wanted, timeout_seconds, check)
            _write_down(store, branch_id, wanted.version, digest, bind, seen, agreed)
        except FencedError:
            # Somebody else lets it follow by now, and may have been overtaken by what was done here.
            with store.write() as tx:
                tx.followings.look_again(branch_id)
            raise
    else:
        _write_down(store, branch_id, wanted.version, digest, bind)
    return True


def _carry_out(clusters: Clusters, wanted: Wanted, timeout_seconds: float, check: Callable[[], None]) -> str:
    """What the cluster was made to be, as a digest: of the spec, and of the rules where they are ours."""
    assert wanted.spec is not None  # noqa: S101 - the caller's condition
    branch_id, spec, rules = wanted.spec.branch_id, spec_digest(wanted.spec), wanted.rules
    had_spec, _, had_rules = wanted.following.digest.partition(".")
    if spec != had_spec:
        clusters.follow(wanted.spec, timeout_seconds, check)
    if rules is None:
        return f"{spec}."
    if (spec, rules_digest(rules)) != (had_spec, had_rules) and dict(clusters.rules(branch_id)) != dict(
        rules
    ):
        clusters.apply_rules(branch_id, rules)
    return f"{spec}.{rules_digest(rules)}"


def _give(clusters: Clusters, wanted: Wanted, timeout_seconds: float, check: Callable[[], None]) -> Agreement:
    """Give a cluster of others what was changed here since the two were alike, and no more: what others have
    changed is not stored yet, and not to be undone. What both have alike then.
    """
    assert wanted.spec is not None  # noqa: S101 - the caller's condition
    spec, rules, branch_id = wanted.spec, wanted.rules, wanted.spec.branch_id
    agreed = Agreement.stored(wanted.following.agreed)
    vschemas = {keyspace.name: keyspace.vschema for keyspace in spec.keyspaces}
    given = agreed.changed_vschemas(vschemas)
    clusters.follow(replace(spec, given=given), timeout_seconds, check)
    agreed = agreed.with_vschemas({name: vschemas[name] for name in given})
    if rules is None:
        return agreed
    names = agreed.changed_rules(rules)
    if names:
        check()
        clusters.set_rules(branch_id, rules, names, timeout_seconds)
    return agreed.with_rules(rules, names)


def _write_down(
    store: Store,
    branch_id: str,
    version: int,
    digest: str,
    bind: Callable[[Transaction], None],
    seen: Following | None = None,
    agreed: Agreement | None = None,
) -> None:
    """The cluster has that version.

    :param seen: its record as this began; where somebody asked to look again since, it is still to be looked
        at.
    """
    with store.write() as tx:
        bind(tx)
        if not tx.followings.wanted(branch_id):
            return
        found = tx.followings.get(branch_id)
        if seen is None or (found.digest, found.updated_at) == (seen.digest, seen.updated_at):
            tx.followings.have(branch_id, version, digest)
            if agreed is not None:
                tx.followings.agree(branch_id, agreed.fields())


def let_all_follow(store: Store, clusters: Clusters, timeout_seconds: float = FOLLOW_SECONDS) -> None:
    """At a start, before anybody is served: every cluster is looked at, and made what is stored. One that
    does not come up is logged, and followed later. Only where no other process lets clusters follow.

    :raises UnavailableError: the store does not answer.
    """
    with store.write() as tx:
        tx.followings.doubt_all()
    with store.read() as tx:
        branch_ids = [branch_id for branch_id, _ in tx.followings.with_work()]

    def follow(branch_id: str) -> None:
        try:
            let_follow(store, clusters, branch_id, timeout_seconds=timeout_seconds)
        except (HomeworldError, OSError) as error:
            _log.error("the cluster of branch %s is not served yet: %s", branch_id, error)
            with store.write() as tx:
                tx.followings.tell(branch_id, str(error))

    # Side by side: who does not come up keeps the others waiting for its whole time.
    with ThreadPoolExecutor(AT_ONCE, "follow") as pool:
        for done in [pool.submit(follow, branch_id) for branch_id in branch_ids]:
            done.result()


def await_followed(
    store: Store,
    branch_id: str,
    seconds: float = WAIT_SECONDS,
    check: Callable[[], None] = lambda: None,
    *,
    anew: bool = False,
) -> None:
    """Return once the branch's cluster is what is stored; at once where there is none and need be none.

    :param check: called while waiting; raises where waiting is over.
    :param anew: whatever it has had: its servers were restarted, and it is to be seen to serve again.
    :raises UnavailableError: it does not follow in time; why.
    """
    if anew:
        with store.write() as tx:
            tx.followings.look_again(branch_id)
    deadline = time.monotonic() + seconds
    while True:
        with store.read() as tx:
            why = tx.followings.behind(branch_id)
        if why is None:
            return
        if time.monotonic() >= deadline:
            raise UnavailableError(f"the branch's cluster does not follow: {why or 'it takes long'}")
        check()
        time.sleep(_LOOK_SECONDS)


def await_serving(
    store: Store,
    branch_id: str,
    seconds: float = WAIT_SECONDS,
    check: Callable[[], None] = lambda: None,
    *,
    anew: bool = False,
) -> None:
    """The same where the branch's statements go through its cluster; else nobody has to wait for one."""
    with store.read() as tx:
        serves = tx.followings.serves(branch_id)
    if serves:
        await_followed(store, branch_id, seconds, check, anew=anew)
