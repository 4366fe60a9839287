"""Settings: typed trees, filled by a YAML file and by command-line flags."""
