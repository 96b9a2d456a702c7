"""`glunet bench`: time and memory on this machine, beside what one would pick instead, and beside a floor."""
