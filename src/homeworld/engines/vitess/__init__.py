"""The Vitess engine: a cluster of Vitess's own processes for each branch, beside LocalEngine's servers."""
