"""A plain router with one statement more: ``IDS sequence count`` inserts so many ids into table ``made``."""

from __future__ import annotations

from homeworld.gateway.plan import Destination, Footprint, NeedSequence, Plan, Scatter, SessionView, Verb
from homeworld.model.topology import TabletType
from tests.support.plain_router import PlainRouter


class SequenceRouter(PlainRouter):
    def plan(self, sql: bytes, view: SessionView) -> Plan:
        if not sql.startswith(b"IDS "):
            return super().plan(sql, view)
        _, table, count = sql.decode().split()
        keyspace = self.routes.default_keyspace
        if not view.sequence_ids:
            return NeedSequence(keyspace, table, int(count))
        values = ",".join(f"({number})" for number in view.sequence_ids)
        destination = Destination(keyspace, "", TabletType.PRIMARY)
        footprint = Footprint(Verb.INSERT, frozenset({(keyspace, "made")}))
        insert = f"INSERT INTO made VALUES {values}".encode()
        return Scatter(((destination, insert),), footprint, last_insert_id=view.sequence_ids[0])
