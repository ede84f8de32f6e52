"""What a host must offer (`protocol`) and the adapters that offer it."""
