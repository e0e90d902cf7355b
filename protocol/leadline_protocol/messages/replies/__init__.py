"""Replies: what the daemon answers, one line for each request; and the views of which they consist.

Each subject is a module, and `base` is what all of them share.
"""
