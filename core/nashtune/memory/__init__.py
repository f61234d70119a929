"""What a run will hold in memory at its peak, counted before any weight is loaded. Nothing here imports torch."""
