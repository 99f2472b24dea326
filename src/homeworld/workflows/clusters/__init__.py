"""Clusters follow what is stored: what each has to be, who lets it follow, who waits for that."""
