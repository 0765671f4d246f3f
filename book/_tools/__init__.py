"""The tools that read, run and build the manuscript."""
