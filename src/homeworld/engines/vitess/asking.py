"""What is asked of a cluster alike, whoever runs it: its rules, its vschemas, and by what its vtgate serves.

Invariant: whether vtgate serves by something is read from that vtgate, never from the topology.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping

from homeworld.engines.vitess import looks
from homeworld.engines.vitess.answers import list_of, object_of
from homeworld.engines.vitess.vtctldclient import Vtctldclient, json_in
from homeworld.model.errors import DeadlineExceededError, NotFoundError, UnavailableError
from homeworld.model.routing_rules import render

_RULES_SECONDS = 30.0
_SHOWN_SECONDS = 3.0
_PAUSE_SECONDS = 0.05


class Asking(ABC):
    """The part of ``model.clusters.Clusters`` that needs no processes of one's own."""

    @abstractmethod
    def vtctldclient(self, branch_id: str) -> Vtctldclient:
        """The client of the branch's vtctld.

        :raises NotFoundError: the branch has no cluster here.
        """

    @abstractmethod
    def seen_by_vtgate(self, branch_id: str) -> looks.VtgateView:
        """By what the branch's vtgate serves now.

        :raises UnavailableError: it does not answer. :raises NotFoundError: the branch has no cluster here.
        """

    @abstractmethod
    def keyspaces(self, branch_id: str) -> Collection[str]:
        """The names of the keyspaces that the cluster has.

        :raises NotFoundError: the branch has no cluster here.
        """

    def rules(self, branch_id: str) -> Mapping[str, str]:
        """The routing rules as the cluster has them now.

        :raises UnavailableError: it does not say.
        """
        return looks.rules_of(self.vtctldclient(branch_id).json("GetRoutingRules"))

    def apply_rules(self, branch_id: str, rules: Mapping[str, str]) -> None:
        """Set all routing rules; returns once vtgate serves by them."""
        client = self.vtctldclient(branch_id)
        if looks.rules_of(client.json("GetRoutingRules")) != dict(rules):
            client.run_with_file("--rules-file", render(rules), "ApplyRoutingRules")
        else:
            try:
                self.await_rules(branch_id, rules, _SHOWN_SECONDS)
            except DeadlineExceededError:
                # Whoever set them died before it told what vtgate reads.
                client.run("RebuildVSchemaGraph")
        self.await_rules(branch_id, rules, _RULES_SECONDS)

    def set_rules(
        self, branch_id: str, rules: Mapping[str, str], names: Collection[str], timeout_seconds: float
    ) -> None:
        """Set the rules of some names. All others stay as they are, whatever they are: what is read is
        written back at once, with nothing between.

        :raises DeadlineExceededError: vtgate does not serve by them in time.
        """
        client = self.vtctldclient(branch_id)
        listed = list_of(object_of(client.json("GetRoutingRules")).get("rules"))
        kept = [rule for rule in listed if object_of(rule).get("from_table") not in names]
        wanted = {name: rules[name] for name in sorted(names) if name in rules}
        own = [rule for rule in listed if object_of(rule).get("from_table") in names]
        if looks.rules_of({"rules": own}) != wanted or len(own) != len(wanted):
            entries = [{"from_table": name, "to_tables": [to]} for name, to in wanted.items()]
            client.run_with_file("--rules-file", {"rules": [*kept, *entries]}, "ApplyRoutingRules")
        deadline, rebuilt = time.monotonic() + timeout_seconds, time.monotonic() + _SHOWN_SECONDS
        while True:
            try:
                view = self.seen_by_vtgate(branch_id)
                late = [
                    name for name in names if view.rules.get(name) != wanted.get(name) or name in view.refused
                ]
                why = "; ".join(view.refused.values()) or "it serves by other rules"
            except UnavailableError as error:
                late, why = sorted(names), error.message
            if not late:
                return
            if time.monotonic() >= rebuilt:
                # Whoever set them died before it told what vtgate reads.
                client.run("RebuildVSchemaGraph")
                rebuilt = float("inf")
            if time.monotonic() >= deadline:
                raise DeadlineExceededError(
                    f"vtgate of branch {branch_id} does not serve by the routing rules of "
                    f"{', '.join(sorted(late)[:4])} after {timeout_seconds:g} s: {why}"
                )
            time.sleep(_PAUSE_SECONDS)

    def await_rules(self, branch_id: str, rules: Mapping[str, str], timeout_seconds: float) -> None:
        """Return once vtgate serves by these rules, whoever has set them.

        :raises DeadlineExceededError: it does not in time.
        """
        wanted = dict(rules)
        deadline, why, pause = time.monotonic() + timeout_seconds, "", 0.01
        while True:
            try:
                view = self.seen_by_vtgate(branch_id)
                if view.rules == wanted and not view.refused:
                    return
                why = "; ".join(view.refused.values()) or "it serves by other rules"
            except UnavailableError as error:
                why = error.message
            if time.monotonic() >= deadline:
                raise DeadlineExceededError(
                    f"vtgate of branch {branch_id} does not serve by the routing rules after "
                    f"{timeout_seconds:g} s: {why}"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 0.2)

    def vschema(self, branch_id: str, keyspace: str) -> Mapping[str, object]:
        """The keyspace's vschema as the cluster has it now.

        :raises NotFoundError: it has no such keyspace.
        """
        return looks.canonical(self.vtctldclient(branch_id).json("GetVSchema", keyspace))

    def check_vschema(self, branch_id: str, keyspace: str, vschema: Mapping[str, object]) -> None:
        """Ask whether the cluster would take this vschema; nothing changes. A branch without a keyspace has
        nobody who could be asked.

        :raises InvalidError: it would not; in Vitess's words.
        """
        try:
            known = sorted(self.keyspaces(branch_id))
        except NotFoundError:
            return
        if not known:
            return
        # Vitess builds it alike, whatever the keyspace's name is.
        name = keyspace if keyspace in known else known[0]
        self.vtctldclient(branch_id).run_with_file(
            "--vschema-file", dict(vschema), "ApplyVSchema", "--dry-run", name
        )

    def run(self, branch_id: str, *arguments: str, timeout_seconds: float) -> object:
        """Run a command of vtctldclient in the branch's cluster.

        :returns: the JSON that it prints, parsed; None where it prints none.
        :raises UnavailableError: it was not reached, or did not say in time what came of it.
        :raises HomeworldError: it refuses, in its words.
        """
        return json_in(self.vtctldclient(branch_id).run(*arguments, timeout_seconds=timeout_seconds))

    def run_with_file(
        self, branch_id: str, flag: str, content: object, *arguments: str, timeout_seconds: float
    ) -> None:
        """The same with JSON in a file that ``flag`` names."""
        client = self.vtctldclient(branch_id)
        client.run_with_file(flag, content, *arguments, timeout_seconds=timeout_seconds)
