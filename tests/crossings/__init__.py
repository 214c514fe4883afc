"""Every verb of the app in hard surroundings, and with signals at any moment of its work."""
