"""What computes the same as the network's plain modules, faster; each has its twin there, and a test that they agree.

Who takes them: `correlation.local_correlation` and `correlation.local_scores` (bands, triton_correlation), and
`glunet.inference.speed.for_inference` (folding, strips).
"""
