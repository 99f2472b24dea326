// Pins Vitess: this names the version, go.sum says what each module must consist of. Nothing here is code;
// engines/vitess/install.py builds the named programs and nothing else. etcd has a module of its own, so that
// neither lifts what the other is built with.
module homeworld/engines/vitess

go 1.25.7

tool (
	vitess.io/vitess/go/cmd/vtctld
	vitess.io/vitess/go/cmd/vtctldclient
	vitess.io/vitess/go/cmd/vtgate
	vitess.io/vitess/go/cmd/vttablet
)

require vitess.io/vitess v0.23.3
