"""Networks in one file for other runtimes, with everything that their use depends on, and compared on real images."""
