"""Arrays in, rows and pictures out: overlap, surface distance, image similarity, the report."""
