"""The commands of `steerlib`, one module for each group; `steerlib.cli` puts them together."""
