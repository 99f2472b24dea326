"""Puts the executor together from its ports, for the composition root and for tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from homeworld.model.clusters import ClusterMoves, Clusters, SwitchedClusters
from homeworld.model.ports import Engine, Gateways, Movers, Placements, Preconditions, SourceFence
from homeworld.store.store import Store
from homeworld.workflows import provisioning
from homeworld.workflows.clusters.following import await_followed
from homeworld.workflows.clusters.handler import Followers
from homeworld.workflows.engine_changes.context import Ports as EnginePorts
from homeworld.workflows.engine_changes.handler import EngineChanges
from homeworld.workflows.engine_changes.looking import ServerSight
from homeworld.workflows.executor import POLL_SECONDS, Executor, Handler
from homeworld.workflows.failover import CatchingUp, Promotes, PromotingEngine
from homeworld.workflows.leases import TTL_SECONDS
from homeworld.workflows.maintenance.handler import Maintenance, Restarts
from homeworld.workflows.maintenance.handler import Ports as MaintenancePorts
from homeworld.workflows.move_tables.context import Ports, VitessPorts
from homeworld.workflows.move_tables.handler import Means, MoveTables
from homeworld.workflows.move_tables.preconditions.checker import Checker
from homeworld.workflows.move_tables.servers import ServerTools
from homeworld.workflows.move_tables.vitess_known import finder
from homeworld.workflows.move_tables.vitess_mover import VitessMovers
from homeworld.workflows.move_tables.vitess_plans import attached_plans, vitess_plans
from homeworld.workflows.placements import StillTables
from homeworld.workflows.provisioning.branches import Branches, Databases
from homeworld.workflows.provisioning.keyspaces import Keyspaces
from homeworld.workflows.reparenting.context import Ports as ReparentPorts
from homeworld.workflows.reparenting.handler import Reparents
from homeworld.workflows.resizing.gateways import GatewayResizes
from homeworld.workflows.resizing.keyspaces import KeyspaceResizes


def make_preconditions(store: Store, engine: Engine) -> Preconditions:
    """What the API asks before it accepts a workflow."""
    return Checker(store, engine)


def make_placements(
    store: Store,
    engine: Engine,
    gateways: Gateways,
    publish: Callable[[], None],
    clusters: Clusters | None = None,
) -> Placements:
    """What keeps tables empty while a vschema places them anew."""
    return StillTables(store, engine, gateways, publish, clusters)


def vitess_means(
    local: Ports, preconditions: Preconditions, clusters: SwitchedClusters, moves: ClusterMoves
) -> tuple[Means, Means]:
    """What moves tables of databases on Vitess: on clusters of ours, and on those that others run.

    :param local: what workflows on servers alone act on; most of it is the same.
    """
    store = local.store

    def followed(branch_id: str, check: Callable[[], None]) -> None:
        await_followed(store, branch_id, check=check)

    ports = replace(
        local,
        movers=VitessMovers(moves, finder(store, local.engine)),
        vitess=VitessPorts(clusters, moves, followed),
    )
    return Means(ports, vitess_plans(preconditions)), Means(ports, attached_plans(preconditions))


def make_executor(
    store: Store,
    engine: Engine,
    gateways: Gateways,
    movers: Movers,
    fence: SourceFence,
    publish: Callable[[], None],
    *,
    owner: str,
    clusters: SwitchedClusters | None = None,
    moves: ClusterMoves | None = None,
    placement: provisioning.Placement = provisioning.Placement.SHARED,
    workers: int = 6,
    poll_seconds: float = POLL_SECONDS,
    ttl_seconds: float = TTL_SECONDS,
) -> Executor:
    """An executor with all handlers; not started.

    :param publish: reads the routes from the store and returns once every gateway serves them.
    :param owner: this executor's name among all, at most 64 characters.
    :param clusters: what carries databases of Vitess; None: nothing here does.
    :param moves: what moves tables within those clusters.
    :param placement: how shards are spread over servers.
    """
    making = provisioning.Ports(store, engine, publish, placement)
    moving = Ports(store, engine, gateways, movers, fence, publish, ServerTools)
    preconditions = make_preconditions(store, engine)
    vitess: Means | None = None
    attached: Means | None = None
    if clusters is not None and moves is not None:
        vitess, attached = vitess_means(moving, preconditions, clusters, moves)
    handlers: tuple[Handler, ...] = (
        Databases(making),
        Branches(making),
        Keyspaces(making),
        KeyspaceResizes(making, gateways),
        GatewayResizes(making),
        MoveTables(moving, preconditions, vitess=vitess, attached=attached),
    )
    if clusters is not None:
        changing = EnginePorts(store, engine, gateways, clusters, ServerSight(), publish)
        handlers = (*handlers, Followers(store, clusters), EngineChanges(changing))
    if isinstance(engine, Restarts):
        handlers = (*handlers, Maintenance(MaintenancePorts(store, engine, gateways, publish)))
    if isinstance(engine, PromotingEngine):
        handlers = (*handlers, Reparents(ReparentPorts(store, engine, gateways, publish)))
    return Executor(
        store,
        handlers,
        owner,
        publish=publish,
        chores=(CatchingUp(store, engine),) if isinstance(engine, Promotes) else (),
        workers=workers,
        awaited=(Followers.kind,),
        poll_seconds=poll_seconds,
        ttl_seconds=ttl_seconds,
    )
