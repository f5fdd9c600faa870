"""Plug-ins that break one law each: a law that none of them fails would be no law."""
