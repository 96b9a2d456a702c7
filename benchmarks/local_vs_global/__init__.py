"""The paper's argument, measured: neither local nor global correlation alone is enough, nor is a fixed resolution.

    python -m benchmarks.local_vs_global train --photos PHOTOS --validation HELD_BACK --out FOLDER

trains Local-Net, Global-Net, GLOCAL-Net and GLU-Net (and GLU-Net without mutual matching) on the same pairs from the
same encoder passes, with three seeds, and measures them; `costs`, `networks` and `shipped` are quick; `page` draws the
figures and writes the tables of docs/local-and-global.md, which explains them. Without a word: all of it.
"""
