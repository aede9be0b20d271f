"""ssl-lab."""
