"""What a person sees: accordion, settings page, X/Y/Z axes, endpoints."""
