"""Programs written for the published `demucs` package, run by this one."""
