package main

import (
	"encoding/json"
	"os"
	"strings"

	"github.com/planetscale/planetscale-go/planetscale"
)

const sharding = `{"sharded": true, "vindexes": {"xxhash": {"type": "xxhash"}}, "tables": {` +
	`"orders": {"column_vindexes": [{"column": "id", "name": "xxhash"}]},` +
	`"notes": {"column_vindexes": [{"column": "id", "name": "xxhash"}]},` +
	`"parts": {"column_vindexes": [{"column": "order_id", "name": "xxhash"}]}}}`

// equal compares two JSON texts by what they say.
func equal(got, wanted string) bool {
	var left, right any
	none(json.Unmarshal([]byte(got), &left))
	none(json.Unmarshal([]byte(wanted), &right))
	return string(must(json.Marshal(left))) == string(must(json.Marshal(right)))
}

func organizations() {
	list := must(client.Organizations.List(ctx))
	same(len(list), 1, "the number of organizations")
	same(list[0].Name, organization, "the organization")
	one := must(client.Organizations.Get(ctx, &planetscale.GetOrganizationRequest{Organization: organization}))
	same(one.Name, organization, "the organization")
	recent(one.CreatedAt, "created_at")
	recent(one.UpdatedAt, "updated_at")
	in := &planetscale.ListOrganizationRegionsRequest{Organization: organization}
	for _, regions := range [][]*planetscale.Region{
		must(client.Organizations.ListRegions(ctx, in)),
		must(client.Regions.List(ctx, &planetscale.ListRegionsRequest{})),
	} {
		same(names(regions, func(one *planetscale.Region) string { return one.Slug }), "local", "the regions")
		check(regions[0].Enabled && regions[0].Name != "" && regions[0].Location != "", "an enabled region with names")
	}
	sizes := &planetscale.ListOrganizationClusterSKUsRequest{Organization: organization}
	for _, size := range must(client.Organizations.ListClusterSKUs(ctx, sizes, planetscale.WithRates())) {
		if size.Name == "PS_10" {
			same(size.DisplayName, "PS-10", "the name that is shown")
			same(size.Memory, 1<<30, "its memory")
			check(size.Enabled && !size.Metal && size.Rate != nil && size.CPU != "", "an enabled size with a rate")
			return
		}
	}
	fail("there is no PS_10")
}

func databases() {
	made := must(client.Databases.Create(ctx, &planetscale.CreateDatabaseRequest{
		Organization: organization, Name: database, Region: "local", ClusterSize: "PS-10",
	}))
	same(made.Name, database, "name")
	same(made.Kind, planetscale.DatabaseEngineMySQL, "kind")
	at := &planetscale.GetDatabaseRequest{Organization: organization, Database: database}
	until("the database is ready", func() bool {
		return must(client.Databases.Get(ctx, at)).State == planetscale.DatabaseReady
	})
	list := must(client.Databases.List(ctx, &planetscale.ListDatabasesRequest{Organization: organization}))
	same(names(list, func(one *planetscale.Database) string { return one.Name }), database, "the databases")
	same(list[0].Region.Slug, "local", "its region")
	recent(list[0].CreatedAt, "created_at")
	recent(list[0].UpdatedAt, "updated_at")
	check(strings.HasPrefix(list[0].HtmlURL, "http"), "an address for people")
	// What is asked for in a wrong way is told as such, and what is not there as not found.
	refused(of(client.Databases.Create(ctx, &planetscale.CreateDatabaseRequest{
		Organization: organization, Name: database,
	})), planetscale.ErrRetry)
	nowhere := &planetscale.GetDatabaseRequest{Organization: organization, Database: "nothing"}
	refused(of(client.Databases.Get(ctx, nowhere)), planetscale.ErrNotFound)
	stranger := must(planetscale.NewClient(
		planetscale.WithBaseURL(os.Getenv("PLANETSCALE_API_URL")), planetscale.WithServiceToken("nobody", "nothing"),
	))
	refused(of(stranger.Databases.Get(ctx, at)), planetscale.ErrPermission)
}

func branches() {
	made := must(client.DatabaseBranches.Create(ctx, &planetscale.CreateDatabaseBranchRequest{
		Organization: organization, Database: database, Name: "dev", ParentBranch: branch,
	}))
	same(made.ParentBranch, branch, "the parent")
	check(made.ID != "" && made.Actor.ID != "" && made.Actor.Name != "", "ids, and who made it")
	at := &planetscale.GetDatabaseBranchRequest{Organization: organization, Database: database, Branch: "dev"}
	until("the branch is ready", func() bool { return must(client.DatabaseBranches.Get(ctx, at)).Ready })
	list := must(client.DatabaseBranches.List(ctx, &planetscale.ListDatabaseBranchesRequest{
		Organization: organization, Database: database,
	}))
	same(len(list), 2, "the number of branches")
	for _, one := range list {
		same(one.Production, one.Name == branch, one.Name+" in production")
		same(one.Region.Slug, "local", "its region")
		recent(one.CreatedAt, "created_at")
	}
	// By its id as by its name.
	byID := &planetscale.GetDatabaseBranchRequest{Organization: organization, Database: database, Branch: made.ID}
	same(must(client.DatabaseBranches.Get(ctx, byID)).Name, "dev", "the branch of that id")
	promoted := must(client.DatabaseBranches.Promote(ctx, &planetscale.PromoteRequest{
		Organization: organization, Database: database, Branch: "dev",
	}))
	check(promoted.Production, "it is in production")
	safe := must(client.DatabaseBranches.EnableSafeMigrations(ctx, &planetscale.EnableSafeMigrationsRequest{
		Organization: organization, Database: database, Branch: "dev",
	}))
	check(safe.SafeMigrations, "migrations are safe")
	loose := must(client.DatabaseBranches.DisableSafeMigrations(ctx, &planetscale.DisableSafeMigrationsRequest{
		Organization: organization, Database: database, Branch: "dev",
	}))
	check(!loose.SafeMigrations, "migrations are not safe")
	demoted := must(client.DatabaseBranches.Demote(ctx, &planetscale.DemoteRequest{
		Organization: organization, Database: database, Branch: "dev",
	}))
	check(!demoted.Production, "it is not in production")
	sizes := must(client.DatabaseBranches.ListClusterSKUs(ctx, &planetscale.ListBranchClusterSKUsRequest{
		Organization: organization, Database: database, Branch: "dev",
	}))
	check(len(sizes) > 1, "sizes to choose from")
	none(client.DatabaseBranches.Delete(ctx, &planetscale.DeleteDatabaseBranchRequest{
		Organization: organization, Database: database, Branch: "dev",
	}))
	refused(of(client.DatabaseBranches.Get(ctx, at)), planetscale.ErrNotFound)
}

func keyspaces() {
	made := must(client.Keyspaces.Create(ctx, &planetscale.CreateKeyspaceRequest{
		Organization: organization, Database: database, Branch: branch, Name: "wide", ClusterSize: "PS-10", Shards: 2,
	}))
	same(made.Shards, 2, "shards")
	check(made.Sharded && made.ID != "", "a sharded keyspace with an id")
	at := &planetscale.GetKeyspaceRequest{
		Organization: organization, Database: database, Branch: branch, Keyspace: "wide",
	}
	until("the keyspace is ready", func() bool { return must(client.Keyspaces.Get(ctx, at)).Ready })
	one := must(client.Keyspaces.Get(ctx, at))
	same(one.ClusterSize, "PS_10", "its size")
	same(one.Replicas, 0, "its replicas")
	check(one.VReplicationFlags != nil && one.ReplicationDurabilityConstraints != nil, "its settings")
	recent(one.CreatedAt, "created_at")
	list := must(client.Keyspaces.List(ctx, &planetscale.ListKeyspacesRequest{
		Organization: organization, Database: database, Branch: branch,
	}))
	same(len(list), 2, "the number of keyspaces")
	updated := must(client.Keyspaces.UpdateVSchema(ctx, &planetscale.UpdateKeyspaceVSchemaRequest{
		Organization: organization, Database: database, Branch: branch, Keyspace: "wide", VSchema: sharding,
	}))
	check(equal(updated.Raw, sharding), "the vschema that was sent")
	shown := must(client.Keyspaces.VSchema(ctx, &planetscale.GetKeyspaceVSchemaRequest{
		Organization: organization, Database: database, Branch: branch, Keyspace: "wide",
	}))
	check(equal(shown.Raw, sharding) && shown.HTML != "", "the vschema that was sent")
	refused(of(client.Keyspaces.UpdateVSchema(ctx, &planetscale.UpdateKeyspaceVSchemaRequest{
		Organization: organization, Database: database, Branch: branch, Keyspace: "wide", VSchema: `{"tables": 1}`,
	})), planetscale.ErrRetry)
	settings := must(client.Keyspaces.UpdateSettings(ctx, &planetscale.UpdateKeyspaceSettingsRequest{
		Organization: organization, Database: database, Branch: branch, Keyspace: "wide",
		VReplicationFlags: &planetscale.VReplicationFlags{VPlayerBatching: true},
		ReplicationDurabilityConstraints: &planetscale.ReplicationDurabilityConstraints{
			Strategy: "available",
		},
	}))
	check(settings.VReplicationFlags.VPlayerBatching, "batching")
	check(!settings.VReplicationFlags.OptimizeInserts, "inserts as they are")
	same(settings.ReplicationDurabilityConstraints.Strategy, "available", "the strategy")
	resizes()
	rollout := must(client.Keyspaces.RolloutStatus(ctx, &planetscale.KeyspaceRolloutStatusRequest{
		Organization: organization, Database: database, Branch: branch, Keyspace: "wide",
	}))
	same(names(rollout.Shards, func(one planetscale.ShardRollout) string { return one.Name }), "-80 80-", "the shards")
	same(rollout.State, "complete", "the rollout")
}

func resizes() {
	asked := must(client.Keyspaces.Resize(ctx, &planetscale.ResizeKeyspaceRequest{
		Organization: organization, Database: database, Branch: branch, Keyspace: "wide", ClusterSize: pointer("PS-20"),
	}))
	same(asked.PreviousClusterSize, "PS_10", "the size before")
	check(asked.Actor != nil && asked.Actor.ID != "", "who asked for it")
	at := &planetscale.KeyspaceResizeStatusRequest{
		Organization: organization, Database: database, Branch: branch, Keyspace: "wide",
	}
	var last *planetscale.KeyspaceResizeRequest
	until("the resize is done", func() bool {
		last = must(client.Keyspaces.ResizeStatus(ctx, at))
		return last.State == "completed"
	})
	same(last.ID, asked.ID, "the resize")
	same(last.ClusterSize, "PS_20", "the size now")
	check(last.StartedAt != nil && last.CompletedAt != nil, "when it was")
	recent(*last.CompletedAt, "completed_at")
	refused(client.Keyspaces.CancelResize(ctx, &planetscale.CancelKeyspaceResizeRequest{
		Organization: organization, Database: database, Branch: branch, Keyspace: "wide",
	}), planetscale.ErrRetry)
}

func deleting() {
	told := must(client.Databases.Delete(ctx, &planetscale.DeleteDatabaseRequest{
		Organization: organization, Database: database,
	}))
	check(told == nil || told.ID == "", "nothing that is left to wait for")
	list := must(client.Databases.List(ctx, &planetscale.ListDatabasesRequest{Organization: organization}))
	same(len(list), 0, "the number of databases")
}
