"""Clusters that others run: ``model.clusters.Clusters`` without a process of one's own.

Nothing is started, stopped or promoted here. What of a cluster is homeworld's to change are vschemas, routing
rules and moves; what keyspaces, shards and primaries it has is read from it, and the store follows
(``workflows/clusters/adopting``). Invariant: only the addresses of the attachment and of the cluster's own
topology are ever asked.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from homeworld.engines.vitess import arguments, looks
from homeworld.engines.vitess.asking import Asking
from homeworld.engines.vitess.attached_topology import seen_of
from homeworld.engines.vitess.attachments import Address, Attachment, Attachments, Server
from homeworld.engines.vitess.looks import canonical
from homeworld.engines.vitess.vtctldclient import Vtctldclient
from homeworld.model.attachments import SeenCluster, server_id
from homeworld.model.clusters import ClusterSpec
from homeworld.model.errors import InvalidError, NotFoundError, UnavailableError
from homeworld.model.topology import BackendRole, Endpoint, Flavor

_LOOK_SECONDS = 0.1


class AttachedClusters(Asking):
    """Implements ``model.clusters.Clusters`` over clusters of others.

    :param client: the path of vtctldclient, asked when it is needed.
    """

    def __init__(self, attachments: Attachments, client: Callable[[], Path], scratch: Path) -> None:
        self._attachments = attachments
        self._client = client
        self._scratch = scratch

    # -- the Clusters protocol -------------------------------------------------------------------------------

    def follow(
        self, spec: ClusterSpec, timeout_seconds: float, check: Callable[[], None] = lambda: None
    ) -> None:
        """Give the cluster those of the spec's vschemas that it is to be given; returns once vtgate serves by
        them.

        :raises UnavailableError: not in time; or a keyspace of the spec has other shards or primaries there,
            or is gone, which is then to be read anew.
        :raises InvalidError: Vitess refuses a vschema.
        """
        deadline = time.monotonic() + timeout_seconds
        check()
        seen = self.look(spec.branch_id)
        if why := difference(spec, seen):
            raise UnavailableError(f"the cluster is not what is stored of it, and is read anew: {why}")
        client = self.vtctldclient(spec.branch_id)
        served = {keyspace.name: keyspace.vschema for keyspace in seen.keyspaces}
        given = [one for one in spec.keyspaces if one.name in (spec.given or ())]
        for keyspace in given:
            if why := seen.odd.get(keyspace.name):
                raise UnavailableError(f"keyspace {keyspace.name} is left as it is: {why}")
        for keyspace in given:
            if canonical(served.get(keyspace.name, {})) != canonical(keyspace.vschema):
                check()
                client.run_with_file("--vschema-file", dict(keyspace.vschema), "ApplyVSchema", keyspace.name)
        while True:
            view = self.seen_by_vtgate(spec.branch_id)
            unknown = [one.name for one in given if not looks.knows(view, one)]
            if not unknown:
                return
            if time.monotonic() > deadline:
                raise UnavailableError(f"vtgate does not serve the vschema of {', '.join(unknown)} yet")
            time.sleep(_LOOK_SECONDS)

    def end(self, branch_id: str, check: Callable[[], None] = lambda: None) -> None:
        """Forget how the cluster is reached; the cluster stays as it is."""
        check()
        self._attachments.forget(branch_id)

    def vtgate(self, branch_id: str) -> Endpoint:
        """Where the cluster's vtgate takes MySQL clients, without user and password.

        :raises NotFoundError: the branch is no attached cluster.
        """
        found = self._attachments.get(branch_id)
        return Endpoint(
            server_id=f"vtgate-{branch_id}",
            flavor=Flavor.MYSQL,
            host=found.vtgate.host,
            port=found.vtgate.port,
            socket="",
            user="",
            password="",
            vtgate=True,
        )

    # -- what Asking needs -----------------------------------------------------------------------------------

    def vtctldclient(self, branch_id: str) -> Vtctldclient:
        """The client of the cluster's vtctld.

        :raises NotFoundError: the branch is no attached cluster.
        """
        found = self._attachments.get(branch_id)
        files = self._attachments.certificates(branch_id) if found.tls else None
        program = self._client()
        return Vtctldclient(
            lambda seconds: arguments.foreign_vtctldclient(
                program, str(found.vtctld), files, found.server_name, seconds
            ),
            self._scratch,
        )

    def seen_by_vtgate(self, branch_id: str) -> looks.VtgateView:
        """By what the cluster's vtgate serves now.

        :raises UnavailableError: it does not answer.
        """
        return looks.vtgate_view(self._told_by_vtgate(self._attachments.get(branch_id)))

    def keyspaces(self, branch_id: str) -> list[str]:
        """The names of the keyspaces that vtgate serves.

        :raises UnavailableError: it does not answer.
        """
        return sorted(self.seen_by_vtgate(branch_id).keyspaces)

    @staticmethod
    def _told_by_vtgate(found: Attachment) -> dict[str, object]:
        address = found.vtgate_http
        return looks.get_json(address.port, "/debug/vschema", host=address.host)

    def branch_ids(self) -> list[str]:
        """The branches that are such clusters."""
        return self._attachments.branch_ids()

    def abandon(self, branch_id: str) -> None:
        """Forget how a cluster is reached of which no branch came to be within an hour."""
        self._attachments.forget(branch_id, older_than_seconds=3600.0)

    # -- reading what there is -------------------------------------------------------------------------------

    def look(self, branch_id: str) -> SeenCluster:
        """What the cluster is now. Costs a command for each keyspace and some more.

        :raises UnavailableError: it does not answer.
        """
        client = self.vtctldclient(branch_id)
        # The topology keeps tablets that died long ago; what serves is vtgate's to say.
        serving = {one.alias for one in looks.tablets_of(self._gate(branch_id), 5.0) if one.serves}
        keyspaces = client.json("GetKeyspaces")
        names = [str(one["name"]) for one in keyspaces or ()]
        return seen_of(
            keyspaces,
            client.json("GetTablets", "--format=json"),
            {name: client.json("FindAllShardsInKeyspace", name) for name in names},
            {name: client.json("GetVSchema", name) for name in names},
            client.json("GetRoutingRules"),
            serving,
        )

    def glance(self, branch_id: str) -> str:
        """A digest of what vtgate has of the cluster; another one where tablets, vschemas or rules changed.

        :raises UnavailableError: vtgate does not answer.
        """
        found = self._attachments.get(branch_id)
        tablets = sorted(
            (one.keyspace, one.shard, one.tablet_type, one.serves, one.alias)
            for one in looks.tablets_of(self._gate(branch_id))
        )
        told = json.dumps([tablets, self._told_by_vtgate(found)], sort_keys=True)
        return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()

    def _gate(self, branch_id: str) -> Endpoint:
        """vtgate, as the account that was given for it."""
        found = self._attachments.get(branch_id)
        return replace(self.vtgate(branch_id), user=found.gate.user, password=found.gate.password)

    def remember(self, branch_id: str, seen: SeenCluster) -> None:
        """Note where the servers are that were seen, before the store names them.

        :raises InvalidError: one is on another machine, and it was not said that this may be.
        """
        found = self._attachments.get(branch_id)
        if far := in_the_clear(found, seen):
            raise InvalidError(
                f"rows and passwords would go to other machines without TLS: {', '.join(far[:4])}; attach it "
                "anew with --in-the-clear where you trust the network between"
            )
        known = {server.alias: server for server in found.servers}
        # One that does not serve now is still where it was.
        known |= {server.alias: server for server in servers_of(branch_id, seen)}
        servers = tuple(known[alias] for alias in sorted(known))
        if servers != found.servers:
            self._attachments.write(found.with_servers(servers))

    def credentials(self, branch_id: str) -> Mapping[BackendRole, tuple[str, str]]:
        """What a gateway logs in to vtgate with, as each role.

        :raises NotFoundError: the branch is no attached cluster.
        """
        gate = self._attachments.get(branch_id).gate
        return dict.fromkeys(arguments.ROLES, (gate.user, gate.password))


def servers_of(branch_id: str, seen: SeenCluster) -> tuple[Server, ...]:
    """The servers of a cluster's tablets, ordered by the tablets' aliases."""
    found: dict[str, Server] = {}
    for keyspace in seen.keyspaces:
        for shard in keyspace.shards:
            primary_id = server_id(branch_id, shard.primary.alias)
            for tablet in shard.tablets:
                found[tablet.alias] = Server(
                    server_id(branch_id, tablet.alias),
                    tablet.alias,
                    tablet.mysql_host,
                    tablet.mysql_port,
                    primary_id,
                )
    return tuple(found[alias] for alias in sorted(found))


def in_the_clear(found: Attachment, seen: SeenCluster | None) -> list[str]:
    """What is reached without TLS on other machines, where that was not allowed.

    :param seen: None: only what the attachment itself names.
    """
    if found.in_the_clear:
        return []
    asked = [("vtgate", found.vtgate), ("vtgate's HTTP port", found.vtgate_http)]
    if not found.tls:
        asked.append(("vtctld", found.vtctld))
    for keyspace in seen.keyspaces if seen is not None else ():
        for shard in keyspace.shards:
            for tablet in shard.tablets:
                asked.append((f"the server of {tablet.alias}", Address(tablet.mysql_host, tablet.mysql_port)))
                asked.append((f"tablet {tablet.alias}", Address(tablet.host, tablet.http_port)))
    return [f"{what} ({address})" for what, address in asked if not address.is_here]


def difference(spec: ClusterSpec, seen: SeenCluster) -> str:
    """What of the spec's shards and primaries is otherwise there, in one sentence; empty: nothing. Keyspaces
    that the spec does not have, and such as nobody can say anything of now, do not count.
    """
    wanted = {
        (keyspace.name, shard.name): shard.primary_server_id
        for keyspace in spec.keyspaces
        for shard in keyspace.shards
    }
    there = {
        (keyspace.name, shard.name): server_id(spec.branch_id, shard.primary.alias)
        for keyspace in seen.keyspaces
        for shard in keyspace.shards
    }
    odd, known = set(seen.odd), {keyspace.name for keyspace in spec.keyspaces}
    wanted = {place: one for place, one in wanted.items() if place[0] not in odd}
    there = {place: one for place, one in there.items() if place[0] in known - odd}
    for keyspace, shard in sorted(wanted.keys() ^ there.keys()):
        which = "no" if (keyspace, shard) in wanted else "a"
        return f"it has {which} shard {keyspace}/{shard}"
    for place in sorted(wanted):
        if wanted[place] != there[place]:
            return f"{'/'.join(place)} has another primary"
    return ""


def endpoint_of(found: Attachment, server: Server, role: BackendRole) -> Endpoint:
    """A server as the attachment's account for a role.

    :param role: of clients: the account is vtgate's, which servers need not know.
    :raises NotFoundError: it takes no clients over a network.
    """
    if not server.port:
        raise NotFoundError(f"the server of tablet {server.alias} takes no clients over a network")
    login = found.gate if role in arguments.ROLES else found.owner
    return Endpoint(
        server_id=server.server_id,
        flavor=Flavor.MYSQL,
        host=server.host,
        port=server.port,
        socket="",
        user=login.user,
        password=login.password,
    )
