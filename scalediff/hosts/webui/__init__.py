"""What all WebUIs share."""
