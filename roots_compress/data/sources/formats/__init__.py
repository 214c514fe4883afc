"""Records of each format of file."""
