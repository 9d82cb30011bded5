"""Coming from Feast: import a repository of Feast, then compare what both stores return for the same rows."""
