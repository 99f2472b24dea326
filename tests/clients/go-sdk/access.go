package main

import (
	"strings"

	"github.com/planetscale/planetscale-go/planetscale"
)

func passwords() {
	made := must(client.Passwords.Create(ctx, &planetscale.DatabaseBranchPasswordRequest{
		Organization: organization, Database: database, Branch: branch, Name: "reading", Role: "reader", TTL: 600,
	}))
	check(strings.HasPrefix(made.PlainText, "pscale_pw_"), "a password that is told once")
	check(made.Username != "" && made.Hostname != "" && made.Renewable, "what one logs in with")
	same(made.Role, "reader", "its role")
	same(made.TTL, 600, "how long it lives")
	same(made.Branch.Name, branch, "its branch")
	recent(made.CreatedAt, "created_at")
	check(made.ExpiresAt.After(made.CreatedAt), "it ends after it began")
	check(made.DeletedAt.IsZero(), "it is not deleted")
	at := &planetscale.GetDatabaseBranchPasswordRequest{
		Organization: organization, Database: database, Branch: branch, PasswordId: made.PublicID,
	}
	same(must(client.Passwords.Get(ctx, at)).PlainText, "", "what is told later")
	list := &planetscale.ListDatabaseBranchPasswordRequest{
		Organization: organization, Database: database, Branch: branch,
	}
	for page, wanted := range map[int]string{1: "reading", 2: ""} {
		found := must(client.Passwords.List(ctx, list, planetscale.WithPage(page), planetscale.WithPerPage(1)))
		same(names(found, func(one *planetscale.DatabaseBranchPassword) string { return one.Name }), wanted, "a page")
	}
	renewed := must(client.Passwords.Renew(ctx, &planetscale.RenewDatabaseBranchPasswordRequest{
		Organization: organization, Database: database, Branch: branch, PasswordId: made.PublicID,
	}))
	check(!renewed.ExpiresAt.Before(made.ExpiresAt), "it ends later")
	none(client.Passwords.Delete(ctx, &planetscale.DeleteDatabaseBranchPasswordRequest{
		Organization: organization, Database: database, Branch: branch, PasswordId: made.PublicID,
	}))
	refused(of(client.Passwords.Get(ctx, at)), planetscale.ErrNotFound)
	refused(of(client.Passwords.Create(ctx, &planetscale.DatabaseBranchPasswordRequest{
		Organization: organization, Database: database, Branch: branch, Name: "odd", Role: "owner",
	})), planetscale.ErrRetry)
}

func tokens() {
	made := must(client.ServiceTokens.Create(ctx, &planetscale.CreateServiceTokenRequest{
		Organization: organization, Name: pointer("a job"), TTL: pointer(3600),
	}))
	check(strings.HasPrefix(made.Token, "pscale_tkn_") && len(made.ID) == 12, "a token that is told once")
	check(made.Name != nil && *made.Name == "a job", "its name")
	check(made.ExpiresAt != nil && made.ExpiresAt.After(made.CreatedAt), "it ends after it began")
	recent(made.CreatedAt, "created_at")
	accesses := []string{"read_branch", "create_branch"}
	added := must(client.ServiceTokens.AddAccess(ctx, &planetscale.AddServiceTokenAccessRequest{
		Organization: organization, ID: made.ID, Database: database, Accesses: accesses,
	}))
	same(len(added), 2, "what was added")
	for _, one := range must(client.ServiceTokens.GetAccess(ctx, &planetscale.GetServiceTokenAccessRequest{
		Organization: organization, ID: made.ID,
	})) {
		same(one.Resource.Name, database, "what it is for")
		check(one.ID != "" && strings.HasSuffix(one.Access, "_branch"), "an access with an id")
	}
	grants := &planetscale.ListServiceTokenGrantsRequest{Organization: organization, ID: made.ID}
	granted := must(client.ServiceTokens.ListGrants(ctx, grants))
	same(len(granted), 1, "the number of resources")
	same(granted[0].ResourceName, database, "the resource")
	check(granted[0].ResourceID != "" && granted[0].ResourceType != "", "its id and type")
	same(len(granted[0].Accesses), 2, "the number of accesses")
	check(granted[0].Accesses[0].Description != "", "what the access allows, in words")
	none(client.ServiceTokens.DeleteAccess(ctx, &planetscale.DeleteServiceTokenAccessRequest{
		Organization: organization, ID: made.ID, Database: database, Accesses: accesses[1:],
	}))
	left := must(client.ServiceTokens.ListGrants(ctx, grants))[0].Accesses
	same(names(left, func(one *planetscale.ServiceTokenGrantAccess) string { return one.Access }), "read_branch", "left")
	list := &planetscale.ListServiceTokensRequest{Organization: organization}
	found := false
	for _, one := range must(client.ServiceTokens.List(ctx, list)) {
		same(one.Token, "", "what is told later")
		found = found || one.ID == made.ID
	}
	check(found, "it is listed")
	gone := &planetscale.DeleteServiceTokenRequest{Organization: organization, ID: made.ID}
	none(client.ServiceTokens.Delete(ctx, gone))
	refused(client.ServiceTokens.Delete(ctx, gone), planetscale.ErrNotFound)
}

// webhooks keeps all of them disabled: nothing is sent anywhere.
func webhooks() {
	made := must(client.Webhooks.Create(ctx, &planetscale.CreateWebhookRequest{
		Organization: organization, Database: database, URL: "https://example.com/hook", Enabled: pointer(false),
		Events: []string{"branch.ready"},
	}))
	check(made.ID != "" && made.Secret != "" && !made.Enabled, "a disabled webhook with a secret")
	check(made.LastSentAt.IsZero(), "it was never sent to")
	recent(made.CreatedAt, "created_at")
	updated := must(client.Webhooks.Update(ctx, &planetscale.UpdateWebhookRequest{
		Organization: organization, Database: database, ID: made.ID, Events: []string{"branch.ready", "branch.sleeping"},
	}))
	same(len(updated.Events), 2, "the number of events")
	at := &planetscale.GetWebhookRequest{Organization: organization, Database: database, ID: made.ID}
	same(must(client.Webhooks.Get(ctx, at)).URL, "https://example.com/hook", "its address")
	list := &planetscale.ListWebhooksRequest{Organization: organization, Database: database}
	same(len(must(client.Webhooks.List(ctx, list, planetscale.WithPerPage(10)))), 1, "the number of webhooks")
	none(client.Webhooks.Delete(ctx, &planetscale.DeleteWebhookRequest{
		Organization: organization, Database: database, ID: made.ID,
	}))
	refused(of(client.Webhooks.Get(ctx, at)), planetscale.ErrNotFound)
}

func audit() {
	of := &planetscale.ListAuditLogsRequest{Organization: organization}
	seen := map[string]bool{}
	after := ""
	for pages := 0; ; pages++ {
		page := must(client.AuditLogs.List(ctx, of, planetscale.WithLimit(5), planetscale.WithStartingAfter(after)))
		for _, one := range page.Data {
			check(!seen[one.ID], "each entry once")
			seen[one.ID] = true
			check(one.AuditAction != "" && one.AuditableType != "" && one.AuditableID != "", "what was done to which")
			check(one.ActorID != "" || one.ActorType == "System", "who did it; the installation itself has no id")
			check(one.ActorDisplayName != "", "the name of who did it")
			recent(one.CreatedAt, "created_at")
		}
		same(page.HasPrev, pages > 0, "a page before it")
		if !page.HasNext {
			break
		}
		same(len(page.Data), 5, "a page's length")
		check(page.CursorEnd != nil, "where the next page begins")
		after = *page.CursorEnd
	}
	check(len(seen) > 5, "more than a page")
	made := must(client.AuditLogs.List(ctx, &planetscale.ListAuditLogsRequest{
		Organization: organization, Events: []planetscale.AuditLogEvent{planetscale.AuditLogEventDatabaseCreated},
	}))
	same(len(made.Data), 1, "the databases that were made")
	same(made.Data[0].AuditableDisplayName, database, "which one")
}
