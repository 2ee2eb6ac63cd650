"""Whether a cluster can do what it is about to be asked, before anything is billed: facts of each
node, and what follows.
"""
