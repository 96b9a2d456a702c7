"""A match to look at in a browser: as one file (`page`), or from a server on this machine (`server`)."""
