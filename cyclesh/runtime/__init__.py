"""What keeps a run going: schedules, the history pool, devices, checkpoints, logs."""
