"""Every way to estimate influence, by family."""
