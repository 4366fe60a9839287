"""Settings: typed trees, filled from a YAML file and from command-line flags."""
