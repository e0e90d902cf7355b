"""The rim: each module translates between one technology and the daemon, and does nothing else.

Adapters know nothing of each other; only the composition root knows them all.
"""
