"""Pages of a run and of a comparison: one HTML file each, which needs nothing from anywhere else."""
