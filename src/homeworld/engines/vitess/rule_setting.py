"""Setting all routing rules of a branch while clients wait: ``model.clusters.RuleSetter``.

Everything that takes long is done before: nobody else may set rules from then on, those that there are have
been read, and the command that sets them is started and waits for them. Invariant: a command that is given
nothing sets nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from homeworld.engines.vitess import looks
from homeworld.engines.vitess.vtctldclient import Vtctldclient, Waiting
from homeworld.model.routing_rules import render

_COMMAND = "ApplyRoutingRules"
_FLAG = "--rules-file"


class PreparedRules:
    """Implements ``model.clusters.RuleSetter``.

    :param served: called with rules and seconds; returns once vtgate serves by them.
    :param release: lets others set rules.
    :raises UnavailableError: the cluster does not say what rules there are; others may set some again.
    """

    def __init__(
        self,
        client: Vtctldclient,
        served: Callable[[Mapping[str, str], float], None],
        release: Callable[[], None],
    ) -> None:
        self._client, self._served, self._release = client, served, release
        self.waiting: Waiting | None = None
        try:
            self._rules = looks.rules_of(client.json("GetRoutingRules"))
            self.waiting = client.begin_with_input(_FLAG, _COMMAND)
        except BaseException:
            release()
            raise

    @property
    def rules(self) -> Mapping[str, str]:
        """The rules that there are."""
        return dict(self._rules)

    def set(self, rules: Mapping[str, str], timeout_seconds: float) -> None:
        """Set all of them; returns once vtgate serves by them.

        :raises DeadlineExceededError: not in time. :raises UnavailableError: nobody says what came of it.
        """
        waiting, self.waiting = self.waiting, None
        if waiting is not None and waiting.alive:
            waiting.give(render(rules), timeout_seconds)
        elif self._rules != dict(rules):
            if waiting is not None:
                waiting.abandon()
            self._client.run_with_file(_FLAG, render(rules), _COMMAND, timeout_seconds=timeout_seconds)
        self._rules = dict(rules)
        self._served(rules, timeout_seconds)

    def close(self) -> None:
        """Let others set rules again; what was not set stays as it was."""
        waiting, self.waiting = self.waiting, None
        try:
            if waiting is not None:
                waiting.abandon()
        finally:
            self._release()
