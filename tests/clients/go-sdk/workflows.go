package main

import (
	"strings"

	"github.com/planetscale/planetscale-go/planetscale"
)

// looking reads what the servers of a branch with tables tell.
func looking() {
	schema := must(client.DatabaseBranches.Schema(ctx, &planetscale.BranchSchemaRequest{
		Organization: organization, Database: database, Branch: branch, Keyspace: database,
	}))
	same(names(schema, func(one *planetscale.Diff) string { return one.Name }), "orders parts", "the tables")
	check(strings.HasPrefix(schema[0].Raw, "CREATE TABLE") && schema[0].HTML != "", "how one makes it")
	none(client.DatabaseBranches.RefreshSchema(ctx, &planetscale.RefreshSchemaRequest{
		Organization: organization, Database: database, Branch: branch,
	}))
	linted := must(client.DatabaseBranches.LintSchema(ctx, &planetscale.LintSchemaRequest{
		Organization: organization, Database: database, Branch: branch,
	}))
	same(len(linted), 0, "the number of lints")
	rules := `{"rules": [{"from_table": "purchases", "to_tables": ["shop.orders"]}]}`
	for _, wanted := range []string{rules, `{"rules": []}`} {
		must(client.DatabaseBranches.UpdateRoutingRules(ctx, &planetscale.UpdateBranchRoutingRulesRequest{
			Organization: organization, Database: database, Branch: branch, RoutingRules: wanted,
		}))
		shown := must(client.DatabaseBranches.RoutingRules(ctx, &planetscale.BranchRoutingRulesRequest{
			Organization: organization, Database: database, Branch: branch,
		}))
		check(equal(shown.Raw, wanted), "the rules that were sent")
	}
	infra := must(client.BranchInfrastructure.Get(ctx, &planetscale.GetBranchInfrastructureRequest{
		Organization: organization, Database: database, Branch: branch,
	}))
	check(infra.Vitess != nil && infra.Vitess.Ready, "servers that are ready")
	for _, pod := range infra.Vitess.Pods {
		same(pod.Ready, "1/1", pod.Name)
		check(pod.CreatedAt != nil && pod.Keyspace != nil && pod.Shard != nil, "what it is for, since when")
	}
	listed := must(client.Processlist.List(ctx, &planetscale.ProcesslistRequest{
		Organization: organization, Database: database, Branch: branch, Keyspace: database, Shard: "-",
	}))
	same(listed.Keyspace+"/"+listed.Shard, "shop/-", "whose processes they are")
}

func named(number uint64) *planetscale.GetWorkflowRequest {
	return &planetscale.GetWorkflowRequest{Organization: organization, Database: database, WorkflowNumber: number}
}

// reaches is the workflow once it is in the state.
func reaches(number uint64, state string) (found *planetscale.Workflow) {
	until("the workflow is "+state, func() bool {
		found = must(client.Workflows.Get(ctx, named(number)))
		check(found.State == state || (found.State != "error" && found.State != "stopped"), "it is "+found.State)
		return found.State == state
	})
	return found
}

func create(name string, tables ...string) *planetscale.Workflow {
	return must(client.Workflows.Create(ctx, &planetscale.CreateWorkflowRequest{
		Organization: organization, Database: database, Branch: branch, Name: name,
		SourceKeyspace: "shop", TargetKeyspace: "wide", Tables: tables,
	}))
}

// workflows walks one from its beginning to its end, with each step back.
func workflows() {
	safe := must(client.DatabaseBranches.EnableSafeMigrations(ctx, &planetscale.EnableSafeMigrationsRequest{
		Organization: organization, Database: database, Branch: branch,
	}))
	check(safe.SafeMigrations, "migrations are safe")
	made := create("walk", "orders", "parts")
	number := made.Number
	check(made.Actor.ID != "" && made.Actor.Name != "", "who made it")
	refused(of(client.Workflows.Create(ctx, &planetscale.CreateWorkflowRequest{
		Organization: organization, Database: database, Branch: branch, Name: "second",
		SourceKeyspace: "shop", TargetKeyspace: "wide", Tables: []string{"orders"},
	})), planetscale.ErrRetry)
	running := reaches(number, "running")
	same(running.SourceKeyspace.Name+" "+running.TargetKeyspace.Name, "shop wide", "from where to where")
	same(running.Branch.Name, branch, "its branch")
	check(running.StartedAt != nil && running.DataCopyCompletedAt != nil, "when it was")
	same(names(running.Tables, func(one *planetscale.WorkflowTable) string { return one.Name }), "orders parts", "tables")
	same(running.Tables[0].RowsCopied, 60, "the rows that were copied")
	same(running.Tables[0].RowsPercentage, 100, "how much of them")
	same(len(running.Streams), 2, "the number of streams")
	for _, stream := range running.Streams {
		same(stream.SourceShard, "-", "where it is from")
		check(stream.TargetShard == "-80" || stream.TargetShard == "80-", "where it leads to")
		check(stream.Position != "" && stream.PublicID != "", "where the stream is")
	}
	refused(of(client.Workflows.Complete(ctx, &planetscale.CompleteWorkflowRequest{
		Organization: organization, Database: database, WorkflowNumber: number,
	})), planetscale.ErrRetry)

	must(client.Workflows.VerifyData(ctx, &planetscale.VerifyDataWorkflowRequest{
		Organization: organization, Database: database, WorkflowNumber: number,
	}))
	verified := reaches(number, "verified_data")
	check(verified.VerifyDataAt != nil && verified.VerifyDataBy != nil, "who verified it, when")
	same(verified.VDiff.State, "completed", "the comparison")
	same(verified.VDiff.ProgressPercentage, 100, "how far it is")
	check(!verified.VDiff.HasMismatch && len(verified.VDiff.TableReports) > 0, "no difference, table by table")

	must(client.Workflows.SwitchReplicas(ctx, &planetscale.SwitchReplicasWorkflowRequest{
		Organization: organization, Database: database, WorkflowNumber: number,
	}))
	replicas := reaches(number, "switched_replicas")
	check(replicas.ReplicasSwitched && !replicas.PrimariesSwitched, "the replicas alone")
	switchPrimaries := func() *planetscale.Workflow {
		must(client.Workflows.SwitchPrimaries(ctx, &planetscale.SwitchPrimariesWorkflowRequest{
			Organization: organization, Database: database, WorkflowNumber: number,
		}))
		return reaches(number, "switched_primaries")
	}
	switched := switchPrimaries()
	check(switched.ReplicasSwitched && switched.PrimariesSwitched, "all of it")
	check(switched.SwitchPrimariesAt != nil && switched.SwitchPrimariesBy != nil, "who switched, when")
	must(client.Workflows.ReverseTraffic(ctx, &planetscale.ReverseTrafficWorkflowRequest{
		Organization: organization, Database: database, WorkflowNumber: number,
	}))
	reversed := reaches(number, "running")
	check(!reversed.PrimariesSwitched && reversed.ReversedAt != nil && reversed.ReversedBy != nil, "the way back")
	switchPrimaries()
	cut := func() *planetscale.Workflow {
		must(client.Workflows.Cutover(ctx, &planetscale.CutoverWorkflowRequest{
			Organization: organization, Database: database, WorkflowNumber: number,
		}))
		return reaches(number, "cutover")
	}
	check(cut().CutoverAt != nil, "when it was cut over")
	must(client.Workflows.ReverseCutover(ctx, &planetscale.ReverseCutoverWorkflowRequest{
		Organization: organization, Database: database, WorkflowNumber: number,
	}))
	check(reaches(number, "reversed_cutover").ReversedCutoverBy != nil, "who took it back")
	cut()
	must(client.Workflows.Complete(ctx, &planetscale.CompleteWorkflowRequest{
		Organization: organization, Database: database, WorkflowNumber: number,
	}))
	completed := reaches(number, "completed")
	check(completed.CompletedAt != nil && completed.CompletedBy != nil, "who completed it, when")
	refused(of(client.Workflows.Retry(ctx, &planetscale.RetryWorkflowRequest{
		Organization: organization, Database: database, WorkflowNumber: number,
	})), planetscale.ErrRetry)
	refused(of(client.Workflows.Get(ctx, named(99))), planetscale.ErrNotFound)
}

// cancelled walks one that is given up.
func cancelled() {
	made := create("given-up", "notes")
	reaches(made.Number, "running")
	must(client.Workflows.Cancel(ctx, &planetscale.CancelWorkflowRequest{
		Organization: organization, Database: database, WorkflowNumber: made.Number,
	}))
	last := reaches(made.Number, "cancelled")
	check(last.CancelledAt != nil && last.CancelledBy != nil, "who cancelled it, when")
	list := must(client.Workflows.List(ctx, &planetscale.ListWorkflowsRequest{
		Organization: organization, Database: database,
	}))
	states := names(list, func(one *planetscale.Workflow) string { return one.Name + ": " + one.State })
	same(states, "given-up: cancelled walk: completed", "the workflows")
}
