"""What a cluster has to be: records on disk, tablets with numbers and ports, certificates."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import pytest
from cryptography import x509

from homeworld.engines.vitess import certificates, crew
from homeworld.engines.vitess.arguments import Folder, etcd_mark
from homeworld.engines.vitess.records import (
    FIRST_UID,
    Installation,
    Ports,
    Records,
    adjusted,
    place_of,
    plain,
    shared,
)
from homeworld.model.clusters import ClusterKeyspace, ClusterShard, ClusterSpec
from homeworld.model.errors import InvalidError, NotFoundError, UnavailableError

VSCHEMA: Mapping[str, object] = {"sharded": True, "tables": {"t": {}}}


def spec(*shards: ClusterShard, name: str = "ks") -> ClusterSpec:
    return ClusterSpec("branch1", (ClusterKeyspace(name, False, VSCHEMA, shards),))


LOW = ClusterShard("-80", "ks_low", "s1", ("s2",))
HIGH = ClusterShard("80-", "ks_high", "s3", ())


def ports(start: int = 45000) -> Ports:
    return Ports(set(), range(start, start + 200))


def test_a_new_branch_has_a_tablet_for_each_shard_on_each_server() -> None:
    made = adjusted(None, spec(LOW, HIGH), ports())
    assert [(t.uid, t.shard, t.server_id) for t in made.tablets] == [
        (FIRST_UID, "-80", "s1"),
        (FIRST_UID + 1, "-80", "s2"),
        (FIRST_UID + 2, "80-", "s3"),
    ]
    assert len(set(made.ports())) == 4 + 2 * 3
    assert made.wanted == made.tablets
    assert made.leaving == ()


def test_what_is_known_keeps_its_numbers_and_numbers_are_never_given_again() -> None:
    first = adjusted(None, spec(LOW, HIGH), ports())
    without = adjusted(first, spec(LOW), ports(46000))
    assert without.tablets == first.tablets
    assert [t.shard for t in without.leaving] == ["80-"]
    cleared = replace(without, tablets=without.wanted)
    again = adjusted(cleared, spec(LOW, HIGH), ports(46000))
    assert again.tablets[-1].uid == FIRST_UID + 3
    assert again.vtgate_port == first.vtgate_port


def test_a_shard_whose_primary_changes_keeps_its_tablets() -> None:
    first = adjusted(None, spec(LOW), ports())
    turned = adjusted(first, spec(ClusterShard("-80", "ks_low", "s2", ("s1",))), ports(46000))
    assert turned.tablets == first.tablets
    assert turned.leaving == ()


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    records = Records(tmp_path / "vitess")
    with pytest.raises(NotFoundError):
        records.branch("branch1")
    frozen = plain(
        ClusterSpec("branch1", (ClusterKeyspace("ks", True, MappingProxyType(dict(VSCHEMA)), (LOW,)),))
    )
    branch = adjusted(None, frozen, ports())
    records.write_installation(Installation("/home", 1, 2))
    records.write(branch)
    assert Records(tmp_path / "vitess").branch("branch1") == branch
    assert records.branch_ids() == ["branch1"]
    assert records.taken() == {1, 2, *branch.ports()}
    records.forget("branch1")
    assert records.branch_ids() == []
    assert records.taken() == {1, 2}


def test_what_cannot_be_understood_is_refused(tmp_path: Path) -> None:
    records = Records(tmp_path)
    folder = tmp_path / "branches"
    folder.mkdir()
    (folder / "b.json").write_text("{")
    with pytest.raises(InvalidError, match="cannot be understood"):
        records.branch("b")
    (folder / "b.json").write_text("{}")
    with pytest.raises(InvalidError, match="another version"):
        records.branch("b")
    with pytest.raises(InvalidError, match="cannot be the id"):
        records.branch("../b")


def test_all_processes_are_stopped_also_those_of_a_record_that_cannot_be_understood(tmp_path: Path) -> None:
    kept, home = Records(tmp_path / "vitess"), tmp_path / "home"
    kept.write_installation(Installation(str(home), 1, 2))
    kept.write(adjusted(None, spec(LOW), ports()))
    (tmp_path / "vitess" / "branches" / "other.json").write_text("{")
    marks = [
        Folder(home / "branches" / branch / name).mark
        for branch, name in (("branch1", "vtgate"), ("other", "tablet-7"), ("gone", "vtctld"))
    ]
    marks.append(etcd_mark(Folder(home / "etcd")))
    for branch, name in (("branch1", "vtgate"), ("other", "tablet-7"), ("gone", "vtctld")):
        (home / "branches" / branch / name).mkdir(parents=True)
    sleeping = "import sys; sys.stdin.read()"
    running = [
        subprocess.Popen([sys.executable, "-c", sleeping, mark], stdin=subprocess.PIPE) for mark in marks
    ]
    try:
        assert crew.stop_all(tmp_path) == []
        assert [one.wait(10) for one in running] == [-15] * len(running)
    finally:
        for one in running:
            one.kill()
            one.communicate()


def test_ports_are_given_once() -> None:
    few = Ports({45500}, range(45500, 45502))
    assert few.take() == 45501
    with pytest.raises(UnavailableError):
        few.take()


def test_two_shards_of_a_keyspace_may_not_share_a_server() -> None:
    assert shared(spec(LOW, HIGH)) == ""
    both = shared(spec(LOW, ClusterShard("80-", "ks_high", "s3", ("s2",))))
    assert "-80 and 80-" in both
    assert "s2" in both
    two = ClusterSpec("branch1", (*spec(LOW).keyspaces, *spec(LOW, name="other").keyspaces))
    assert shared(two) == ""


def test_places_tell_tablets_apart() -> None:
    made = adjusted(None, spec(LOW, HIGH), ports())
    assert len({place_of(tablet) for tablet in made.tablets}) == 3


def test_a_certificate_is_made_once_and_again_before_it_ends(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    first = certificates.ensure(tmp_path / "tls", now)
    assert certificates.ensure(tmp_path / "tls", now + timedelta(days=1000)) == first
    assert stat.S_IMODE(first.key.stat().st_mode) == 0o600
    found = x509.load_pem_x509_certificate(first.certificate.read_bytes())
    ca = x509.load_pem_x509_certificate(first.ca.read_bytes())
    found.verify_directly_issued_by(ca)
    later = certificates.ensure(tmp_path / "tls", now + timedelta(days=5 * 365 - 60))
    assert later != first
    assert first.key.exists()  # processes that run still have it


def test_a_keyspace_that_went_and_came_again_has_to_be_made_again() -> None:
    """A tablet that starts before its keyspace is in the topology makes it, with a schema of Vitess's."""
    first = adjusted(None, spec(LOW), ports())
    assert not first.is_made("ks")
    made = replace(first, made=("ks",))
    assert adjusted(made, spec(LOW, HIGH), ports(46000)).is_made("ks")
    without = adjusted(made, ClusterSpec(made.branch_id, ()), ports(46000))
    assert not without.is_made("ks")
    assert not adjusted(without, spec(LOW), ports(46100)).is_made("ks")
    # A record from before it was written down: what it wanted was there.
    older = replace(made, made=None)
    assert older.is_made("ks")
    assert adjusted(older, spec(LOW), ports(46000)).is_made("ks")
