"""From scans on disk to batches: describe, find, verify, prepare, store, read, augment."""
