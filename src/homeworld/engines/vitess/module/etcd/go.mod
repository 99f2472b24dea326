// Pins etcd, which keeps the topology of Vitess; see ../go.mod.
module homeworld/engines/vitess/etcd

go 1.25.7

tool go.etcd.io/etcd/server/v3

require go.etcd.io/etcd/server/v3 v3.6.16
