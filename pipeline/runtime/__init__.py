"""What networks run on: the device with its precision, and one `Network` interface for every file format."""
