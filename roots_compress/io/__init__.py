"""Files: written whole or not at all, named, hashed, and checked before a library opens them."""
