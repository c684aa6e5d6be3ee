"""The simulator: the server's own code on virtual time, decided by one seed, replayed exactly."""
