"""The published method: sizes, frequencies, guidance, schedules, stages. Knows tensors only (paper 3, App. B)."""
