"""What provisioning waits for of a branch's cluster."""

from __future__ import annotations

from homeworld.model.errors import UnavailableError
from homeworld.store.store import Store
from homeworld.workflows.provisioning.runner import NotYetError


def settled(store: Store, branch_id: str) -> None:
    """The branch's cluster is what is stored; or it is gone, where there is to be none.

    :raises NotYetError: it is a matter of time.
    :raises UnavailableError: it does not follow, with the reason.
    """
    with store.read() as tx:
        why = tx.followings.behind(branch_id)
    if why is None:
        return
    if why:
        raise UnavailableError(f"the branch's cluster does not follow: {why}")
    raise NotYetError("the branch's cluster follows")
