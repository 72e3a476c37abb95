"""More than one process: ranks that share the samples of one computation."""
