# What tests/scenarios/test_terraform.py makes, changes, imports and destroys. Where and as whom is in the
# environment (PLANETSCALE_SERVER_URL, PLANETSCALE_SERVICE_TOKEN_ID, PLANETSCALE_SERVICE_TOKEN).

terraform {
  required_providers {
    planetscale = {
      source = "planetscale/planetscale"
    }
  }
}

variable "organization" { type = string }
variable "database_id" { type = string }
variable "password_name" { type = string }
variable "safe" { type = bool }
variable "size" { type = string }

provider "planetscale" {}

data "planetscale_organizations" "all" {}

data "planetscale_database_vitess" "shop" {
  organization = var.organization
  id           = var.database_id
}

resource "planetscale_vitess_branch" "dev" {
  organization    = var.organization
  database        = "shop"
  name            = "dev"
  parent_branch   = "main"
  safe_migrations = var.safe
}

resource "planetscale_vitess_branch_password" "app" {
  organization = var.organization
  database     = "shop"
  branch       = planetscale_vitess_branch.dev.name
  name         = var.password_name
  role         = "readwriter"
}

resource "planetscale_vitess_keyspace" "wide" {
  organization = var.organization
  database     = "shop"
  branch       = "main"
  name         = "wide"
  cluster_size = var.size
  shards       = 2
}

data "planetscale_vitess_branch_passwords" "all" {
  organization = var.organization
  database     = "shop"
  branch       = planetscale_vitess_branch_password.app.branch
}

output "organizations" { value = [for one in data.planetscale_organizations.all.data : one.name] }
output "database" { value = data.planetscale_database_vitess.shop.name }
output "passwords" { value = [for one in data.planetscale_vitess_branch_passwords.all.data : one.name] }
output "branch_id" { value = planetscale_vitess_branch.dev.id }
output "password_id" { value = planetscale_vitess_branch_password.app.id }
output "username" { value = planetscale_vitess_branch_password.app.username }
output "address" { value = planetscale_vitess_branch.dev.mysql_edge_address }
output "plain_text" {
  value     = planetscale_vitess_branch_password.app.plain_text
  sensitive = true
}
