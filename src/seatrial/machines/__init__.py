"""State machines that the server replicates."""
