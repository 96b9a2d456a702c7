"""Points, and the homographies and cameras that they agree on."""
