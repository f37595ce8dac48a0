"""The server under load beside its peers: closed and open loops, large requests beside small ones, and a soak."""
