"""The command `leadline`: what people type. It talks to the daemon through the protocol only, as any service would.

One module per group of commands; `app` knows them all by name and imports the one that is asked for, so that the
common ones answer at once. What a command says is made of words (`words`), shown on a terminal or in a pipe
(`terminal`), and learnt from a daemon (`daemon`).
"""
