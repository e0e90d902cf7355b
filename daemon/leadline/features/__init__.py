"""The families of work as slices: each folder can be opened alone, and none imports another."""
