"""What a plan costs before it runs: multiply-adds, memory, seconds."""
